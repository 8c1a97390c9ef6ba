"""Listwise judge: a model sees all answers at once and puts them in order.

The ranker of Archon (Saad-Falcon et al., arXiv:2409.15254) and of RankGPT (Sun et al., arXiv:2304.09542). What a reply
leaves out follows in the order it was shown in; what it names twice counts where it stands first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ramify.backends.base import Backend, Capability, Node
from ramify.errors import ConfigError, ScorerError
from ramify.registry import register
from ramify.sampling import SamplingParams
from ramify.scoring.calls import verifier_call
from ramify.scoring.problem import Problem
from ramify.scoring.prompts import check_template, fill, question_text
from ramify.scoring.scorers import Reading, ScoreBatch

TEMPLATE = """{question}

Here are {count} proposed answers.

{answers}

Rank the answers from best to worst. Reply with their numbers alone, such as [2] > [1] > [3]."""
ALONE = 0.5
"""The score of an answer that there is nothing to compare with."""
_BRACKETED = re.compile(r"\[\s*(\d+)\s*\]")
_BARE = re.compile(r"(?<![\w.])\d+(?![\w]|\.\d)")


@dataclass(frozen=True, slots=True)
class Ranking:
    """What a model made of some answers.

    Attributes:
        order: places of the answers in the list shown, best first; each once.
        missing: of these, those that the reply left out and that were put at the end.
        repeated: how often it named an answer again.
        unreadable: replies without any number of an answer, which were asked for again.
        num_tokens: tokens drawn, those of unreadable replies too.
    """

    order: tuple[int, ...]
    missing: tuple[int, ...] = ()
    repeated: int = 0
    unreadable: int = 0
    num_tokens: int = 0


@register(
    "listwise",
    kind="scorer",
    trade="approximate",
    paper="arXiv:2304.09542",
    page="techniques/scorers.md",
)
@dataclass(frozen=True, slots=True)
class ListwiseJudge:
    """The place of each answer in an order that a model gives all of them: 1 for the best, 0 for the last.

    Scores compare the answers that are scored together and no others; an answer alone gets 0.5.

    Attributes:
        model: which model judges, by the name under which the backend has it; None for the main one.
        tokens_per_answer: of a reply, for each answer that it has to name.
        tries: replies asked for at most; the first is greedy, the others are drawn at `temperature`.
        temperature: of a reply that is asked for again.
        template: with ``{question}`` and ``{answers}``, and ``{count}`` if it likes.
    """

    model: str | None = None
    tokens_per_answer: int = 8
    tries: int = 3
    temperature: float = 1.0
    template: str = TEMPLATE

    def __post_init__(self) -> None:
        for name in ("tokens_per_answer", "tries"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} does not work: use one or more")
        if not self.temperature > 0:
            raise ConfigError(f"temperature={self.temperature} does not work: the same reply would be given again")
        check_template(self.template, "question", "answers")

    @property
    def needs(self) -> frozenset[Capability]:
        """Nothing that every backend would not offer."""
        return frozenset()

    @property
    def range(self) -> tuple[float, float]:
        """From 0 to 1."""
        return (0.0, 1.0)

    def cost(self, reading: Reading) -> int:
        """Its share of every reply that may be asked for."""
        return self.tries * self.tokens_per_answer

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """One score a node. Raises `ScorerError` if no reply can be read."""
        ranking = await self.rank(nodes, problem, backend)
        values = np.full(len(nodes), ALONE)
        if len(nodes) > 1:
            values[list(ranking.order)] = 1 - np.arange(len(nodes)) / (len(nodes) - 1)
        return ScoreBatch(values, ranking.num_tokens)

    async def rank(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> Ranking:
        """The order of some answers. Raises `ScorerError` if no reply can be read."""
        if len(nodes) < 2:
            return Ranking(tuple(range(len(nodes))))
        answers = "\n\n".join(f"[{number}]\n{node.text.strip()}" for number, node in enumerate(nodes, 1))
        prompt = fill(self.template, question=question_text(problem), answers=answers, count=str(len(nodes)))
        params = SamplingParams(temperature=0, max_tokens=self.tokens_per_answer * len(nodes))
        async with verifier_call(nodes[0], "listwise", prompt, backend, self.model) as call:
            for attempt in range(self.tries):
                (reply,) = await call.draw(params, first=attempt)
                named = read_order(reply.text, len(nodes))
                if named:
                    order = tuple(dict.fromkeys(named))
                    missing = tuple(place for place in range(len(nodes)) if place not in order)
                    repeated = len(named) - len(order)
                    return Ranking((*order, *missing), missing, repeated, attempt, call.num_tokens)
                params = params.with_(temperature=self.temperature)
            raise ScorerError(
                f"none of {self.tries} replies names an answer; the last is {reply.text[:200]!r}: "
                "change the template, or ask another model"
            )


def read_order(text: str, count: int) -> list[int]:
    """Places that a reply names, in its order: numbers in brackets, or bare ones if there are none in brackets."""
    for form in (_BRACKETED, _BARE):
        numbers = [int(found.group(found.lastindex or 0)) for found in form.finditer(text)]
        places = [number - 1 for number in numbers if 1 <= number <= count]
        if places:
            return places
    return []
