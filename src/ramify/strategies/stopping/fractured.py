"""Fractured sampling: answers are forced from chains at several depths and pooled (arXiv:2505.12992)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ramify.backends.base import Capability, Node
from ramify.errors import ConfigError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.self_consistency import majority
from ramify.strategies.steps import StepSplitter, tokens
from ramify.strategies.stopping.forced_answers import ANSWER_SUFFIX, check_asking, force_answers
from ramify.strategies.votes import best_of, finished, vote


@strategy("fractured", kind="approximate", paper="arXiv:2505.12992", needs=(Capability.CONTINUE,))
@dataclass(frozen=True)
class Fractured(Method):
    """Sampling along three axes: `n` chains, `depths` places where each is cut, and `m` answers from each cut.

    A chain that is unfinished at one of the first ``depths - 1`` places is forked there `m` times behind `suffix`, and
    goes on itself. The last depth is its end: its own answer, or `m` of them where `think_end` says that thinking ends
    and an answer begins. So there are up to ``n * m * depths`` answers for the price of `n` chains and the short
    answers, for a cut shares all tokens before it. With one depth this is n independent samples.

    The paper cuts at even shares of the chain; here the places are steps from its beginning, so that no chain has to be
    finished before it is cut.

    Attributes:
        n: chains.
        m: answers from a cut.
        depths: places, the end included.
        until: the distance from one place to the next; 64 tokens by default, a line with ``until=line``.
        suffix: asks for the answer.
        answer_tokens: longest forced answer.
        think_end: what ends thinking, such as ``</think>``; empty for models that do not think apart.
        select: "vote" takes the answer of most, "score" the one with the highest score, "weighted" the one whose scores
            sum highest.
        scorer: judges answers for the last two; a process reward model by default.
    """

    n: int = 4
    m: int = 1
    depths: int = 4
    until: StepSplitter = field(default_factory=lambda: tokens(64))
    suffix: str = ANSWER_SUFFIX
    answer_tokens: int = 20
    think_end: str = ""
    select: Literal["vote", "score", "weighted"] = "vote"
    scorer: Scorer = field(default_factory=ProcessReward)

    def __post_init__(self) -> None:
        check_asking(self.suffix, answer_tokens=self.answer_tokens)
        for name in ("n", "m", "depths"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} does not work: it must be at least 1")
        if self.select == "weighted" and self.scorer.range[0] < 0:
            raise ConfigError(f"select=weighted needs scores of 0 or more; {type(self.scorer).__name__} may give less")

    @property
    def requires(self) -> frozenset[Capability]:
        """Going on behind a suffix, and what the scorer needs where there is one."""
        return frozenset({Capability.CONTINUE}) | (frozenset() if self._judge is None else self.scorer.needs)

    async def run(self, problem: Problem, context: Context) -> Result:
        """Grow the chains from place to place, forcing answers at each."""
        answers: list[Node] = []
        root = await context.root()
        until = [self._until(self.until)] * (self.depths - 1) + [self._until(None)]
        chains = await context.extend([root], self.n, until[0], scored_by=self._judge)
        for depth in range(self.depths):
            answers += await self._solve(context, [chain for chain in chains if self._thought(chain)])
            answers += [chain for chain in chains if not chain.open]
            chains = [chain for chain in chains if chain.open and not self._thought(chain)]
            if not chains or depth + 1 == self.depths:
                break
            if self._judge is not None:
                await context.score(chains, self._judge)  # what a cut shares is read once
            if answers:
                await self._report(context, answers)
            answers += await force_answers(context, chains, self.suffix, self.answer_tokens, self.m, self._judge)
            await self._report(context, answers)
            chains = await context.step(chains, until[depth + 1], scored_by=self._judge)
        return await self._report(context, answers)

    @property
    def _judge(self) -> Scorer | None:
        return None if self.select == "vote" else self.scorer

    def _until(self, step: StepSplitter | None) -> StepSplitter | None:
        """Where a chain stops: the next place, or the end of thinking."""
        if not self.think_end:
            return step
        if step is None:
            return StepSplitter(stop=(self.think_end,))
        return StepSplitter((*step.stop, self.think_end), step.stop_token_ids, step.max_tokens)

    def _thought(self, chain: Node) -> bool:
        """Whether thinking has ended, so that the answer comes next."""
        return chain.open and bool(self.think_end) and chain.text.rstrip().endswith(self.think_end)

    async def _solve(self, context: Context, chains: Sequence[Node]) -> list[Node]:
        """`m` answers behind each chain that has thought to its end."""
        if not chains:
            return []
        answers = await context.extend(chains, self.m, scored_by=self._judge)
        context.retire(chains)
        return answers

    async def _report(self, context: Context, answers: Sequence[Node]) -> Result:
        if self._judge is None:
            return context.result(answers, majority(answers, context))
        scores = await context.score(answers, self.scorer)
        among = finished(answers)
        best = best_of(scores, among)
        if self.select == "weighted":
            winner = vote([context.answer(answers[i]) for i in among], scores[among], merits=scores[among])
            best = best if winner is None else among[winner]
        return context.result(answers, best, scores=scores)
