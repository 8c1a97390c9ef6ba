"""Step beam search: grow answers step by step, keep the steps a scorer likes best (arXiv:2408.03314)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ramify.backends.base import FloatArray, Node
from ramify.errors import ConfigError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.steps import StepSplitter, lines
from ramify.strategies.votes import best_of, finished, vote


@strategy("beam", kind="approximate", paper="arXiv:2408.03314", needs=("scorer",))
@dataclass(frozen=True)
class Beam(Method):
    """Beam search over reasoning steps.

    A level draws n continuations by one step: m from each of the n/m kept paths, all n from the root at first. Finished
    paths are set aside, equal ones counted once, and of the open ones the n/m best are kept. The search ends when n
    paths are finished, when nothing is open, or after `levels`.

    Attributes:
        n: paths drawn a level.
        m: continuations of a kept path; n must be a multiple of it.
        scorer: judges a path so far; a process reward model by default.
        until: where a step ends; a line by default.
        levels: steps at most.
        select: "best" takes the finished path with the highest score, "vote" lets the scores weigh a vote over the
            distinct finished paths.
    """

    n: int = 16
    m: int = 4
    scorer: Scorer = field(default_factory=ProcessReward)
    until: StepSplitter = field(default_factory=lines)
    levels: int = 40
    select: Literal["best", "vote"] = "best"

    def __post_init__(self) -> None:
        if self.n < 1 or self.m < 1 or self.n % self.m:
            raise ConfigError(f"n={self.n}, m={self.m} do not work: n must be a multiple of m, both at least 1")
        if self.select == "vote" and self.scorer.range[0] < 0:
            raise ConfigError(f"select=vote needs scores of 0 or more; {type(self.scorer).__name__} may give less")

    async def run(self, problem: Problem, context: Context) -> Result:
        """Grow level by level."""
        done: list[Node] = []
        kept = [await context.root()]
        for level in range(self.levels):
            drawn = await context.extend(kept, self.m if level else self.n, self.until, scored_by=self.scorer)
            context.retire(kept)
            paths = distinct([*done, *drawn])
            scores = await context.score(paths, self.scorer)
            done = [node for node in paths if not node.open]
            kept = self._best_open(paths, scores)
            context.drop(node for node in drawn if node not in done and node not in kept)
            await self._report(context, [*done, *kept])
            if len(done) >= self.n or not kept:
                break
        return await self._report(context, [*done, *kept])

    def _best_open(self, paths: Sequence[Node], scores: FloatArray) -> list[Node]:
        """The n/m open paths with the highest scores (the earlier of equals), in launch order."""
        ranked = sorted((i for i, node in enumerate(paths) if node.open), key=lambda i: -scores[i])
        return [paths[i] for i in sorted(ranked[: self.n // self.m])]

    async def _report(self, context: Context, nodes: Sequence[Node]) -> Result:
        scores = await context.score(nodes, self.scorer)
        among = finished(nodes)
        winner = None
        if self.select == "vote":
            winner = vote([context.answer(nodes[i]) for i in among], scores[among], merits=scores[among])
        best = best_of(scores, among) if winner is None else among[winner]
        return context.result(nodes, best, scores=scores)


def distinct(nodes: Sequence[Node]) -> list[Node]:
    """The nodes without repetitions of the same answer so far; the first of equals stays."""
    first: dict[tuple[object, bool], Node] = {}
    for node in nodes:
        first.setdefault((node.tokens or node.text, node.open), node)
    return list(first.values())
