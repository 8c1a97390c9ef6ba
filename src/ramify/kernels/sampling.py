"""Drawing tokens from rows of logits, and describing drawn tokens; no vocabulary is sorted.

A draw is the inverse CDF of the row's distribution at a given number, found in two steps: first the chunk of the
vocabulary, and then the token in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ramify.kernels.native import extension, native
from ramify.kernels.tensors import address

DRAW_FIELDS = ("inverse_temperature", "top_k", "top_p", "min_p", "typical_p", "draw")
"""Columns of the parameters of a draw. Truncations apply in this order, each to what the ones before it left."""
_CHUNK = 512

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Descriptions:
    """What is known of R tokens.

    Attributes:
        logprobs: [R] natural log-probabilities.
        ranks: [R], 1 for the most likely token of its row.
        means: [R] means of the log-probabilities of all tokens.
        top_ids, top_logprobs: [R][num_top], the most likely tokens of each row; among equals lower ids come first.
    """

    logprobs: list[float]
    ranks: list[int]
    means: list[float]
    top_ids: list[list[int]]
    top_logprobs: list[list[float]]


def draw_tokens(logits: torch.Tensor, parameters: FloatArray) -> list[int]:
    """Draw a token from each row.

    Args:
        logits: [R, vocabulary] float32, contiguous; left as they are.
        parameters: [R, len(DRAW_FIELDS)] float64. An inverse temperature of 0 takes the most likely token; top_k 0,
            top_p 1, min_p 0 and typical_p 1 keep all; the draw lies in (0, 1).

    Returns:
        R ids; -1 for a row with a NaN or an infinity, or with nothing finite. Among equal logits, lower ids come first.
    """
    if extension() is None or logits.is_cuda:
        return reference_draw_tokens(logits, parameters)
    rows, size = logits.shape
    tokens = torch.empty(rows, dtype=torch.int64)
    numbers = torch.from_numpy(parameters)
    native().draw_tokens(address(logits), rows, size, address(numbers, torch.float64), tokens.data_ptr())
    return tokens.tolist()


def describe_tokens(logits: torch.Tensor, tokens: list[int], num_top: int) -> Descriptions:
    """Describe a token of each row, and its most likely ones.

    Args:
        logits: [R, vocabulary] float32, contiguous.
        tokens: R ids.
        num_top: how many of the most likely to name; at most the vocabulary.
    """
    rows, size = logits.shape
    num_top = min(num_top, size)
    if extension() is None or logits.is_cuda:
        return reference_describe_tokens(logits, tokens, num_top)
    logprobs, means = torch.empty(rows), torch.empty(rows)
    ranks, top_ids = torch.empty(rows, dtype=torch.int64), torch.empty(rows, num_top, dtype=torch.int64)
    top_logprobs = torch.empty(rows, num_top)
    ids = torch.tensor(tokens, dtype=torch.int64)
    native().describe_tokens(
        address(logits),
        rows,
        size,
        ids.data_ptr(),
        num_top,
        logprobs.data_ptr(),
        means.data_ptr(),
        ranks.data_ptr(),
        top_ids.data_ptr(),
        top_logprobs.data_ptr(),
    )
    return Descriptions(logprobs.tolist(), ranks.tolist(), means.tolist(), top_ids.tolist(), top_logprobs.tolist())


def reference_describe_tokens(logits: torch.Tensor, tokens: list[int], num_top: int) -> Descriptions:
    """The same in torch."""
    logprobs = torch.log_softmax(logits, dim=-1)
    own = logprobs.gather(1, torch.tensor(tokens, device=logits.device).unsqueeze(1))
    ranks = (logprobs > own).sum(1) + 1
    top_logprobs, top_ids = logprobs.topk(num_top)
    return Descriptions(
        own.flatten().tolist(), ranks.tolist(), logprobs.mean(1).tolist(), top_ids.tolist(), top_logprobs.tolist()
    )


def reference_draw_tokens(logits: torch.Tensor, parameters: FloatArray) -> list[int]:
    """The same in torch."""
    highest = logits.amax(dim=-1, keepdim=True)
    works = torch.isfinite(highest)
    inverse = torch.tensor(parameters[:, :1], dtype=torch.float32, device=logits.device)
    # Taking the maximum off first keeps tiny temperatures from overflowing.
    scaled = torch.where(works, (logits - highest) * inverse, 0.0)
    tokens = logits.argmax(dim=-1)
    drawn = np.flatnonzero(parameters[:, 0]).tolist()
    if drawn:
        rows = scaled[drawn]
        for place, row in enumerate(drawn):
            rows[place] = truncate(rows[place], *parameters[row, 1:5].tolist())
        draws = torch.from_numpy(parameters[drawn, 5]).to(logits.device)
        tokens[drawn] = inverse_cdf(rows.exp_(), draws)
    return torch.where(works.squeeze(1), tokens, -1).tolist()


def inverse_cdf(weights: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """For each row the token in whose interval of the cumulative distribution the draw falls.

    Args:
        weights: [R, vocabulary] float32, proportional to the probabilities, not negative and not all zero.
        draws: [R] float64 in (0, 1).

    Returns:
        [R] int64; never a token of weight zero.
    """
    rows, size = weights.shape
    whole = size // _CHUNK * _CHUNK
    sums = weights[:, :whole].view(rows, -1, _CHUNK).sum(-1) if whole else weights[:, :0]
    if whole < size:
        sums = torch.cat((sums, weights[:, whole:].sum(-1, keepdim=True)), dim=1)
    chunk, rest = _locate(sums.double(), draws)
    places = chunk.unsqueeze(1) * _CHUNK + torch.arange(min(_CHUNK, size), device=weights.device)
    inside = weights.gather(1, places.clamp(max=size - 1)).double().masked_fill_(places >= size, 0)
    token, _ = _locate(inside, rest)
    return chunk * _CHUNK + token


def _locate(weights: torch.Tensor, draws: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The interval of each row that its draw falls into, and how far into the interval it falls, in (0, 1)."""
    cumulative = weights.cumsum(dim=-1)
    total = cumulative[:, -1]
    targets = torch.minimum(draws * total, torch.nextafter(total, torch.zeros_like(total)))
    found = torch.searchsorted(cumulative, targets.unsqueeze(1), right=True)
    width = weights.gather(1, found)
    start = cumulative.gather(1, found) - width
    inside = ((targets.unsqueeze(1) - start) / width).clamp(0, 1).squeeze(1)
    return found.squeeze(1), inside


def truncate(row: torch.Tensor, top_k: float, top_p: float, min_p: float, typical_p: float) -> torch.Tensor:
    """Set the logits outside of top-k, then top-p, min-p and typical-p, to -inf. At least one token stays.

    Args:
        row: [vocabulary] logits after temperature.
        top_k, top_p, min_p, typical_p: the thresholds. Among equal logits at a border, lower ids stay.
    """
    if top_k <= 0 and top_p >= 1 and min_p <= 0 and typical_p >= 1:
        return row
    values, ids = row.sort(descending=True, stable=True)
    keep = torch.ones_like(values, dtype=torch.bool)
    if 0 < top_k < len(values):
        keep[int(top_k) :] = False
    if top_p < 1:
        kept = torch.softmax(values.masked_fill(~keep, -torch.inf), dim=0)
        keep &= kept.cumsum(0, dtype=torch.float64) - kept < top_p
    if min_p > 0:
        kept = torch.softmax(values.masked_fill(~keep, -torch.inf), dim=0)
        keep &= kept >= min_p * kept[0]
    if typical_p < 1:
        keep &= _typical(values.masked_fill(~keep, -torch.inf), typical_p)
    return torch.full_like(row, -torch.inf).scatter_(0, ids[keep], values[keep])


def _typical(values: torch.Tensor, mass: float) -> torch.Tensor:
    """Locally typical sampling (arXiv:2202.00666): the tokens whose surprise is nearest to the entropy."""
    logprobs = torch.log_softmax(values, dim=0)
    probabilities = logprobs.exp()
    entropy = -(probabilities * logprobs.masked_fill(probabilities == 0, 0)).sum()
    distance, order = (-logprobs - entropy).abs().sort(stable=True)
    sorted_probabilities = probabilities[order]
    chosen = sorted_probabilities.cumsum(0, dtype=torch.float64) - sorted_probabilities < mass
    return torch.zeros_like(chosen).scatter_(0, order, chosen & torch.isfinite(distance))
