"""Best-first search of an agent in an environment that can only be started over (arXiv:2407.01476)."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ramify.backends.base import Capability, Node
from ramify.errors import ConfigError, RequestError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.prompts import fill
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.search.environment import WORLDS, Environment, EnvironmentMaker, make_environment
from ramify.strategies.steps import StepSplitter, lines
from ramify.strategies.votes import best_of, finished

SOLVED = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Where the environment can be brought: the actions up to there, what each showed, and the transcript.

    Attributes:
        node: the transcript; closed where the episode is over.
        actions, observations: from the start; one observation an action.
        score: the environment's.
        done: whether the environment has ended the episode.
    """

    node: Node
    actions: tuple[str, ...] = ()
    observations: tuple[str, ...] = ()
    score: float = 0.0
    done: bool = False


@strategy("agent-search", kind="approximate", paper="arXiv:2407.01476", needs=("scorer",))
@dataclass(frozen=True)
class AgentSearch(Method):
    """Best-first search over the states of an environment.

    The state of the highest value is expanded: `width` actions are drawn, and each is carried out in the environment,
    which is reset and brought back by repeating the actions that led there. What is observed is put behind the action
    in the transcript that the model goes on from. The search ends when an episode reaches its goal (score 1), when
    nothing is left to expand, or after `expansions`.

    Attributes:
        expansions: states that are expanded at most.
        width: actions drawn in a state; equal ones count once.
        depth: actions of an episode at most.
        environment: "answer" (every step is accepted, nothing is observed), "countdown", or, from Python, anything that
            makes an `Environment` of a problem; the problem's own ``metadata["environment"]`` goes before it.
        value: of a state that is not over: "scorer" asks the scorer about the transcript, "environment" takes the
            environment's own score. An episode that is over has the environment's.
        observation: how an observation is put into the transcript.
        parallel: states that are expanded at once.
        scorer: a process reward model by default.
        until: where an action ends; a line by default.
    """

    expansions: int = 16
    width: int = 4
    depth: int = 16
    environment: str | EnvironmentMaker = "answer"
    value: Literal["scorer", "environment"] = "scorer"
    observation: str = "{observation}\n"
    parallel: int = 1
    scorer: Scorer = field(default_factory=ProcessReward)
    until: StepSplitter = field(default_factory=lines)

    def __post_init__(self) -> None:
        if min(self.expansions, self.width, self.depth, self.parallel) < 1:
            raise ConfigError(
                f"expansions={self.expansions}, width={self.width}, depth={self.depth}, parallel={self.parallel} "
                "do not work: each must be at least 1"
            )
        if isinstance(self.environment, str) and self.environment not in WORLDS:
            raise ConfigError(f"environment={self.environment!r} does not work: choose from {', '.join(WORLDS)}")
        if "{observation}" not in self.observation:
            raise ConfigError(f"observation={self.observation!r} does not work: it must name {{observation}}")

    @property
    def requires(self) -> frozenset[Capability]:
        """What the scorer needs, where it is asked."""
        return self.scorer.needs if self.value == "scorer" else frozenset()

    async def run(self, problem: Problem, context: Context) -> Result:
        """Expand the best state, carry its actions out, judge what comes of them."""
        world = _World(make_environment(self.environment, problem), self.observation, context)
        frontier: list[tuple[float, int, State]] = [(0.0, 0, await world.start())]
        values: dict[State, float] = {}
        expanded = 0
        while frontier and expanded < self.expansions:
            n = min(self.parallel, len(frontier), self.expansions - expanded)
            states = [heapq.heappop(frontier)[2] for _ in range(n)]
            expanded += n
            found = await world.expand(states, self.width, self.until)
            values |= {state: state.score for state in found if state.done}
            if any(state.done and state.score >= SOLVED for state in found):
                world.note()
                return self._report(context, values, certain=True)
            values |= await self._judge(context, [state for state in found if not state.done])
            for state in found:
                if state.node.open and len(state.actions) < self.depth:
                    heapq.heappush(frontier, (-values[state], context.number(state.node), state))
            self._report(context, values)
        world.note()
        return self._report(context, values)

    async def _judge(self, context: Context, states: Sequence[State]) -> dict[State, float]:
        if self.value == "environment":
            return {state: state.score for state in states}
        scores = await context.score([state.node for state in states], self.scorer)
        return dict(zip(states, map(float, scores), strict=True))

    def _report(self, context: Context, values: dict[State, float], certain: bool = False) -> Result:
        """The finished episodes, those that the environment ended before the others; while there are none, all states.

        A solved one comes first whatever range the scorer's values have.
        """
        states = [state for state in values if not state.node.open] or list(values)
        nodes, scores = [state.node for state in states], [values[state] for state in states]
        among = [i for i, state in enumerate(states) if state.done and state.score >= SOLVED] or finished(nodes)
        return context.result(nodes, best_of(scores, among), scores=scores, certain=certain)


class _World:
    """The environment of one run, and what was done in it."""

    def __init__(self, environment: Environment, observation: str, context: Context) -> None:
        self._environment = environment
        self._observation = observation
        self._context = context
        self._resets = 0
        self._acts = 0
        self._first = ""

    async def start(self) -> State:
        """The state before any action."""
        self._first = self._environment.reset()
        return State(await self._observed(await self._context.root(), self._first))

    async def expand(self, states: Sequence[State], width: int, until: StepSplitter) -> list[State]:
        """Draw actions and carry them out; the states they lead to, in launch order."""
        context = self._context
        above = {state.node.key: state for state in states}
        drawn = await context.extend([state.node for state in states], width, until)
        found: list[State] = []
        seen: set[tuple[object, str, bool]] = set()
        for node in drawn:
            assert node.parent is not None
            state = above[node.parent.key]
            action = node.text.removeprefix(state.node.text).strip()
            mark = (state.node.key, action, node.open)
            if mark in seen:
                context.drop([node])
                continue
            seen.add(mark)
            found.append(await self._carry_out(state, action, node))
        context.retire(above[key].node for key in {n.parent.key for n in drawn if n.parent is not None})
        return found

    async def _carry_out(self, state: State, action: str, node: Node) -> State:
        """Bring the environment to `state` and do the action."""
        environment = self._environment
        self._replay(state)
        observation = environment.act(action)
        self._acts += 1
        score, done = float(environment.score), bool(environment.done)
        if not 0 <= score <= 1:
            raise RequestError(f"{type(environment).__name__} gave a score of {score}: it must lie between 0 and 1")
        if done and node.open:
            self._context.retire([node])
            node = replace(node, finish_reason="stop", step_end=False)
        if node.open:
            node = await self._observed(node, observation)
        return State(node, (*state.actions, action), (*state.observations, observation), score, done)

    def _replay(self, state: State) -> None:
        environment = self._environment
        seen = [environment.reset(), *map(environment.act, state.actions)]
        self._resets += 1
        self._acts += len(state.actions)
        if seen != [self._first, *state.observations]:
            raise RequestError(
                f"{type(environment).__name__} did not repeat itself: after reset() and {list(state.actions)} it "
                f"showed {seen} and not {[self._first, *state.observations]}; agent search needs one that does"
            )

    async def _observed(self, node: Node, observation: str) -> Node:
        """The transcript with an observation behind it."""
        if not observation:
            return node
        shown = await self._context.append(node, fill(self._observation, observation=observation))
        self._context.retire([node])
        return shown

    def note(self) -> None:
        """Say what the environment was put through, which no token count shows."""
        self._context.note(f"the environment was reset {self._resets} times and took {self._acts} actions")
