"""The sampler: one counter-based draw a row, all rows at once.

A draw is the inverse CDF of the row's distribution at a number that is a hash of (branch key, position): no generator
is shared between rows, and a drafter that proposes a token cannot change which one the target draws.
"""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

import numpy as np
import torch

from ramify.engine.logits import Processor, RowState, processors
from ramify.engine.request import TokenLogprobs
from ramify.engine.sequence import Sequence
from ramify.errors import EngineError, RamifyError, RequestError
from ramify.kernels.sampling import DRAW_FIELDS, FloatArray, describe_tokens, draw_tokens
from ramify.randomness import key_arrays, uniform
from ramify.sampling import SamplingParams

_LOWEST_TEMPERATURE = 1e-6
"""Below it the softmax has one token anyway, and 1 / temperature times 0 must stay a number."""
_NOT_FINITE = "the model gave logits that are not finite (NaN or infinity): its weights or its dtype do not work"


@dataclass(frozen=True, slots=True)
class Draw:
    """The outcome of one row: a token, or why there is none.

    Attributes:
        ended: the answer is complete, and the model has no token that says so.
    """

    token: int = -1
    logprobs: TokenLogprobs | None = None
    error: RamifyError | None = None
    ended: bool = False


@dataclass(slots=True)
class _Changed:
    """A row that is not drawn from as the model gave it.

    Attributes:
        settled: its outcome, where that is known before a draw.
        raw: the model's own logits [vocabulary], if they are asked for.
        log_mass: see `TokenLogprobs`.
    """

    settled: Draw | None = None
    raw: torch.Tensor | None = None
    log_mass: float = 0.0


@torch.inference_mode()
def sample(logits: torch.Tensor, sequences: AbstractSequence[Sequence]) -> list[Draw]:
    """Draw the next token of each sequence.

    Args:
        logits: [R, vocabulary] float32; row i belongs to sequences[i]. Rows with biases, penalties or a form are
            changed in place.
        sequences: R of them.

    Returns:
        R draws. A row that cannot be drawn from carries an error and leaves the other rows alone.
    """
    changed: dict[int, _Changed] = {}
    for row, sequence in enumerate(sequences):
        needed = processors(sequence.params)
        if needed or sequence.guide is not None:
            changed[row] = _change(logits[row], sequence, needed)
    draws: list[Draw] = []
    for row, token in enumerate(draw_tokens(logits, _parameters(sequences))):
        settled = changed[row].settled if row in changed else None
        if settled is not None:
            draws.append(settled)
        else:
            draws.append(Draw(token) if token >= 0 else Draw(error=EngineError(_NOT_FINITE)))
    _describe_draws(logits, sequences, draws, changed)
    return draws


def token_logprobs(
    logits: torch.Tensor, tokens: list[int], num_top: AbstractSequence[int], log_masses: AbstractSequence[float] = ()
) -> list[TokenLogprobs]:
    """Describe a token of each row, and the most likely ones.

    Args:
        logits: [R, vocabulary] float32, as the model gave them.
        tokens: R ids.
        num_top: how many of the most likely ones to name, for each row.
        log_masses: see `TokenLogprobs`; all 0 if left out.
    """
    told = describe_tokens(logits, tokens, max(num_top))
    described = []
    for row, (token, count) in enumerate(zip(tokens, num_top, strict=True)):
        top = tuple(zip(told.top_ids[row][:count], told.top_logprobs[row][:count], strict=True))
        mass = log_masses[row] if log_masses else 0.0
        described.append(TokenLogprobs(token, told.logprobs[row], told.ranks[row], top, told.means[row], mass))
    return described


def _describe_draws(
    logits: torch.Tensor, sequences: AbstractSequence[Sequence], draws: list[Draw], changed: dict[int, _Changed]
) -> None:
    """Put log-probabilities on the draws that want them."""
    rows = [row for row, each in enumerate(sequences) if each.params.logprobs is not None and draws[row].token >= 0]
    if not rows:
        return
    raw = {row: each.raw for row, each in changed.items() if each.raw is not None}
    chosen = logits
    if raw or len(rows) < len(logits):
        chosen = torch.stack([raw.get(row, logits[row]) for row in rows])
    masses = [changed[row].log_mass if row in changed else 0.0 for row in rows]
    counts = [sequences[row].params.logprobs or 0 for row in rows]
    told = token_logprobs(chosen, [draws[row].token for row in rows], counts, masses)
    for row, entry in zip(rows, told, strict=True):
        draws[row] = Draw(entry.token, entry)


def _change(row: torch.Tensor, sequence: Sequence, needed: tuple[Processor, ...]) -> _Changed:
    """Change a row as its sequence asks."""
    if not torch.isfinite(row.amax()):
        return _Changed()
    wants_raw = sequence.params.logprobs is not None
    raw = row.clone() if wants_raw else None
    settled = _process(row, sequence, needed)
    if settled is not None:
        row.zero_()
        return _Changed(settled)
    mass = 0.0 if raw is None else _log_mass(row, raw, sequence.params.temperature)
    return _Changed(None, raw, mass)


def _log_mass(processed: torch.Tensor, raw: torch.Tensor, temperature: float) -> float:
    """Logarithm of the ratio of two rows' normalisers at a temperature: the mass that the processors left."""
    rows = torch.stack((raw, processed)).double() / max(temperature, _LOWEST_TEMPERATURE)
    before, after = torch.logsumexp(rows, dim=-1).tolist()
    return float(after - before)


def _process(row: torch.Tensor, sequence: Sequence, needed: tuple[Processor, ...]) -> Draw | None:
    """Change a row as its sequence asks. Returns its outcome where that is settled by this alone."""
    state: RowState | None = None
    for processor in needed:
        state = state or RowState(sequence.params, sequence.tokens, sequence.num_prompt, sequence.stop_ids)
        try:
            processor(row, state)
        except Exception as fault:
            error = EngineError(f"logits processor {processor.__name__} failed: {fault}")
            error.__cause__ = fault
            return Draw(error=error)
    if sequence.guide is not None:
        try:
            if sequence.guide.apply(row, sequence.tokens, sequence.stop_ids):
                return Draw(ended=True)
        except RamifyError as error:
            return Draw(error=error)
    if (state is not None or sequence.guide is not None) and not torch.isfinite(row.amax()):
        names = "allowed_token_ids, logit_bias, min_tokens and structured_outputs"
        return Draw(error=RequestError(f"no token can be drawn: {names} forbid all of them"))
    return None


def _parameters(sequences: AbstractSequence[Sequence]) -> FloatArray:
    """How each row is drawn from, see `draw_tokens`."""
    parameters = np.array([_row_parameters(sequence.params) for sequence in sequences])
    if parameters[:, 0].any():
        keys = key_arrays([sequence.key for sequence in sequences])
        parameters[:, -1] = uniform(keys, np.array([len(sequence.tokens) for sequence in sequences]))
    return parameters


def _row_parameters(params: SamplingParams) -> tuple[float, ...]:
    if params.greedy:
        return (0.0,) * len(DRAW_FIELDS)
    inverse = 1 / max(params.temperature, _LOWEST_TEMPERATURE)
    return inverse, max(params.top_k, 0), params.top_p, params.min_p, params.typical_p, 0.0
