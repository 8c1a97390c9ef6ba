"""Speculative rejection: start as many answers as memory holds, reject the worst when it is full (arXiv:2410.20290)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ramify.backends.base import FloatArray, Node
from ramify.errors import ConfigError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.steps import StepSplitter
from ramify.strategies.votes import best_of, finished

FROM_THE_POOL = "n or memory follow the free KV memory: under another load the result is another"


@strategy("speculative-rejection", kind="approximate", paper="arXiv:2410.20290", needs=("scorer",))
@dataclass(frozen=True)
class SpeculativeRejection(Method):
    """Best-of-n that starts with more answers than memory can finish and rejects the worst on the way.

    All answers grow until the tokens of the unfinished ones fill `memory`. Then everything is scored, finished answers
    too, and the best ``1 - alpha`` stay; the memory of the others is free for these to go on. It ends when no answer is
    unfinished, and gives the finished one with the highest score. The last one left goes on whatever memory says. With
    more memory than the answers need nothing is rejected, and this is best-of-n draw for draw.

    Attributes:
        n: answers to start; None starts one for every `first` tokens of memory, `most` at most.
        alpha: share that is rejected when memory is full.
        scorer: judges unfinished and finished answers; a process reward model by default.
        memory: tokens of unfinished answers that may be held at once; None takes the KV memory that is free when the
            run begins. One seed gives one answer only where `n` and `memory` are given: what is free depends on load.
        first: tokens that every answer shall have room for before the first rejection, where `n` is None.
        most: answers at most, where `n` is None.
    """

    n: int | None = None
    alpha: float = 0.5
    scorer: Scorer = field(default_factory=ProcessReward)
    memory: int | None = None
    first: int = 16
    most: int = 128

    def __post_init__(self) -> None:
        for name in ("n", "memory", "first", "most"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} does not work: it must be at least 1")
        if not 0 < self.alpha < 1:
            raise ConfigError(f"alpha={self.alpha} does not work: reject a share between 0 and 1, such as 0.5")

    async def run(self, problem: Problem, context: Context) -> Result:
        """Grow until memory is full, reject, and again."""
        memory = self._memory(context)
        n = self.n or min(self.most, max(1, memory // self.first))
        answers = await context.extend([await context.root()], n, _stride(memory // n), scored_by=self.scorer)
        while True:
            scores = await self._report(context, answers)
            unfinished = [answer for answer in answers if answer.open]
            if not unfinished:
                return context.result(answers, best_of(scores, finished(answers)), scores=scores)
            room = (memory - sum(answer.num_tokens for answer in unfinished)) // len(unfinished)
            if room > 0:
                answers = await context.step(answers, _stride(room), scored_by=self.scorer)
            elif len(answers) > 1:
                stay = self.best(scores)
                context.drop(answer for i, answer in enumerate(answers) if i not in stay)
                answers = [answers[i] for i in stay]
            else:
                answers = await context.step(answers, scored_by=self.scorer)

    def best(self, scores: FloatArray | Sequence[float]) -> list[int]:
        """Indices of those that stay when memory is full: at least one goes and one stays; of equals the first stay."""
        count = min(len(scores) - 1, max(1, math.ceil((1 - self.alpha) * len(scores) - 1e-9)))  # 1e-9: rounding
        return sorted(sorted(range(len(scores)), key=lambda i: -scores[i])[:count])

    def _memory(self, context: Context) -> int:
        """The limit on held tokens.

        Raises:
            ConfigError: it is not given, and the backend does not say.
        """
        if self.n is None or self.memory is None:
            context.note(FROM_THE_POOL)
        memory = self.memory if self.memory is not None else context.free_tokens()
        if memory is None:
            raise ConfigError(
                "speculative-rejection does not learn from this backend how much KV memory is free: "
                "say how many tokens answers may hold, such as memory=4096"
            )
        return memory

    async def _report(self, context: Context, answers: Sequence[Node]) -> FloatArray:
        scores = await context.score(answers, self.scorer)
        context.report(answers, best_of(scores, finished(answers)), scores=scores)
        return scores


def _stride(room: int) -> StepSplitter:
    return StepSplitter(max_tokens=max(1, room))
