"""Synthesis: draw n answers, show all of them to the model, and let it write a better one (arXiv:2501.01668).

Unlike a vote it can be right where every candidate is wrong. What it writes counts only if it came to its end and gives
an answer that can be read; otherwise the candidates decide among themselves, so that it is never worse than no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ramify.backends.base import Capability, Node
from ramify.errors import ConfigError, PromptTooLongError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.ballots import check_n
from ramify.strategies.selection.prompts import check_template, fill, question_text
from ramify.strategies.selection.self_consistency import majority
from ramify.strategies.votes import best_of, finished

TEMPLATE = """{question}

Here are several attempts at it. Some of them may be wrong.

{answers}

Weigh them against each other and write one solution that is right, with its final answer in the form the question asks
for."""
ITEM = "Attempt {number}:\n{answer}"


@strategy("synthesis", kind="approximate", paper="arXiv:2501.01668")
@dataclass(frozen=True)
class Synthesis(Method):
    """An answer that the model writes with all candidates before it.

    Attributes:
        n: candidates to draw; with 1 there is nothing to fuse.
        m: fused answers to draw, charged to "program".
        final: how one is chosen in the end: by "vote", by "score" (each behind the problem's own prompt), or the
            "first" that can be read.
        among: the "fused" answers alone, or "all" together with the candidates.
        scorer: of "score".
        template: the prompt, with ``{question}`` and ``{answers}``.
        item: each of the answers in it, with ``{number}`` and ``{answer}``.
    """

    n: int = 8
    m: int = 1
    final: Literal["vote", "score", "first"] = "vote"
    among: Literal["fused", "all"] = "fused"
    scorer: Scorer = field(default_factory=ProcessReward)
    template: str = TEMPLATE
    item: str = ITEM

    def __post_init__(self) -> None:
        check_n(self.n)
        if self.m < 1:
            raise ConfigError(f"m={self.m} does not work: write at least one fused answer")
        check_template(self.template, "answers")
        check_template(self.item, "answer")
        if self.final == "score" and Capability.LOGPROBS in self.scorer.needs:
            raise ConfigError(
                f"final=score cannot use {type(self.scorer).__name__}: log-probabilities of a fused answer are those "
                "under another prompt; use final=vote, or a scorer that reads text"
            )

    @property
    def requires(self) -> frozenset[Capability]:
        """What its scorer needs, where one is used; a scored answer is put behind the problem's prompt."""
        return self.scorer.needs | {Capability.CONTINUE} if self.final == "score" else frozenset()

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw, fuse, choose."""
        answers = await context.extend([await context.root()], self.n)
        context.report(answers, majority(answers, context))
        fused: list[Node] = []
        for _ in range(self.m):
            node = await self._fuse(answers, problem, context)
            if node is None:
                break
            fused.append(node)
            good = self._good(answers, fused, context)
            context.report([*answers, *fused], good[0] if good else majority(answers, context))
        return context.result([*answers, *fused], await self._choose(answers, fused, context))

    async def _fuse(self, answers: Sequence[Node], problem: Problem, context: Context) -> Node | None:
        """One fused answer of as many different candidates as the context holds; None if it does not hold two."""
        shown = list(dict.fromkeys(answers[i].text.strip() for i in finished(answers)))
        while len(shown) > 1:
            parts = [fill(self.item, number=str(i), answer=text) for i, text in enumerate(shown, start=1)]
            prompt = fill(self.template, question=question_text(problem), answers="\n\n".join(parts))
            try:
                return await context.ask(prompt)
            except PromptTooLongError:
                shown = shown[:-1]
                context.note(f"the context holds only {len(shown)} different candidates in one prompt")
        return None

    def _good(self, answers: Sequence[Node], fused: Sequence[Node], context: Context) -> list[int]:
        """Places of the fused answers that count, behind the candidates: those that ended and can be read."""
        places = enumerate(fused, start=len(answers))
        return [i for i, node in places if node.finish_reason == "stop" and context.answer(node) is not None]

    async def _choose(self, answers: Sequence[Node], fused: Sequence[Node], context: Context) -> int | None:
        """The place of the final answer among candidates and fused ones."""
        nodes = [*answers, *fused]
        good = self._good(answers, fused, context)
        if len(good) < len(fused):
            context.note("a fused answer was cut or gives no answer that can be read: it does not count")
        if not good:
            return majority(answers, context)
        if self.final == "first":
            return good[0]
        among = [*finished(answers), *good] if self.among == "all" else good
        if self.final == "vote":
            winner = majority([nodes[i] for i in among], context)
            return among[winner or 0]
        behind = [nodes[i] if i < len(answers) else await self._behind_problem(nodes[i], context) for i in among]
        scores = await context.score(behind, self.scorer)
        return among[best_of(scores, range(len(among))) or 0]

    async def _behind_problem(self, node: Node, context: Context) -> Node:
        """The same text behind the problem's prompt, where a scorer reads it like any other answer."""
        return await context.append(await context.root(), node.text)
