"""Clusters of texts: vectors, centres, and the share of the right cluster."""

import numpy as np
import pytest

from ramify.strategies.search.clusters import k_means, shares, tf_idf

TEXTS = ["three plus four is seven", "seven is three plus four", "the cat sleeps", "a cat sleeps", "three plus four"]


def test_vectors_have_length_one_and_depend_on_words_alone():
    vectors = tf_idf(TEXTS)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.allclose(vectors[0], vectors[1])
    assert vectors[0] @ vectors[2] == 0
    assert vectors[2] @ vectors[3] > 0.5


def test_a_text_without_words_is_a_row_of_zeros():
    vectors = tf_idf(["", "x", " \n"])
    assert vectors.any(axis=1).tolist() == [False, True, False]
    assert tf_idf(["", ""]).shape == (2, 0)


@pytest.mark.parametrize("seed", range(20))
def test_groups_far_apart_are_found_whatever_the_first_centres(seed):
    labels = k_means(tf_idf(TEXTS), 2, (seed + 0.5) / 20)
    assert len({labels[0], labels[1], labels[4]}) == 1
    assert len({labels[2], labels[3]}) == 1
    assert labels[0] != labels[2]


def test_equal_points_are_one_cluster_and_no_more_clusters_than_points():
    assert len(set(k_means(tf_idf(["x y"] * 6), 5, 0.3).tolist())) == 1
    assert len(set(k_means(tf_idf(["x", "y"]), 5, 0.3).tolist())) == 2
    assert k_means(tf_idf(["", ""]), 3, 0.3).tolist() == [0, 0]


def test_the_same_mark_gives_the_same_clusters():
    points = np.random.default_rng(0).random((12, 4))
    assert k_means(points, 3, 0.3).tolist() == k_means(points.copy(), 3, 0.3).tolist()


def test_a_share_is_that_of_the_members_own_cluster():
    assert shares([2, 0, 2, 2]).tolist() == [0.75, 0.25, 0.75, 0.75]
    assert shares(["b", "a", "c", "a"]).tolist() == [0.25, 0.5, 0.25, 0.5]
