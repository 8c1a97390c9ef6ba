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
from ramify.errors import EngineError, RamifyError, RequestError
from ramify.randomness import key_arrays, uniform
from ramify.sampling import SamplingParams


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


@torch.inference_mode()
def sample(logits: torch.Tensor, sequences: AbstractSequence[Sequence]) -> list[Draw]:
    """Draw the next token of each sequence.

    Args:
        logits: [R, vocabulary] float32; row i belongs to sequences[i]. Changed in place.
        sequences: R of them.

    Returns:
        R draws. A row that cannot be drawn from carries an error and leaves the other rows alone.
    """
    settled = {row: Draw(error=error) for row, error in _broken_rows(logits).items()}
    raw, normalisers = _raw_logprobs(logits, sequences)
    masses: dict[int, float] = {}
    for row, sequence in enumerate(sequences):
        if row in settled:
            continue
        draw = _process(logits[row], sequence)
        if draw is not None:
            settled[row] = draw
            logits[row] = 0
        elif row in raw and (sequence.guide is not None or processors(sequence.params)):
            masses[row] = _log_mass(logits[row] - normalisers[row], raw[row], sequence.params.temperature)
    tokens = _draw(logits, sequences)
    draws: list[Draw] = []
    for row, sequence in enumerate(sequences):
        if row in settled:
            draws.append(settled[row])
            continue
        logprobs = None
        if row in raw:
            logprobs = token_logprobs(raw[row], tokens[row], sequence.params.logprobs or 0, masses.get(row, 0.0))
        draws.append(Draw(tokens[row], logprobs))
    return draws


def token_logprobs(logprobs: torch.Tensor, token: int, num_top: int, log_mass: float = 0.0) -> TokenLogprobs:
    """Describe `token` and the `num_top` most likely ones from a row [vocabulary] of log-probabilities."""
    own = logprobs[token]
    rank = int((logprobs > own).sum()) + 1
    top: tuple[tuple[int, float], ...] = ()
    if num_top:
        values, ids = logprobs.topk(min(num_top, len(logprobs)))
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprobs(token, float(own), rank, top, float(logprobs.mean()), log_mass)


def _log_mass(processed: torch.Tensor, raw: torch.Tensor, temperature: float) -> float:
    """Logarithm of the ratio of two rows' normalisers at a temperature: the mass that the processors left."""
    rows = torch.stack((raw, processed)).double() / max(temperature, _LOWEST_TEMPERATURE)
    before, after = torch.logsumexp(rows, dim=-1).tolist()
    return float(after - before)


def _broken_rows(logits: torch.Tensor) -> dict[int, RamifyError]:
    """Rows with a NaN or nothing finite; set to zero, so that what is computed for all rows at once stays clean."""
    broken = torch.nonzero(~torch.isfinite(logits.amax(dim=-1))).flatten().tolist()
    for row in broken:
        logits[row] = 0
    message = "the model gave logits that are not finite (NaN or infinity): its weights or its dtype do not work"
    return {row: EngineError(message) for row in broken}


def _raw_logprobs(
    logits: torch.Tensor, sequences: AbstractSequence[Sequence]
) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
    """The model's own log-probabilities of the rows that want them, and what was taken off their logits."""
    rows = [row for row, sequence in enumerate(sequences) if sequence.params.logprobs is not None]
    if not rows:
        return {}, {}
    chosen = logits[rows]
    normalisers = torch.logsumexp(chosen, dim=-1)
    return (
        dict(zip(rows, torch.log_softmax(chosen, dim=-1), strict=True)),
        dict(zip(rows, normalisers, strict=True)),
    )


def _process(row: torch.Tensor, sequence: Sequence) -> Draw | None:
    """Change a row as its sequence asks. Returns its outcome where that is settled by this alone."""
    state: RowState | None = None
    for processor in processors(sequence.params):
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


def _draw(logits: torch.Tensor, sequences: AbstractSequence[Sequence]) -> list[int]:
    tokens = [-1] * len(sequences)
    greedy = [row for row, sequence in enumerate(sequences) if sequence.params.greedy]
    if greedy:
        for row, token in zip(greedy, _rows(logits, greedy).argmax(dim=-1).tolist(), strict=True):
            tokens[row] = token
    drawn = [row for row, sequence in enumerate(sequences) if not sequence.params.greedy]
    if drawn:
        chosen = [sequences[row] for row in drawn]
        for row, token in zip(drawn, _draw_rows(_rows(logits, drawn), chosen).tolist(), strict=True):
            tokens[row] = token
    return tokens


def _rows(logits: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Some rows, without a copy if they are all."""
    return logits if len(rows) == len(logits) else logits[rows]


def _draw_rows(logits: torch.Tensor, sequences: AbstractSequence[Sequence]) -> torch.Tensor:
    """Draw from rows of logits, which are overwritten: with large vocabularies a fresh array would cost more than
    the arithmetic."""
    temperatures = [max(s.params.temperature, _LOWEST_TEMPERATURE) for s in sequences]
    inverse = torch.tensor([1 / t for t in temperatures], device=logits.device).unsqueeze(1)
    # Taking the maximum off first keeps tiny temperatures from overflowing.
    logits.sub_(logits.amax(dim=-1, keepdim=True)).mul_(inverse)
    for row, sequence in enumerate(sequences):
        if _truncates(sequence.params):
            logits[row] = truncate(logits[row], sequence.params)
    keys = key_arrays([sequence.key for sequence in sequences])
    positions = np.array([len(sequence.tokens) for sequence in sequences])
    return inverse_cdf(logits.exp_(), torch.from_numpy(uniform(keys, positions)).to(logits.device))


_LOWEST_TEMPERATURE = 1e-6
"""Below it the softmax has one token anyway, and 1 / temperature times 0 must stay a number."""
_CHUNK = 512


def inverse_cdf(weights: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """For each row the token in whose interval of the cumulative distribution the draw falls.

    Found in two steps, first the chunk of the vocabulary and then the token in it, so that no cumulative sum over the
    whole vocabulary is needed.

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
