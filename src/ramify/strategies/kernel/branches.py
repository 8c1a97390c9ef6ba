"""The branches of a run: which hold memory, what number each has in the trace, how the next ones are to be drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ramify.backends.base import Backend, Capability, Node
from ramify.errors import ConfigError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.launch import Wish, limited
from ramify.strategies.steps import StepSplitter


class Branches:
    """Bookkeeping of nodes.

    Args:
        backend: releases them.
        sampling: how tokens are drawn unless a call says otherwise.

    Attributes:
        live: nodes that hold memory.
        numbers: a node's number in the trace.
        num_drawn: tokens drawn by branches that came to their end.
    """

    def __init__(self, backend: Backend, sampling: SamplingParams) -> None:
        self.live: dict[BranchKey, Node] = {}
        self.numbers: dict[BranchKey, int] = {}
        self.num_drawn = 0
        self._backend = backend
        self._sampling = sampling
        self._children: dict[BranchKey, int] = {}
        self._appended: dict[BranchKey, int] = {}

    def number(self, node: Node) -> int:
        """The node's number; the next free one if it has none yet."""
        return self.numbers.setdefault(node.key, len(self.numbers))

    def drawn(self, node: Node) -> None:
        """A branch has ended, in any order: count it, and remember to release it."""
        self.live[node.key] = node
        self.num_drawn += node.num_new_tokens

    def received(self, node: Node) -> Node:
        """A branch as the strategy gets it: closed if its answer has no room left."""
        self.number(node)
        if node.open and self.room(node, self._sampling.max_tokens) == 0:
            return replace(node, finish_reason="length", step_end=False)
        return node

    def release(self, nodes: Iterable[Node]) -> None:
        """Free the memory of those that still hold some."""
        live = [self.live.pop(node.key) for node in nodes if node.key in self.live]
        if live:
            self._backend.release(live)

    def key_of_append(self, node: Node) -> BranchKey:
        """The key of the next node that is made of `node` and known tokens."""
        count = self._appended.get(node.key, 0)
        self._appended[node.key] = count + 1
        return node.key.named("append").child(count)

    def room(self, node: Node, max_tokens: int | None) -> int:
        """Tokens that the answer may still grow by."""
        context = self._backend.context_length(node.model) - len(node.prompt_tokens)
        return max(0, (context if max_tokens is None else min(context, max_tokens)) - node.num_tokens)

    def wishes(
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int],
        until: StepSplitter | None,
        scorer: Scorer | None,
        sampling: dict[str, Any],
    ) -> list[Wish]:
        """What to draw: `n` continuations of each node, or ``n[i]`` of ``nodes[i]``.

        Raises:
            ConfigError: `n` does not fit the nodes.
        """
        counts = [n] * len(nodes) if isinstance(n, int) else list(n)
        if len(counts) != len(nodes) or any(count < 0 for count in counts):
            raise ConfigError(f"n={counts} does not fit {len(nodes)} nodes: give each a count of 0 or more")
        params = self._sampling.with_(**{**sampling, "n": 1})
        if params.logprobs is not None and self._sampling.logprobs is not None:
            params = params.with_(logprobs=max(params.logprobs, self._sampling.logprobs))  # the caller reads them too
        if scorer is not None and Capability.LOGPROBS in scorer.needs:
            params = params.with_(logprobs=max(params.logprobs or 0, getattr(scorer, "logprobs", 0)))
        step_end = None if until is None else until.step_end
        wishes = []
        for node, count in zip(nodes, counts, strict=True):
            here = limited(params, self.room(node, params.max_tokens))
            first = self._children.get(node.key, 0)
            self._children[node.key] = first + count
            wishes += [Wish(node, first + i, here, step_end, scorer) for i in range(count)]
        return wishes
