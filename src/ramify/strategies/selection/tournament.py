"""Tournament: answers are compared in pairs, and the strongest in a Bradley-Terry fit of the comparisons is chosen.

The aggregation of Fortytwo (arXiv:2510.24801) and of ranking by pairwise prompts (arXiv:2306.17563), on one machine:
comparing two answers is easier for a judge than giving one of them a number.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ramify.backends.base import Capability, FloatArray, Node
from ramify.errors import ConfigError
from ramify.scoring.confidence import details_for
from ramify.scoring.logprob import mean_logprob
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.ballots import Ballot, ballots_of, check_n, standing, voters
from ramify.strategies.selection.bradley_terry import PRIOR, Bracket
from ramify.strategies.selection.judges import Judge, ModelJudge, ScoreJudge, beats
from ramify.strategies.votes import Numbers

Among = Literal["answers", "samples"]


@strategy("tournament", kind="approximate", paper="arXiv:2510.24801", needs=("scorer",))
@dataclass(frozen=True)
class Tournament(Method):
    """The answer that wins most against the others, weighed by whom it won against; ties to the first drawn.

    Attributes:
        n: answers to draw.
        judge: "scores" compares a scorer's numbers; "letters" and "text" ask the model itself (see `ModelJudge`); or,
            from Python, any `Judge`.
        scorer: of "scores".
        tau: of "scores", the difference that makes odds of e to 1.
        among: "answers" lets one sample of each different answer play, the one of the highest score (of the highest
            mean log-probability where the model judges); "samples" all.
        limit: players up to which everybody meets everybody; above it, players are paired by their standing (Swiss).
        rounds: of a Swiss tournament; by default the logarithm of the players' number to base 2, rounded up, plus 1.
        prior: virtual games a player in the fit, half won, half lost.
    """

    n: int = 8
    judge: Literal["scores", "letters", "text"] | Judge = "scores"
    scorer: Scorer = field(default_factory=ProcessReward)
    tau: float = 0.1
    among: Among = "answers"
    limit: int = 8
    rounds: int | None = None
    prior: float = PRIOR

    def __post_init__(self) -> None:
        check_n(self.n)
        for name, value in (("tau", self.tau), ("prior", self.prior)):
            if not value > 0:
                raise ConfigError(f"{name}={value} does not work: it must be above 0")
        if self.limit < 0 or (self.rounds is not None and self.rounds < 1):
            raise ConfigError(f"limit={self.limit}, rounds={self.rounds}: limit is 0 or more, rounds 1 or more")

    @property
    def requires(self) -> frozenset[Capability]:
        """What its judge needs."""
        return self._judge().needs

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw, pair, compare, fit; round by round."""
        judge = self._judge()
        answers, merits = await self._draw(context)
        players = players_of(ballots_of(answers, context), self.among, merits)
        bracket = Bracket(len(players), self.limit, self.rounds, self.prior)
        for pairs in bracket.rounds():
            self._report(context, answers, players, bracket)
            for i, j in pairs:
                verdict = await judge.compare(answers[players[i]], answers[players[j]], problem, context)
                bracket.record(i, j, verdict)
        if bracket.unreadable:
            context.note(
                f"{bracket.unreadable} of {len(bracket.met)} comparisons could not be read and count for nobody"
            )
        self._report(context, answers, players, bracket)
        return context.conclude("budget" if context.exhausted else "finished")

    async def _draw(self, context: Context) -> tuple[list[Node], Numbers | None]:
        """The answers, and by what one of several samples of an answer is put forward."""
        root = await context.root()
        if self.judge == "scores":
            answers = await context.extend([root], self.n, scored_by=self.scorer, **details_for(self.scorer))
            return answers, await context.score(answers, self.scorer)
        if Capability.LOGPROBS not in context.capabilities:
            return await context.extend([root], self.n), None
        answers = await context.extend([root], self.n, logprobs=self.sampling.logprobs or 0)
        return answers, [mean_logprob(node) for node in answers]

    def _report(self, context: Context, answers: Sequence[Node], players: Sequence[int], bracket: Bracket) -> None:
        context.report(answers, players[bracket.order[0]], weights=shares(bracket, players, len(answers)))

    def _judge(self) -> Judge:
        if self.judge == "scores":
            return ScoreJudge(self.scorer, self.tau)
        return ModelJudge(self.judge) if isinstance(self.judge, str) else self.judge


def score_tournament(
    ballots: Sequence[Ballot],
    scores: Numbers,
    tau: float = 0.1,
    among: Among = "answers",
    limit: int = 8,
    rounds: int | None = None,
    prior: float = PRIOR,
) -> tuple[int | None, FloatArray]:
    """A tournament whose judge compares scores: the winner's index and every ballot's share of strength, [ballots]."""
    players = players_of(ballots, among, scores)
    if not players:
        return None, np.zeros(0)
    bracket = Bracket(len(players), limit, rounds, prior)
    for pairs in bracket.rounds():
        for i, j in pairs:
            bracket.record(i, j, beats(float(scores[players[i]]), float(scores[players[j]]), tau))
    return players[bracket.order[0]], shares(bracket, players, len(ballots))


def players_of(ballots: Sequence[Ballot], among: Among = "answers", merits: Numbers | None = None) -> list[int]:
    """Finished answers that can be read (all that stand if none can): one of most merit of each answer, or all samples.

    Without merits it is the first of each answer.
    """
    able = voters(ballots) or standing(ballots)
    if among == "samples":
        return able
    found: dict[Hashable | None, int] = {}
    for i in able:
        known = found.setdefault(ballots[i].answer, i)
        if merits is not None and merits[i] > merits[known]:
            found[ballots[i].answer] = i
    return sorted(found.values())


def shares(bracket: Bracket, players: Sequence[int], count: int) -> FloatArray:
    """Strengths over their sum in the places of the players, [count]; 0 for who did not play."""
    weights = np.zeros(count)
    weights[list(players)] = bracket.strengths / math.fsum(bracket.strengths)
    return weights
