"""SpecReason: a small model drafts each step, the large one judges it or else writes its own (arXiv:2504.07891)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ramify.backends.base import Capability, Node
from ramify.errors import ConfigError, PromptTooLongError, ScorerError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.programs.relay import FULL, Relay
from ramify.strategies.registry import Method, strategy
from ramify.strategies.spec_text import SpecText
from ramify.strategies.steps import StepSplitter, lines

GRADE_QUESTION = SpecText.of(
    "\n\nHow correct is the last step above, from 0 (wrong) to 9 (certainly right)? Reply with one digit.\nGrade: "
)
ACCEPT_QUESTION = SpecText.of("\n\nIs the last step above correct? Reply with Yes or No.\n")
GRADES = tuple("0123456789")
VERDICTS = ("No", "Yes")


@strategy(
    "spec-reason",
    kind="approximate",
    paper="arXiv:2504.07891",
    needs=(Capability.CONTINUE, Capability.TOKENS, "scorer", "second model"),
)
@dataclass(frozen=True)
class SpecReason(Method):
    """One answer whose steps a small model drafts; what is not judged good enough is rewritten by the main model.

    A draft is judged on a scale from 0 to 1, by what it means and not by its tokens:

    - "scores": by a scorer, a process reward model say;
    - "grade": the main model grades it behind `question`, as the paper does; the score is the mean of the grades 0 to 9
      under their probabilities, over 9 (the paper's threshold of 7 is 0.78);
    - "accept": the main model says Yes or No; the score is the probability of Yes of the two;
    - "likelihood": the geometric mean of the probabilities that the main model gives the draft's tokens.

    Attributes:
        small: name of the small model.
        judge: who judges.
        scorer: of "scores".
        threshold: a draft stays from this score on; 0 keeps all of them, and more than 1 none.
        first: so many steps at the beginning are the main model's without a draft.
        until: where a step ends.
        question: of "grade" and "accept", put behind the draft; by default the one of the judge. Empty: none.
        labels: of these two, the replies from the worst to the best; by default the digits, and No and Yes.
    """

    small: str = "nano-drafter"
    judge: Literal["scores", "grade", "accept", "likelihood"] = "scores"
    scorer: Scorer = field(default_factory=ProcessReward)
    threshold: float = 0.7
    first: int = 0
    until: StepSplitter = field(default_factory=lines)
    question: SpecText | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise ConfigError(f"threshold={self.threshold} does not work: give a number, 0 keeps every draft")
        if self.first < 0:
            raise ConfigError(f"first={self.first} does not work: 0 or more steps")
        if len(self.labels) == 1 or len(set(self.labels)) != len(self.labels) or "" in self.labels:
            raise ConfigError(f"labels={self.labels} do not work: two or more different replies are wanted")

    @property
    def requires(self) -> frozenset[Capability]:
        """Each model goes on behind the other's; and what the judge needs."""
        judging = self.scorer.needs if self.judge == "scores" else {Capability.PROMPT_SCORING}
        return frozenset({Capability.CONTINUE, Capability.TOKENS}) | judging

    @property
    def other_models(self) -> tuple[str, ...]:
        """The small one."""
        return (self.small,)

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draft, judge, keep or rewrite."""
        relay = await Relay.begin(context, None, self.small)
        steps = 0
        while relay.latest.open:
            if steps < self.first or not await self._drafted(relay, context):
                relay.accept(await relay.draft(None, self.until))
            steps += 1
        return context.result([relay.latest], 0)

    async def _drafted(self, relay: Relay, context: Context) -> bool:
        """Whether the small model's next step was good enough; then it stays."""
        draft = await relay.draft(self.small, self.until)
        closed = draft.key == relay.latest.key  # no room for another token
        if closed or await self._score(draft, relay, context) >= self.threshold:
            relay.accept(draft)
            return True
        relay.reject(draft)
        return False

    async def _score(self, draft: Node, relay: Relay, context: Context) -> float:
        """How good a draft is; 0 for an answer that ends before it began, and where the main model cannot read it."""
        try:
            if self.judge == "likelihood":
                return await likelihood(draft, relay, context)
            shown = await relay.show(draft, None)
            if shown.parent is None:
                return 0.0
            if self.judge == "scores":
                return float((await context.score([shown], self.scorer))[0])
            return await self._reply(shown, context)
        except PromptTooLongError:
            context.note(FULL)
            return 0.0

    async def _reply(self, shown: Node, context: Context) -> float:
        """The mean place of the labels under their probabilities behind the question, from 0 to 1."""
        graded = self.judge == "grade"
        labels = self.labels or (GRADES if graded else VERDICTS)
        question = self.question if self.question is not None else GRADE_QUESTION if graded else ACCEPT_QUESTION
        asked = await context.append(shown, question[:]) if question else shown
        found = [math.fsum(logs) for logs in await context.logprobs(asked, labels)]
        if question:
            context.retire([asked])
        return mean_place(found)


def mean_place(logprobs: list[float]) -> float:
    """The mean place of labels under their probabilities, from 0 (all on the first) to 1 (all on the last).

    Raises:
        ScorerError: all of them are impossible.
    """
    values = np.array(logprobs)
    if not values.max() > -math.inf:
        raise ScorerError("none of the labels can follow the question: choose labels that the model may say")
    chances = np.exp(values - values.max())
    return float(chances @ np.linspace(0, 1, len(chances)) / chances.sum())


async def likelihood(draft: Node, relay: Relay, context: Context) -> float:
    """Geometric mean of the probabilities that the main model gives the tokens of a draft; 0 if it has none."""
    here = await relay.caught_up(None)
    behind = relay.behind(here, draft)
    if not behind:
        return 0.0
    (logs,) = await context.logprobs(here, [behind])
    return math.exp(math.fsum(logs) / len(logs))
