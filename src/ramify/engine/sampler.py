"""The sampler: one counter-based draw a row, vectorised over rows.

A draw is the inverse CDF of the row's distribution at a number that is a hash of (branch key, position): no generator
is shared between rows, and a drafter that proposes a token cannot change which one the target draws.
"""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

import numpy as np
import torch

from ramify.engine.logits import RowState, processors
from ramify.engine.request import TokenLogprobs
from ramify.engine.sequence import Sequence
from ramify.errors import EngineError, RamifyError
from ramify.randomness import key_arrays, uniform
from ramify.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class Draw:
    """The outcome of one row: a token, or why there is none."""

    token: int = -1
    logprobs: TokenLogprobs | None = None
    error: RamifyError | None = None


@torch.inference_mode()
def sample(logits: torch.Tensor, sequences: AbstractSequence[Sequence]) -> list[Draw]:
    """Draw the next token of each sequence.

    Args:
        logits: [R, vocabulary] float32; row i belongs to sequences[i]. Changed in place.
        sequences: R of them.

    Returns:
        R draws. A row that cannot be drawn from carries an error and leaves the other rows alone.
    """
    errors = _broken_rows(logits)
    raw = _raw_logprobs(logits, sequences)
    for row, sequence in enumerate(sequences):
        if row not in errors:
            error = _process(logits[row], sequence)
            if error is not None:
                errors[row] = error
    tokens = _draw(logits, sequences)
    draws: list[Draw] = []
    for row, sequence in enumerate(sequences):
        if row in errors:
            draws.append(Draw(error=errors[row]))
            continue
        logprobs = None
        if row in raw:
            logprobs = token_logprobs(raw[row], tokens[row], sequence.params.logprobs or 0)
        draws.append(Draw(tokens[row], logprobs))
    return draws


def token_logprobs(logprobs: torch.Tensor, token: int, num_top: int) -> TokenLogprobs:
    """Describe `token` and the `num_top` most likely ones from a row [vocabulary] of log-probabilities."""
    own = logprobs[token]
    rank = int((logprobs > own).sum()) + 1
    top: tuple[tuple[int, float], ...] = ()
    if num_top:
        values, ids = logprobs.topk(min(num_top, len(logprobs)))
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprobs(token, float(own), rank, top)


def _broken_rows(logits: torch.Tensor) -> dict[int, RamifyError]:
    """Rows with a NaN or nothing finite; they are set to zero so that the vectorised path stays clean."""
    broken = torch.nonzero(~torch.isfinite(logits.amax(dim=-1))).flatten().tolist()
    for row in broken:
        logits[row] = 0
    message = "the model gave logits that are not finite (NaN or infinity): its weights or its dtype do not work"
    return {row: EngineError(message) for row in broken}


def _raw_logprobs(logits: torch.Tensor, sequences: AbstractSequence[Sequence]) -> dict[int, torch.Tensor]:
    rows = [row for row, sequence in enumerate(sequences) if sequence.params.logprobs is not None]
    if not rows:
        return {}
    return dict(zip(rows, torch.log_softmax(logits[rows], dim=-1), strict=True))


def _process(row: torch.Tensor, sequence: Sequence) -> RamifyError | None:
    state: RowState | None = None
    for processor in processors(sequence.params):
        state = state or RowState(sequence.params, sequence.tokens, sequence.num_prompt, sequence.stop_ids)
        try:
            processor(row, state)
        except Exception as fault:
            error = EngineError(f"logits processor {processor.__name__} failed: {fault}")
            error.__cause__ = fault
            return error
    if state is not None and not torch.isfinite(row.amax()):
        return EngineError("no token can be drawn: allowed_token_ids, logit_bias and min_tokens forbid all of them")
    return None


def _draw(logits: torch.Tensor, sequences: AbstractSequence[Sequence]) -> list[int]:
    tokens = logits.argmax(dim=-1).tolist()
    rows = [row for row, sequence in enumerate(sequences) if not sequence.params.greedy]
    if not rows:
        return tokens
    chosen = [sequences[row] for row in rows]
    temperatures = torch.tensor([s.params.temperature for s in chosen], device=logits.device).unsqueeze(1)
    scaled = logits if len(rows) == len(sequences) else logits[rows]
    # Taking the maximum off first keeps tiny temperatures from overflowing.
    scaled = (scaled - scaled.amax(dim=-1, keepdim=True)) / temperatures
    for index, sequence in enumerate(chosen):
        if _truncates(sequence.params):
            scaled[index] = truncate(scaled[index], sequence.params)
    keys = key_arrays([sequence.key for sequence in chosen])
    positions = np.array([len(sequence.tokens) for sequence in chosen])
    draws = torch.from_numpy(uniform(keys, positions)).to(logits.device)
    for row, token in zip(rows, inverse_cdf(torch.softmax(scaled, dim=-1), draws).tolist(), strict=True):
        tokens[row] = token
    return tokens


def inverse_cdf(probabilities: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """For each row the token in whose interval of the cumulative distribution the draw falls.

    Args:
        probabilities: [R, vocabulary] float32; need not sum to exactly 1.
        draws: [R] float64 in (0, 1).

    Returns:
        [R] int64; never a token of probability zero.
    """
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1]
    targets = torch.minimum(draws * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, targets.unsqueeze(1), right=True).squeeze(1)


def _truncates(params: SamplingParams) -> bool:
    return params.top_k > 0 or params.top_p < 1 or params.min_p > 0 or params.typical_p < 1


def truncate(row: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Set the logits outside of top-k, then top-p, min-p and typical-p, to -inf. At least one token stays.

    Args:
        row: [vocabulary] logits after temperature.
        params: the thresholds. Among equal logits at a border, lower ids stay.
    """
    values, ids = row.sort(descending=True, stable=True)
    keep = torch.ones_like(values, dtype=torch.bool)
    if 0 < params.top_k < len(values):
        keep[params.top_k :] = False
    if params.top_p < 1:
        kept = torch.softmax(values.masked_fill(~keep, -torch.inf), dim=0)
        keep &= kept.cumsum(0, dtype=torch.float64) - kept < params.top_p
    if params.min_p > 0:
        kept = torch.softmax(values.masked_fill(~keep, -torch.inf), dim=0)
        keep &= kept >= params.min_p * kept[0]
    if params.typical_p < 1:
        keep &= _typical(values.masked_fill(~keep, -torch.inf), params.typical_p)
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
