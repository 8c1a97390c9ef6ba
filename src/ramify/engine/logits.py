"""Row-wise changes of logits from a sequence's state: biases, penalties, forbidden tokens. Each works on one row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ramify.sampling import SamplingParams

Processor = Callable[[torch.Tensor, "RowState"], None]
"""Changes a row of logits [vocabulary] in place."""


class RowState:
    """What a logits processor may see of the sequence that a row belongs to.

    Attributes:
        params: its sampling parameters.
        tokens: all known tokens.
        num_prompt: how many of them are the prompt.
        stop_ids: ids that would end it.
    """

    __slots__ = ("num_prompt", "params", "stop_ids", "tokens")

    def __init__(
        self, params: SamplingParams, tokens: Sequence[int], num_prompt: int, stop_ids: frozenset[int]
    ) -> None:
        self.params = params
        self.tokens = tokens
        self.num_prompt = num_prompt
        self.stop_ids = stop_ids


def processors(params: SamplingParams) -> tuple[Processor, ...]:
    """The processors that a request needs, in the order in which they apply."""
    needed: list[Processor] = []
    if params.repetition_penalty != 1:
        needed.append(repetition_penalty)
    if params.presence_penalty or params.frequency_penalty:
        needed.append(presence_and_frequency_penalty)
    if params.logit_bias:
        needed.append(logit_bias)
    if params.min_tokens:
        needed.append(min_tokens)
    if params.allowed_token_ids is not None:
        needed.append(allowed_tokens)
    return tuple(needed)


def repetition_penalty(row: torch.Tensor, state: RowState) -> None:
    """Divide positive and multiply negative logits of tokens that occurred in prompt or output (arXiv:1909.05858)."""
    seen = torch.tensor(sorted(set(state.tokens)), device=row.device)
    values = row[seen]
    penalty = state.params.repetition_penalty
    row[seen] = torch.where(values > 0, values / penalty, values * penalty)


def presence_and_frequency_penalty(row: torch.Tensor, state: RowState) -> None:
    """Subtract presence once and frequency per occurrence in the output, as the OpenAI API defines them."""
    output = torch.tensor(state.tokens[state.num_prompt :], device=row.device, dtype=torch.int64)
    counts = torch.zeros_like(row).index_add_(0, output, torch.ones(len(output), device=row.device))
    row -= counts * state.params.frequency_penalty + (counts > 0) * state.params.presence_penalty


def logit_bias(row: torch.Tensor, state: RowState) -> None:
    """Add each given number to its token's logit."""
    bias = state.params.logit_bias or {}
    ids = torch.tensor(list(bias), device=row.device)
    row[ids] += torch.tensor(list(bias.values()), device=row.device, dtype=row.dtype)


def min_tokens(row: torch.Tensor, state: RowState) -> None:
    """Nothing that ends the sequence may be drawn before `min_tokens`."""
    if len(state.tokens) - state.num_prompt < state.params.min_tokens:
        row[torch.tensor(sorted(state.stop_ids), device=row.device, dtype=torch.int64)] = -torch.inf


def allowed_tokens(row: torch.Tensor, state: RowState) -> None:
    """Only the allowed ids can be drawn."""
    ids = torch.tensor(list(state.params.allowed_token_ids or ()), device=row.device)
    kept = row[ids]
    row.fill_(-torch.inf)
    row[ids] = kept
