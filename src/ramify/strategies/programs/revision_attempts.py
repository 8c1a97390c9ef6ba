"""`Attempts`: the answers of a program so far with what a scorer or an evaluator says of each; the best is reported.

A revision is drawn behind a prompt of its own, and yet it answers the problem: a scorer that reads tokens is shown its
text behind the problem's prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol, runtime_checkable

from ramify.backends.base import Capability, Node
from ramify.errors import ScorerError
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.kernel.trace import Scored
from ramify.strategies.programs.revision import fault_of, unlimited
from ramify.strategies.votes import best_of, finished

METADATA = "evaluator"
"""Where a problem may carry its own `Evaluator`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of an answer.

    Attributes:
        score: higher is better; finite.
        feedback: what is wrong, in words that a model can act on.
        solved: nothing is: the search may stop.
    """

    score: float
    feedback: str = ""
    solved: bool = False


@runtime_checkable
class Evaluator(Protocol):
    """A program that checks an answer's text, such as a plan against its constraints or code against tests."""

    def __call__(self, text: str, problem: Problem) -> Verdict:
        """The verdict on one answer."""
        ...


class Attempts:
    """The answers of one run, numbered as they came.

    Args:
        context: of the run.
        scorer: judges answers where there is no evaluator; None: nothing does, and the last readable answer is best.
        evaluator: judges them instead.

    Attributes:
        nodes, verdicts: one each an answer.
    """

    def __init__(self, context: Context, scorer: Scorer | None, evaluator: Evaluator | None = None) -> None:
        self.nodes: list[Node] = []
        self.verdicts: list[Verdict] = []
        self.evaluator = evaluator
        self.scorer = scorer if evaluator is None else None
        self._context = context

    @property
    def sampling(self) -> dict[str, Any]:
        """Options under which answers have to be drawn so that the scorer can read them."""
        if self.scorer is None or Capability.LOGPROBS not in self.scorer.needs:
            return {}
        return {"logprobs": getattr(self.scorer, "logprobs", 0)}

    async def draft(self, n: int) -> list[int]:
        """Draw `n` answers to the problem itself and judge them: their numbers (fewer where the budget ends)."""
        root = await self._context.root()
        return await self.add(await self._context.extend([root], n, scored_by=self.scorer, **self.sampling))

    async def add(self, nodes: Sequence[Node]) -> list[int]:
        """Judge whole answers, free their memory, and report the best so far: their numbers."""
        first = len(self.nodes)
        self.verdicts += await self._judge(nodes)
        self.nodes += nodes
        self._context.retire(nodes)
        if nodes:
            scores = [verdict.score for verdict in self.verdicts]
            self._context.report(self.nodes, self.best, scores if self.judged else None)
        return list(range(first, len(self.nodes)))

    async def take(self, replies: Sequence[Node | None], names: Sequence[str]) -> list[int | None]:
        """The numbers of replies that are answers; for each other a note that calls it by its name, and None."""
        good: list[Node] = []
        places: list[int] = []
        for place, (reply, name) in enumerate(zip(replies, names, strict=True)):
            fault = self._fault(reply)
            if fault or reply is None:
                self._context.note(f"{name}: {fault}; it was left out")
            else:
                good.append(reply)
                places.append(place)
        numbers: list[int | None] = [None] * len(replies)
        # One by one under a budget: where scoring all of them is more than is left, some may still be scored.
        for group in [slice(None)] if unlimited(self._context) else [slice(i, i + 1) for i in range(len(good))]:
            for place, number in zip(places[group], await self.add(good[group]), strict=True):
                numbers[place] = number
        return numbers

    def standing(self) -> list[int]:
        """Answers among which is chosen: finished and readable, else finished, else all.

        An evaluator reads the text itself: then it need not be readable to anybody else.
        """
        ended = finished(self.nodes)
        if self.evaluator is not None:
            return ended
        return [i for i in ended if self._context.answer(self.nodes[i]) is not None] or ended

    def usable(self, number: int) -> bool:
        """Whether there is anything to revise: a finished answer with some text."""
        return self.nodes[number].finish_reason == "stop" and bool(self.text(number))

    def text(self, number: int) -> str:
        """The answer's text without blank ends."""
        return self.nodes[number].text.strip()

    def score(self, number: int) -> float:
        """The answer's score."""
        return self.verdicts[number].score

    def gain(self, new: int, old: int) -> float:
        """How much more the new one scores; infinite where the old one could not be chosen."""
        return self.score(new) - self.score(old) if old in self.standing() else math.inf

    @property
    def best(self) -> int | None:
        """The highest score among solutions, else among all, the first of equals; the last where nothing judges."""
        among = self.standing()
        if not self.judged:
            return among[-1] if among else None
        solutions = [i for i in among if self.verdicts[i].solved]
        return best_of([verdict.score for verdict in self.verdicts], solutions or among)

    @property
    def judged(self) -> bool:
        """Whether there is anything that judges."""
        return self.scorer is not None or self.evaluator is not None

    @property
    def solved(self) -> bool:
        """Whether the best answer needs no more work."""
        best = self.best
        return best is not None and self.verdicts[best].solved

    def result(self, certain: bool = False) -> Result:
        """The result with what was reported last."""
        return self._context.conclude("certain" if certain else "budget" if self._context.exhausted else "finished")

    def _fault(self, reply: Node | None) -> str | None:
        fault = fault_of(reply)
        if fault or reply is None:
            return fault
        if reply.finish_reason != "stop":
            return "the reply is cut at its token limit"
        must_read = self.evaluator is None and any(self._context.answer(node) is not None for node in self.nodes)
        return "no answer can be read in the reply" if must_read and self._context.answer(reply) is None else None

    async def _judge(self, nodes: Sequence[Node]) -> list[Verdict]:
        if self.evaluator is not None:
            verdicts = [self._evaluate(node, self.evaluator) for node in nodes]
        elif self.scorer is not None:
            scores = await self._scores(nodes, self.scorer)
            verdicts = [_verdict_of(score, self.scorer.range[1]) for score in scores]
        else:
            verdicts = [Verdict(0.0)] * len(nodes)
        return verdicts

    def _evaluate(self, node: Node, evaluator: Evaluator) -> Verdict:
        problem = self._context.problem
        try:
            verdict = evaluator(node.text, problem)
        except Exception as error:
            raise ScorerError(f"the evaluator failed on problem {problem.id!r}: {error!r}") from error
        if not _sound(verdict):
            raise ScorerError(f"the evaluator gave {verdict!r}: it must give a Verdict with a finite score")
        self._context.emit(Scored(self._context.number(node), type(evaluator).__name__, float(verdict.score)))
        return verdict

    async def _scores(self, nodes: Sequence[Node], scorer: Scorer) -> list[float]:
        root = await self._context.root()
        reads_tokens = bool(scorer.needs) and Capability.LOGPROBS not in scorer.needs
        shown, carried = [], []
        for node in nodes:
            if reads_tokens and _root_of(node).key != root.key:
                shown.append(await self._context.append(root, node.text))
                carried.append((node, shown[-1]))
            else:
                shown.append(node)
        scores = [float(score) for score in await self._context.score(shown, scorer)] if shown else []
        values = {copy.key: score for copy, score in zip(shown, scores, strict=True)}
        for node, copy in carried:
            self._context.emit(Scored(self._context.number(node), type(scorer).__name__, values[copy.key]))
        self._context.retire([copy for _, copy in carried])
        return scores


def evaluator_of(problem: Problem, own: Evaluator | None) -> Evaluator | None:
    """A method's own evaluator, else the one that the problem carries, else None."""
    carried: Evaluator | None = problem.metadata.get(METADATA)
    return own if own is not None else carried


def _sound(verdict: object) -> bool:
    score: object = getattr(verdict, "score", None)
    return isinstance(verdict, Verdict) and isinstance(score, Real) and math.isfinite(score)


def _verdict_of(score: float, highest: float) -> Verdict:
    """A score in words; the highest there can be is a solution."""
    best = f" (the highest there is: {highest:g})" if math.isfinite(highest) else ""
    return Verdict(score, f"score {score:.3g}{best}", score >= highest)


def _root_of(node: Node) -> Node:
    while node.parent is not None:
        node = node.parent
    return node
