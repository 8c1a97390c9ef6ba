"""Judges of pairs: which of two answers is better, as a probability; None where the verdict cannot be read."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from ramify.backends.base import Capability, Node
from ramify.errors import ConfigError, PromptTooLongError
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.selection.prompts import check_template, fill, question_text

TEMPLATE = """{question}

Answer A:
{first}

Answer B:
{second}

Which answer is better? Reply with the letter A or B alone."""
VERDICT_TOKENS = 8
"""Of a verdict that is read from text."""


@runtime_checkable
class Judge(Protocol):
    """Compares two answers."""

    @property
    def needs(self) -> frozenset[Capability]:
        """Capabilities without which it cannot judge."""
        ...

    async def compare(self, first: Node, second: Node, problem: Problem, context: Context) -> float | None:
        """The probability that the first is better, or None if the verdict cannot be read: then nobody wins."""
        ...


@dataclass(frozen=True, slots=True)
class ScoreJudge:
    """Compares scores: the logistic function of their difference. No tokens besides those of the scorer.

    Attributes:
        scorer: judges each answer alone.
        tau: difference in scores that makes odds of e to 1.
    """

    scorer: Scorer
    tau: float = 0.1

    @property
    def needs(self) -> frozenset[Capability]:
        """What the scorer needs."""
        return self.scorer.needs

    async def compare(self, first: Node, second: Node, problem: Problem, context: Context) -> float | None:
        """From the scores, which are kept between comparisons."""
        scores = await context.score([first, second], self.scorer)
        return beats(float(scores[0]), float(scores[1]), self.tau)


@dataclass(frozen=True, slots=True)
class ModelJudge:
    """Asks the model itself, once in each order of the two, since models favour a place; charged to "verifier".

    Attributes:
        verdict: "letters" compares the probabilities of the two letters; "text" reads the first letter that is written.
        template: the question, with ``{question}``, ``{first}`` and ``{second}``.
        letters: what stands for the first and the second answer.
    """

    verdict: Literal["letters", "text"] = "letters"
    template: str = TEMPLATE
    letters: tuple[str, str] = ("A", "B")

    def __post_init__(self) -> None:
        check_template(self.template, "first", "second")
        if len(set(self.letters)) != 2 or not all(self.letters):
            raise ConfigError(f"letters={self.letters} do not work: two different ones are wanted")

    @property
    def needs(self) -> frozenset[Capability]:
        """Log-probabilities of given tokens, for letters."""
        return frozenset({Capability.PROMPT_SCORING}) if self.verdict == "letters" else frozenset()

    async def compare(self, first: Node, second: Node, problem: Problem, context: Context) -> float | None:
        """The mean of the readable verdicts of both orders; None if neither can be read."""
        forth = await self._first_wins(first, second, problem, context)
        back = await self._first_wins(second, first, problem, context)
        readable = [*([] if forth is None else [forth]), *([] if back is None else [1 - back])]
        return sum(readable) / len(readable) if readable else None

    async def _first_wins(self, first: Node, second: Node, problem: Problem, context: Context) -> float | None:
        question = question_text(problem)
        prompt = fill(self.template, question=question, first=first.text.strip(), second=second.text.strip())
        try:
            length = 1 if self.verdict == "letters" else VERDICT_TOKENS
            reply = await context.ask(prompt, "verifier", max_tokens=length, temperature=0)
        except PromptTooLongError:
            return None  # two answers that the context does not hold cannot be compared
        if self.verdict == "text":
            return self._read(reply.text)
        assert reply.parent is not None
        found = [float(np.sum(logs)) for logs in await context.logprobs(reply.parent, self.letters)]
        return logistic(found[0] - found[1]) if all(map(math.isfinite, found)) else None

    def _read(self, text: str) -> float | None:
        """1 or 0 by the first letter that stands alone; None if there is none."""
        choices = "|".join(re.escape(letter.strip()) for letter in self.letters)
        found = re.search(rf"(?<!\w)({choices})(?!\w)", text)
        return None if found is None else float(found.group(1) == self.letters[0].strip())


def beats(first: float, second: float, tau: float) -> float:
    """The probability that the first score's answer is better: the logistic function of their difference over tau."""
    return logistic((first - second) / tau)


def logistic(log_odds: float) -> float:
    """The probability that has these log-odds; symmetric to the last digit."""
    return 0.5 * (1 + math.tanh(log_odds / 2))
