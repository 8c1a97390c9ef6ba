"""What crosses the engine's border: requests in, step outputs out. Token ids only; no text, no strategies."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from ramify.engine.stats import STEP_ROWS
from ramify.errors import RamifyError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams, TokenIds

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probabilities at one position, natural logarithm.

    Attributes:
        token: id of the token that stands there.
        logprob: its log-probability under the model's own distribution.
        rank: 1 for the most likely token.
        top: the most likely ids and their log-probabilities, best first (as many as were asked for).
        mean: mean log-probability over the vocabulary; how far the distribution is from a uniform one.
        log_mass: logarithm of the share of the distribution, at the sampling temperature, that allowed ids, biases and
            penalties left to draw from (0 if there were none): the weight of a draw under a constraint.
    """

    token: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...] = ()
    mean: float = 0.0
    log_mass: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One sequence to run (or `params.n` forks of one prompt).

    Attributes:
        prompt_ids: token ids, at least one.
        params: how to draw; stop strings are matched by whoever holds the text (see `text.stop`), not by the core.
        key: names the branch; the i-th of n continuations draws with ``key.child(i)``.
        first_child: index of the first continuation: 4 more branches of a node that has 4 start at 4.
        program: groups the sequences of one problem for policies.
        priority: lower runs first under the priority policy.
        cache_salt: tenants with different salts never share cached prefixes.
        keep: finished sequences are parked with their KV (for a later `extend` or `fork`) until dropped.
        embed: make one vector of the prompt (see `models.pooling`); nothing is drawn then.
        score_positions, score_token_ids: read the logits of these ids at these prompt positions (process rewards); of
            these labels where the model has labels.
        answer_start: position where the answer begins, if the prompt's last tokens are a part of it already.
        prompt_logprobs_start: first prompt position whose log-probability is wanted with `params.prompt_logprobs`.
    """

    prompt_ids: TokenIds
    params: SamplingParams
    key: BranchKey
    first_child: int = 0
    program: str = ""
    priority: int = 0
    cache_salt: str = ""
    keep: bool = False
    score_positions: tuple[int, ...] = ()
    score_token_ids: tuple[int, ...] = ()
    prompt_logprobs_start: int = 0
    answer_start: int | None = None
    embed: bool = False


@dataclass(frozen=True, slots=True)
class StepEnd:
    """How the end of a step is recognised while it is drawn.

    Attributes:
        stop: strings that end a step; they stay in the step's text.
        stop_token_ids: ids that end a step; they stay too.
        max_tokens: a step ends after this many tokens at the latest.
    """

    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class TextStart:
    """Where the text of new sequences goes on, and where besides their parameters they end.

    Attributes:
        detokenize: whether there is text at all.
        skip_special_tokens: leave special tokens out of it.
        window, given: state of the detokenizer that the text goes on from (see `Detokenizer.state`).
        step_end: where a step ends; None for answers that run on.
    """

    detokenize: bool = True
    skip_special_tokens: bool = True
    window: TokenIds = ()
    given: int = 0
    step_end: StepEnd | None = None


@dataclass(slots=True)
class SequenceOutput:
    """What one step brought for one sequence.

    Attributes:
        sequence_id: as returned by `EngineCore.add`, `fork` or `extend`.
        new_token_ids: drawn in this step (one at most without speculation).
        new_logprobs: one entry a new token if asked for.
        finish_reason: set in the step in which the sequence finishes (a kept one is parked then).
        stop_token: the end-of-sequence or stop id that ended it, if one did (it is among the sequence's tokens).
        prompt_logprobs: set once, when the prompt is done; None for the first token, which nothing predicts.
        scores: [len(score_positions), len(score_token_ids)] float32 logits, set once, if asked for.
        embedding: [hidden] float32, set once, if asked for.
        num_cached_tokens: prompt tokens that came from the prefix cache; set with the first output.
        error: why it failed, with finish_reason "error"; the other requests go on.
        step: which of the engine's steps it was.
    """

    sequence_id: int
    new_token_ids: list[int] = field(default_factory=list)
    new_logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_token: int | None = None
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    scores: npt.NDArray[np.float32] | None = None
    embedding: npt.NDArray[np.float32] | None = None
    num_cached_tokens: int = 0
    error: RamifyError | None = None
    step: int = 0


@dataclass(slots=True)
class StepOutput:
    """All that one step brought.

    Attributes:
        outputs: one entry a sequence that has news.
        num_rows: rows of the flat batch.
        timings_s: seconds by phase: schedule, build, forward, sample, commit.
        blocks_used, blocks_total: state of the KV pool after the step (cached, unreferenced blocks count as free).
    """

    outputs: list[SequenceOutput] = field(default_factory=list)
    num_rows: int = 0
    timings_s: Mapping[str, float] = field(default_factory=dict)
    blocks_used: int = 0
    blocks_total: int = 0


@dataclass(slots=True)
class EngineCounters:
    """Tokens the engine has run since it was made; the ledgers of all results add up to these.

    Attributes:
        prompt: prompt tokens of sequences whose prompt is done, cached ones included; n continuations count n times.
        prompt_cached: of these, the tokens whose KV came from the prefix cache or from a sibling.
        generated: tokens drawn.
        appended: known tokens put behind parked sequences.
        recomputed: tokens run a second time after a preemption (work, but nobody's charge).
        preemptions: how often a sequence lost its blocks to another.
        steps: forward passes.
        rows: of the flat batches of these.
        timings_s: seconds by phase of a step.
        steps_by_rows: see `EngineStats`.
    """

    prompt: int = 0
    prompt_cached: int = 0
    generated: int = 0
    appended: int = 0
    recomputed: int = 0
    preemptions: int = 0
    steps: int = 0
    rows: int = 0
    timings_s: dict[str, float] = field(default_factory=dict)
    steps_by_rows: list[int] = field(default_factory=lambda: [0] * len(STEP_ROWS))

    def stepped(self, rows: int) -> None:
        """A step of so many rows ran."""
        self.steps += 1
        self.rows += rows
        size = bisect_left(STEP_ROWS, rows)
        if size < len(STEP_ROWS):
            self.steps_by_rows[size] += 1
