"""Clusters of texts: TF-IDF vectors and k-means, small and reproducible, for methods that ask how many texts agree."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from ramify.backends.base import FloatArray

IntArray = npt.NDArray[np.int64]

ROUNDS = 20  # of k-means at most; a few dozen short texts settle in three or four
_WORD = re.compile(r"\w+|[^\w\s]")


def tf_idf(texts: Sequence[str]) -> FloatArray:
    """TF-IDF vectors of length 1, [texts, words]; a text without words is a row of zeros."""
    counts = [Counter(_WORD.findall(text.lower())) for text in texts]
    column = {word: place for place, word in enumerate(sorted(set().union(*counts)))}
    containing = Counter(word for count in counts for word in count)
    vectors = np.zeros((len(texts), len(column)))
    for row, count in enumerate(counts):
        for word, times in count.items():
            vectors[row, column[word]] = times * (math.log((1 + len(texts)) / (1 + containing[word])) + 1)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float64)


def k_means(points: FloatArray, k: int, mark: float) -> IntArray:
    """A cluster's number for each point, [points]: Lloyd's algorithm from centres far apart.

    Args:
        points: [points, dimensions].
        k: clusters at most; fewer where fewer points differ.
        mark: a number in (0, 1) that says which point is the first centre.
    """
    centres = _first_centres(points, k, mark)
    labels = _nearest(points, centres)
    for _ in range(ROUNDS):
        for cluster in set(labels.tolist()):
            centres[cluster] = points[labels == cluster].mean(axis=0)
        moved = _nearest(points, centres)
        if np.array_equal(moved, labels):
            break
        labels = moved
    return labels


def shares(labels: Sequence[Hashable]) -> FloatArray:
    """For each member the share of all that are in its own cluster, [members]."""
    sizes = Counter(labels)
    return np.array([sizes[label] / len(labels) for label in labels], dtype=np.float64)


def _first_centres(points: FloatArray, k: int, mark: float) -> FloatArray:
    """The point that `mark` names, then each time the point farthest from all centres (the first of equals)."""
    chosen = [int(mark * len(points))]
    while len(chosen) < k:
        gaps = np.round(_squared_distances(points, points[chosen]).min(axis=1), 12)
        if gaps.max() == 0:  # every point lies on a centre
            break
        chosen.append(int(gaps.argmax()))
    return points[chosen].copy()


def _nearest(points: FloatArray, centres: FloatArray) -> IntArray:
    """The nearest centre of each point; of equally near ones (up to rounding) the first."""
    distances = np.round(_squared_distances(points, centres), 12)
    return np.asarray(distances.argmin(axis=1), dtype=np.int64)


def _squared_distances(points: FloatArray, centres: FloatArray) -> FloatArray:
    return np.asarray(((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2), dtype=np.float64)
