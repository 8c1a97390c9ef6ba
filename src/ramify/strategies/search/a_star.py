"""A*-decoding: always go on from the partial answer of lowest estimated cost (arXiv:2505.13672)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ramify.backends.base import Node
from ramify.errors import ConfigError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.steps import StepSplitter, lines


@dataclass(frozen=True, slots=True)
class State:
    """A partial answer on the frontier.

    Attributes:
        node: the answer so far.
        spent: g, the cost of the steps that led to it.
        ahead: h, the estimated cost of what is left.
        order: number of its launch.
    """

    node: Node
    spent: float
    ahead: float
    order: int

    @property
    def rank(self) -> tuple[float, int, int]:
        """What the frontier is sorted by: lowest g + h, then the most steps, then the earliest launch."""
        return (self.spent + self.ahead, -self.node.depth, self.order)


@strategy("a-star", kind="approximate", paper="arXiv:2505.13672", needs=("scorer",))
@dataclass(frozen=True)
class AStar(Method):
    """A* search over reasoning steps: expand the partial answer with the lowest f = g + h, stop at the first goal.

    The heuristic is ``h = 1 - r`` with r the reward of the path so far. The cost of the way is ``g = weight`` times the
    sum of ``1 - r`` over its steps. At weight 0 this is best-first search, which runs down one path while that pleases
    the scorer; larger weights look more often at shorter paths. The search ends when the lowest of the frontier is a
    finished answer, or after `iters` expansions.

    Attributes:
        m: continuations drawn of an expanded path.
        scorer: a reward in [0, 1] of a path so far; a process reward model by default.
        weight: of the cost to come to a path.
        until: where a step ends; a line by default.
        width: partial answers kept on the frontier; the worst beyond it are dropped.
        iters: expansions at most.
    """

    size: ClassVar[str] = "m"
    m: int = 4
    scorer: Scorer = field(default_factory=ProcessReward)
    weight: float = 0.0
    until: StepSplitter = field(default_factory=lines)
    width: int = 32
    iters: int = 64

    def __post_init__(self) -> None:
        if self.m < 1 or self.width < 1 or self.iters < 1:
            raise ConfigError(f"m={self.m}, width={self.width}, iters={self.iters} do not work: each is at least 1")
        if self.weight < 0:
            raise ConfigError(f"weight={self.weight} does not work: a step cannot cost less than nothing")
        if self.scorer.range != (0.0, 1.0):
            raise ConfigError(
                f"A* needs rewards from 0 to 1; {type(self.scorer).__name__} gives {self.scorer.range}: use scorer=prm"
            )

    def step_cost(self, reward: float) -> float:
        """What a step costs whose path has this reward. Override it for another g; it must not be negative."""
        return self.weight * (1.0 - reward)

    async def run(self, problem: Problem, context: Context) -> Result:
        """Expand the best of the frontier until it is an answer."""
        best = State(await context.root(), 0.0, 1.0, 0)
        frontier: list[State] = []
        for _ in range(self.iters):
            drawn = await context.extend([best.node], self.m, self.until, scored_by=self.scorer)
            context.retire([best.node])
            rewards = await context.score(drawn, self.scorer)
            for node, reward in zip(drawn, rewards, strict=True):
                spent = best.spent + self.step_cost(float(reward))
                frontier.append(State(node, spent, 1.0 - float(reward), context.number(node)))
            frontier = self._prune(context, frontier)
            self._report(context, frontier)
            goals = [state for state in frontier if state.node.finish_reason != "length"]  # a cut answer is no goal
            if not goals or not goals[0].node.open:
                break
            best = goals[0]
            frontier.remove(best)
        return self._report(context, frontier)

    def _prune(self, context: Context, frontier: Sequence[State]) -> list[State]:
        """The frontier from its best, with as many open paths as may stay."""
        ordered = sorted(frontier, key=lambda state: state.rank)
        going = [state for state in ordered if state.node.open]
        context.drop(state.node for state in going[self.width :])
        given_up = {state.order for state in going[self.width :]}
        return [state for state in ordered if state.order not in given_up]

    def _report(self, context: Context, frontier: Sequence[State]) -> Result:
        """The finished answers found so far, or the partial ones while there is none; the lowest f is the best."""
        ended = [state for state in frontier if state.node.finish_reason == "stop"]
        states = sorted(ended or frontier, key=lambda state: state.order)
        best = min(range(len(states)), key=lambda i: states[i].rank, default=None)
        return context.result([state.node for state in states], best, scores=[1.0 - state.ahead for state in states])
