"""The `Backend` protocol: what an inference-time method may ask of whatever holds the model.

A backend states its capabilities; a strategy states what it needs; a mismatch is an error before the first token.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ramify.engine.request import StepEnd as StepEnd
from ramify.errors import CapabilityError, RequestError
from ramify.randomness import BranchKey
from ramify.sampling import Prompt, SamplingParams, TokenIds

FloatArray = npt.NDArray[np.float64]


class Capability(StrEnum):
    """What a backend can do."""

    FORK = "fork"  # branches share the computed prefix
    PROMPT_SCORING = "prompt_scoring"  # log-probabilities of given tokens
    LOGPROBS = "logprobs"  # log-probabilities of drawn tokens
    CONTINUE = "continue"  # go on from a prefix that ends inside the answer
    CANCEL = "cancel"  # a dropped branch stops costing at once
    SEED = "seed"  # draws repeat under a seed
    N = "n"  # several continuations in one call
    TOKENS = "tokens"  # nodes carry token ids
    REWARD = "reward"  # process rewards of nodes


@dataclass(slots=True)
class Usage:
    """A count of the tokens a backend ran: its own total, and one meter per tree so that every ledger is exact.

    Attributes:
        prompt, prompt_cached: tokens of prompts; of these, those whose KV was there already.
        generated: tokens drawn.
        verifier: tokens that reward models read (see `StepScores`).
        probe: tokens of given continuations whose log-probabilities were asked for.
        calls: calls of the backend.
        lost: tokens of attempts that broke off and were drawn again (a flaky endpoint); in no budget.
    """

    prompt: int = 0
    prompt_cached: int = 0
    generated: int = 0
    verifier: int = 0
    probe: int = 0
    calls: int = 0
    lost: int = 0

    def add(self, other: Usage) -> None:
        """Add another count to this one."""
        self.prompt += other.prompt
        self.prompt_cached += other.prompt_cached
        self.generated += other.generated
        self.verifier += other.verifier
        self.probe += other.probe
        self.calls += other.calls
        self.lost += other.lost


@dataclass(frozen=True, slots=True)
class TokenDetail:
    """What was known when a token was drawn; natural logarithms of the model's own distribution.

    Attributes:
        logprob: of the token.
        top: the most likely ids and their log-probabilities, best first, as many as were asked for.
        mean_logprob: mean over the vocabulary.
        log_mass: logarithm of the share of the distribution, at the sampling temperature, that allowed ids and biases
            left to draw from; 0 if nothing was changed.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    mean_logprob: float = 0.0
    log_mass: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A partial or finished answer: immutable; a search tree is made of these.

    Attributes:
        key: names the branch; its draws depend on it and on nothing else.
        parent: the node it continues; None for a root.
        tokens: ids drawn since the root's prompt (all of them, ancestors' included). Empty for a root.
        text: the answer so far as text (ancestors' included, prompt excluded).
        prompt_tokens: ids of the prompt (shared by all nodes of a tree; empty where a backend has no ids).
        token_logprobs: log-probabilities of `tokens` if they were asked for along the whole path, else None.
        model: which of the backend's models it belongs to; None for the main one.
        finish_reason: None while it can go on ("open"); "stop" (end of sequence, or a stop of the caller's params that
            is not a step's end), "length" (token limit, the answer is cut), "abort".
        step_end: it stopped at a step's end and can go on.
        num_new_tokens: how many tokens its own extension drew (with those cut away behind a stop string, if any).
        details: one entry for each of those, where log-probabilities were asked for; empty otherwise.
        usage: the meter of its tree: the backend adds every token it runs for a node of the tree to this and to its own
            total, those of cancelled continuations too. Children inherit it.
        handle: the backend's own business.
        steps: the first and the last step of the engine in which its own tokens were drawn; None where that is unknown.
    """

    key: BranchKey
    parent: Node | None = None
    tokens: TokenIds = ()
    text: str = ""
    prompt_tokens: TokenIds = ()
    token_logprobs: tuple[float, ...] | None = None
    model: str | None = None
    finish_reason: str | None = None
    step_end: bool = False
    num_new_tokens: int = 0
    details: tuple[TokenDetail, ...] = field(default=(), repr=False)
    usage: Usage = field(default_factory=Usage, repr=False)
    handle: Any = field(default=None, repr=False)
    steps: tuple[int, int] | None = field(default=None, repr=False)

    @property
    def open(self) -> bool:
        """Whether it can be extended."""
        return self.finish_reason is None

    @property
    def num_tokens(self) -> int:
        """Tokens drawn since the prompt, also where a backend has no ids."""
        if self.tokens or self.parent is None:
            return len(self.tokens)
        return self.parent.num_tokens + self.num_new_tokens

    @property
    def cum_logprob(self) -> float | None:
        """Sum of the tokens' log-probabilities, where they are known."""
        return None if self.token_logprobs is None else float(sum(self.token_logprobs))

    @property
    def root(self) -> Node:
        """The root of its tree; a root's is itself."""
        node = self
        while node.parent is not None:
            node = node.parent
        return node

    @property
    def depth(self) -> int:
        """Number of extensions from the root."""
        return 0 if self.parent is None else self.parent.depth + 1


def path_details(node: Node) -> tuple[TokenDetail, ...]:
    """The details of all tokens drawn on the way to a node, in order; forced tokens and the prompt have none."""
    own: list[tuple[TokenDetail, ...]] = []
    here: Node | None = node
    while here is not None:
        own.append(here.details)
        here = here.parent
    return tuple(detail for details in reversed(own) for detail in details)


def kept(node: Node, keep: int | None) -> tuple[Node, TokenIds]:
    """What is left of a node cut to its first `keep` tokens: the nearest node kept whole, and the ids behind it.

    Raises:
        RequestError: the node has no ids, or fewer tokens.
    """
    if keep is None:
        return node, ()
    if not 0 <= keep <= len(node.tokens):
        raise RequestError(f"cannot keep {keep} tokens of a node that has {len(node.tokens)}")
    above = node
    while above.parent is not None and len(above.tokens) > keep:
        above = above.parent
    return above, node.tokens[len(above.tokens) : keep]


@dataclass(frozen=True, slots=True)
class StepScores:
    """Scores of the steps of one answer, each in `range`; of an outcome reward model the one score of the answer.

    Attributes:
        scores: one a step, in order; a reward model's probability that the answer is right so far.
        num_tokens: tokens charged to the verifier's purse: those behind the node's nearest scored ancestor, and the
            prompt's with the first node of a tree. It depends on what was scored before and never on what a cache
            happens to hold, or a budget would end a run differently from time to time.
        range: [0, 1], or without ends for an outcome reward model that gives a raw score.
        num_marks: of the tokens charged, those that the model put in behind steps and the answer does not have.
    """

    scores: tuple[float, ...]
    num_tokens: int
    range: tuple[float, float] = (0.0, 1.0)
    num_marks: int = 0


@runtime_checkable
class Backend(Protocol):
    """One protocol for every place a model may live."""

    capabilities: frozenset[Capability]
    usage: Usage
    max_model_len: int  # tokens of prompt and answer together, of the main model

    async def root(self, prompt: Prompt, key: BranchKey, usage: Usage | None = None, model: str | None = None) -> Node:
        """The root of a tree over `prompt` (chat template applied where there is one). Runs nothing yet.

        `usage` is the meter that the tree's nodes carry; a fresh one if not given. `model` names another model than the
        main one.

        Raises:
            PromptTooLongError, RequestError: the prompt cannot be served, or there is no such model.
        """
        ...

    def context_length(self, model: str | None = None) -> int:
        """Tokens of prompt and answer together that a model can hold. Raises `RequestError` for an unknown one."""
        ...

    def extend(
        self, node: Node, params: SamplingParams, n: int = 1, first_child: int = 0, step_end: StepEnd | None = None
    ) -> AsyncGenerator[Node, None]:
        """Draw `n` continuations of an open node; yields each as it finishes.

        Continuation i draws with ``node.key.child(first_child + i)``: a second call on the same node names the branches
        it adds. (The contract's `first_child` is the caller's, so that a backend needs no state for it.)
        ``params.max_tokens`` limits the continuation, not the path; ``params.logprobs`` asks for `token_logprobs`.
        With `step_end`, a continuation that reaches a step's end is yielded open, with `step_end` set. Closing the
        iterator cancels what still runs; once it is closed, the meters no longer change on its account.
        """
        ...

    async def append(self, node: Node, tokens: TokenIds, key: BranchKey, keep: int | None = None) -> Node:
        """An open node with known tokens behind the first `keep` tokens of `node` (all of them by default).

        It draws nothing; what the model has to read for it is counted as prompt. Where something is cut away it is a
        child of the nearest node above that is kept whole (see `kept`). Works on open and on finished nodes while the
        root is held. `token_logprobs` is None: the tokens were not drawn.

        Raises:
            PromptTooLongError: the context has no room for it.
        """
        ...

    def free_tokens(self) -> int | None:
        """Tokens for which there is KV memory now; None where the backend does not say."""
        ...

    async def logprobs(self, node: Node, continuations: Sequence[TokenIds]) -> list[FloatArray]:
        """Log-probabilities of given continuations of `node`, one array a continuation."""
        ...

    async def reward(self, nodes: Sequence[Node], model: str) -> list[StepScores]:
        """Process rewards of `nodes` under the reward model `model`: one score a step so far."""
        ...

    def release(self, nodes: Iterable[Node]) -> None:
        """The nodes will not be extended again: stop what runs below them and free their memory in the same step."""
        ...

    def encode(self, text: str, model: str | None = None) -> TokenIds:
        """Token ids of a text under a model; raises `CapabilityError` where the backend has none."""
        ...


def require(backend: Backend, needed: Collection[Capability], by: str) -> None:
    """Check capabilities before the first token.

    Raises:
        CapabilityError: names what is missing and what to change.
    """
    missing = sorted(set(needed) - backend.capabilities)
    if missing:
        names = ", ".join(missing)
        raise CapabilityError(
            f"{by} needs {names}, which {type(backend).__name__} does not offer: "
            f"use the local engine (LLM(...)) or a method whose `ramify techniques` row does not list {names}"
        )
