"""Self-truncation: the model predicts mid-generation whether starting again would do better (arXiv:2410.02725)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ramify.backends.base import Capability, FloatArray, Node
from ramify.errors import ConfigError
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.steps import StepSplitter, tokens
from ramify.strategies.stopping.forced_answers import behind
from ramify.strategies.votes import best_of, finished

_REPLY = 8  # tokens left for a reply at the end of the model's context
LEAST_LOGPROB = -100.0  # two impossible words say nothing: their difference is 0 and not undefined


@strategy(
    "self-truncation",
    kind="approximate",
    paper="arXiv:2410.02725",
    needs=(Capability.CONTINUE, Capability.PROMPT_SCORING),
)
@dataclass(frozen=True)
class SelfTruncation(Method):
    """Sampling that asks the model itself whether another sample would be better.

    The question `suffix` is put behind an answer, finished or not, and the model's probability of `settled` against
    `better` is the answer's merit: that starting again would not do better. Answers are drawn `batch` at a time. At
    each of the first `checks` points only the share `keep` with the highest merits goes on. When all are finished the
    best one is taken if its merit reaches `enough`, and the rest is not drawn; else the next batch follows. The answer
    is the finished one with the highest merit.

    The paper trains the model for the question; one that was not trained for it may give any number, see its
    `Result.candidates`. The paper's schedule of temperatures is no part of this.

    Attributes:
        n: answers at most.
        batch: answers that are drawn together.
        until: where merits are asked for on the way; every 64 tokens by default.
        checks: how often, at most; 0 prunes nothing.
        keep: share of the unfinished answers that goes on at a check, at least one.
        enough: merit of a finished answer from which on nothing more is drawn.
        suffix: the question.
        better, settled: the two answers to it: starting again would do better, or would not.
    """

    n: int = 8
    batch: int = 4
    until: StepSplitter = field(default_factory=lambda: tokens(64))
    checks: int = 1
    keep: float = 0.5
    enough: float = 0.9
    suffix: str = "\nWould you do better if you started over? Yes or No:"
    better: str = " Yes"
    settled: str = " No"

    def __post_init__(self) -> None:
        for name in ("n", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} does not work: draw at least one answer")
        if self.checks < 0:
            raise ConfigError(f"checks={self.checks} does not work: it must be 0 or more")
        if not (0 < self.keep <= 1 and 0 <= self.enough <= 1):
            raise ConfigError(f"keep={self.keep}, enough={self.enough} do not work: they are shares from 0 to 1")
        if not self.suffix.strip() or not self.better or not self.settled or self.better == self.settled:
            raise ConfigError("self-truncation needs a question (suffix) and two answers to it (better, settled)")

    @property
    def requires(self) -> frozenset[Capability]:
        """Going on behind a suffix, and log-probabilities of given words."""
        return super().requires | {Capability.CONTINUE, Capability.PROMPT_SCORING}

    async def run(self, problem: Problem, context: Context) -> Result:
        """Batch by batch: draw, prune on the way, stop when an answer is good enough."""
        answers: list[Node] = []
        merits: list[float] = []
        drawn = 0
        while drawn < self.n and not context.exhausted:
            count = min(self.batch, self.n - drawn)
            drawn += count
            batch = await self._draw(context, count)
            context.report([*answers, *batch], best_of(merits, finished(answers)) if answers else 0)
            merits += [await self._merit(context, node) for node in batch]
            answers += batch
            context.report(answers, best_of(merits, finished(answers)), scores=merits)
            if max(merits) >= self.enough:
                context.skip(self.n - drawn)
                break
        certain = max(merits) >= self.enough
        return context.result(answers, best_of(merits, finished(answers)), scores=merits, certain=certain)

    async def _draw(self, context: Context, count: int) -> list[Node]:
        """Finished answers: those of a batch that were not pruned on the way."""
        batch = await context.extend([await context.root()], count, self.until if self.checks else None)
        for check in range(self.checks):
            unfinished = [node for node in batch if node.open]
            if len(unfinished) > 1:
                stay = self.best([await self._merit(context, node) for node in unfinished])
                pruned = {node.key for i, node in enumerate(unfinished) if i not in stay}
                context.drop(node for node in unfinished if node.key in pruned)
                batch = [node for node in batch if node.key not in pruned]
            batch = await context.step(batch, self.until if check + 1 < self.checks else None)
        return batch

    def best(self, merits: FloatArray | Sequence[float]) -> list[int]:
        """Indices of the unfinished answers that go on; of equal merits the first."""
        count = max(1, math.ceil(self.keep * len(merits) - 1e-9))  # 1e-9: a share of k/n is k, whatever its rounding
        return sorted(sorted(range(len(merits)), key=lambda i: -merits[i])[:count])

    async def _merit(self, context: Context, node: Node) -> float:
        """The model's probability that starting again would not do better, of the two answers to the question."""
        ended = node.finish_reason == "stop"  # the question stands before what ended the answer
        keep = max(0, len(node.tokens) - 1) if ended else None
        asked = await behind(context, node, self.suffix, _REPLY, keep)
        better, settled = await context.logprobs(asked, [self.better, self.settled])
        context.retire([asked])
        return 1 / (1 + math.exp(_likelihood(better) - _likelihood(settled)))


def _likelihood(logprobs: FloatArray) -> float:
    return max(LEAST_LOGPROB, float(logprobs.sum()))
