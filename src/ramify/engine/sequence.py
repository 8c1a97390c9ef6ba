"""One sequence of the engine: its known tokens, how many of them are computed, and the blocks that hold them."""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto

import numpy as np
import numpy.typing as npt

from ramify.engine.guide import Guide
from ramify.engine.pooling import Pooler
from ramify.engine.request import TokenLogprobs
from ramify.kv.prefix_cache import Digest
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams


class Status(Enum):
    """Where a sequence is in its life."""

    WAITING = auto()  # has tokens to compute, holds no place in the batch
    FORKING = auto()  # waits for its sibling's prefill, whose blocks it will share
    RUNNING = auto()
    PARKED = auto()  # keeps its KV between two steps of a strategy
    FINISHED = auto()


@dataclass(slots=True, eq=False)
class Sequence:
    """`num_computed` tokens chase `len(tokens)`: prefill, chunks, decode and recomputation are all the same thing.

    Attributes:
        id: unique in its engine.
        key: its draws hash this and the position.
        params: how to draw.
        tokens: all known tokens: prompt, then output.
        num_prompt: tokens that were given to the current run (prompt, and what was drawn before it was extended).
        arrival: order of arrival.
        blocks: the block table.
        digests: names of its full computed blocks, for the prefix cache.
        num_cached: known tokens whose KV was there when the current run was admitted.
        fresh: it was added with a prompt that is not counted yet.
        siblings: sequences that fork from this one when its prompt is done.
        answer_start: where the answer begins, which a form and a limit on thinking are counted from.
        guide: holds its draws to those, if it has any.
        pooler: makes one vector of its prompt, if that is asked for.
        first_needed_row: lowest position whose logits or scores are wanted from the prompt (prefix hits end before it).
    """

    id: int
    key: BranchKey
    params: SamplingParams
    tokens: list[int]
    num_prompt: int
    arrival: int
    stop_ids: frozenset[int]
    max_total: int
    program: str = ""
    priority: int = 0
    cache_salt: str = ""
    keep: bool = False
    status: Status = Status.WAITING
    num_computed: int = 0
    num_ever_computed: int = 0
    num_cached: int | None = None
    fresh: bool = True
    blocks: list[int] = field(default_factory=list)
    digests: list[Digest] = field(default_factory=list)
    siblings: list[Sequence] = field(default_factory=list)
    first_needed_row: int | None = None
    prompt_logprobs: dict[int, TokenLogprobs] = field(default_factory=dict)
    score_positions: tuple[int, ...] = ()
    score_token_ids: tuple[int, ...] = ()
    scores: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    prompt_logprobs_start: int = 0
    answer_start: int = 0
    guide: Guide | None = None
    pooler: Pooler | None = None

    @property
    def num_output(self) -> int:
        """Tokens drawn in the current run."""
        return len(self.tokens) - self.num_prompt

    @property
    def num_uncomputed(self) -> int:
        """Rows it could use now."""
        return len(self.tokens) - self.num_computed

    @property
    def cache_limit(self) -> int:
        """Tokens that may come from the prefix cache: the last one is always computed, and so is a row that is read."""
        last = len(self.tokens) - 1
        return last if self.first_needed_row is None else min(last, self.first_needed_row)

    @property
    def output(self) -> AbstractSequence[int]:
        """Tokens drawn in the current run."""
        return self.tokens[self.num_prompt :]

    def forked(self, sequence_id: int, key: BranchKey) -> Sequence:
        """A copy with a key of its own; its blocks are shared by the scheduler."""
        return replace(
            self,
            id=sequence_id,
            key=key,
            tokens=list(self.tokens),
            fresh=False,
            blocks=[],
            digests=[],
            siblings=[],
            first_needed_row=None,
            prompt_logprobs={},
            score_positions=(),
            score_token_ids=(),
            scores={},
            guide=None if self.guide is None else self.guide.copy(),
        )

    def wants_row(self, position: int) -> bool:
        """Whether the logits at a prompt position are read (besides those that a token is drawn from)."""
        return position in self.score_positions or self.wants_prompt_logprob(position + 1)

    def wants_prompt_logprob(self, position: int) -> bool:
        """Whether the log-probability of the prompt token at `position` is asked for."""
        if self.params.prompt_logprobs is None:
            return False
        return max(1, self.prompt_logprobs_start) <= position < self.num_prompt
