"""Backward chaining from a goal to the facts, over any `Reasoner` (LAMBADA, arXiv:2212.13894).

The search is exact as far as its reasoner is: what it proves or disproves follows, and what follows by a proof within
the depth is found. Nothing here knows a model.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Verdict = Literal["proved", "disproved", "unknown"]


@dataclass(frozen=True, slots=True)
class Theory:
    """What is given: statements that hold, and rules by which others follow."""

    facts: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


class Reasoner(Protocol):
    """The four modules. Each question is asked once a run; what cannot be answered is "unknown", no rule, or None."""

    malformed: int
    """Replies so far that could not be read."""

    async def check_fact(self, goal: str, facts: Sequence[str]) -> Verdict:
        """Whether the facts alone say that the goal holds or does not."""
        ...

    async def select_rules(self, goal: str, rules: Sequence[str]) -> list[int]:
        """Indices of the rules whose conclusion is about the goal, whatever its sign."""
        ...

    async def decompose(self, goal: str, rule: str) -> list[str] | None:
        """What must be proved for the rule to speak about the goal; None if the rule does not apply."""
        ...

    async def agrees(self, goal: str, rule: str) -> bool | None:
        """Whether the rule's conclusion says the goal (True) or its opposite (False); None if neither."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """How a goal was decided: by the facts (no rule), or by a rule once its subgoals were proved."""

    goal: str
    verdict: Verdict
    rule: str | None = None
    subgoals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    verdict: Verdict
    settled: bool
    """Whether looking again, from elsewhere or with more depth, cannot change it."""


@dataclass(slots=True)
class BackwardProver:
    """Depth-first search with a limit, a memory of what was decided, and an eye for goals that depend on themselves.

    A goal is looked up in the facts; else each rule about it is tried, shorter ones first, by proving its subgoals one
    level deeper. The first rule whose subgoals hold decides it, by the sign of its conclusion. "Unknown" is remembered
    only where neither the depth nor a loop cut the search short.

    Args:
        reasoner: answers the four kinds of question.
        theory: facts and rules.

    Attributes:
        steps: how goals were decided, by their normal form.
        loops: how often a goal came up in its own proof.
    """

    reasoner: Reasoner
    theory: Theory
    steps: dict[str, Step] = field(default_factory=dict)
    loops: int = 0
    _unknown: set[str] = field(default_factory=set)
    _asked: dict[Hashable, object] = field(default_factory=dict)

    async def prove(self, goal: str, depth: int) -> Verdict:
        """Decide a goal by proofs of at most `depth` rules one above the other."""
        return (await self._prove(goal, depth, frozenset())).verdict

    def proof(self, goal: str) -> list[Step]:
        """The steps that decide a goal, each after those that it needs, each once; empty for an unknown one."""
        ordered: dict[str, Step] = {}
        self._collect(normal(goal), ordered)
        return list(ordered.values())

    async def _prove(self, goal: str, depth: int, above: frozenset[str]) -> _Found:
        name = normal(goal)
        if name in self.steps:
            return _Found(self.steps[name].verdict, settled=True)
        if name in self._unknown:
            return _Found("unknown", settled=True)
        if name in above:
            self.loops += 1
            return _Found("unknown", settled=False)
        verdict = await self._fact(goal)
        if verdict != "unknown":
            self.steps[name] = Step(goal, verdict)
            return _Found(verdict, settled=True)
        if depth == 0:
            return _Found("unknown", settled=False)
        return await self._by_rules(goal, depth, above | {name})

    async def _by_rules(self, goal: str, depth: int, above: frozenset[str]) -> _Found:
        settled = True
        for rule in await self._rules(goal):
            subgoals = await self._subgoals(goal, rule)
            if subgoals is None:
                continue
            missing = await self._missing(subgoals, depth - 1, above)
            if missing is not None:
                settled = settled and missing.settled
                continue
            agrees = await self._agrees(goal, rule)
            if agrees is not None:
                verdict: Verdict = "proved" if agrees else "disproved"
                self.steps[normal(goal)] = Step(goal, verdict, rule, tuple(subgoals))
                return _Found(verdict, settled=True)
        if settled:
            self._unknown.add(normal(goal))
        return _Found("unknown", settled)

    async def _missing(self, subgoals: Sequence[str], depth: int, above: frozenset[str]) -> _Found | None:
        """What became of the first subgoal that is not proved; None if all are."""
        for subgoal in subgoals:
            found = await self._prove(subgoal, depth, above)
            if found.verdict != "proved":
                return found
        return None

    async def _fact(self, goal: str) -> Verdict:
        if not self.theory.facts:
            return "unknown"
        key = ("fact", normal(goal))
        if key not in self._asked:
            self._asked[key] = await self.reasoner.check_fact(goal, self.theory.facts)
        return self._asked[key]  # type: ignore[return-value]

    async def _rules(self, goal: str) -> list[str]:
        """The rules about a goal; a shorter rule needs less."""
        if not self.theory.rules:
            return []
        key = ("rules", normal(goal))
        if key not in self._asked:
            chosen = await self.reasoner.select_rules(goal, self.theory.rules)
            rules = [self.theory.rules[i] for i in dict.fromkeys(chosen)]
            self._asked[key] = sorted(rules, key=lambda rule: len(rule.split()))
        return self._asked[key]  # type: ignore[return-value]

    async def _subgoals(self, goal: str, rule: str) -> list[str] | None:
        key = ("subgoals", normal(goal), rule)
        if key not in self._asked:
            self._asked[key] = await self.reasoner.decompose(goal, rule)
        return self._asked[key]  # type: ignore[return-value]

    async def _agrees(self, goal: str, rule: str) -> bool | None:
        key = ("sign", normal(goal), rule)
        if key not in self._asked:
            self._asked[key] = await self.reasoner.agrees(goal, rule)
        return self._asked[key]  # type: ignore[return-value]

    def _collect(self, name: str, ordered: dict[str, Step]) -> None:
        step = self.steps.get(name)
        if step is None or name in ordered:
            return
        for subgoal in step.subgoals:
            self._collect(normal(subgoal), ordered)
        ordered[name] = step


def normal(statement: str) -> str:
    """A statement without case, runs of spaces and a full stop: what makes two goals the same."""
    return " ".join(statement.casefold().split()).rstrip(".?! ")
