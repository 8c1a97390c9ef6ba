"""Cascade: the cheapest model answers first, a dearer one only where its confidence is too low (arXiv:2305.05176)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from ramify.backends.base import Backend, Capability, FloatArray, Node
from ramify.errors import ConfigError
from ramify.scoring.confidence import details_for
from ramify.scoring.logprob import mean_logprob
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Reading, ScoreBatch, Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.self_consistency import majority
from ramify.strategies.votes import best_of, finished


@strategy("cascade", kind="approximate", paper="arXiv:2305.05176", needs=("scorer", "second model"))
@dataclass(frozen=True)
class Cascade(Method):
    """Models in order of their cost; the first whose answer is confident enough is believed, the main one in any case.

    Each draws some answers, and the best of them with its confidence is, on a scale from 0 to 1,

    - "agreement": what most of them say, and the share of all that say so;
    - "likelihood": the one with the highest geometric mean of its tokens' probabilities, and that number;
    - "scores": the one with the highest score of a scorer (a process reward model; P(true), where each model judges its
      own answers), and that score.

    An answer that cannot be read has confidence 0. Where the main model gives none that can be read, the surest of the
    others' is taken.

    Attributes:
        cheaper: names of the models before the main one, the cheapest first, joined by ``+``.
        confidence: what it is.
        scorer: of "scores".
        threshold: the confidence from which on an answer is believed; several joined by ``+`` for as many models. 0
            believes any answer that can be read, more than 1 none. `learned_threshold` finds one.
        k: answers of each cheaper model.
        last: answers of the main model.
    """

    cheaper: str = "nano-drafter"
    confidence: Literal["agreement", "likelihood", "scores"] = "agreement"
    scorer: Scorer = field(default_factory=ProcessReward)
    threshold: float | str = 0.6
    k: int = 5
    last: int = 1

    def __post_init__(self) -> None:
        for name in ("k", "last"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} does not work: draw at least one answer")
        if not all(self.other_models):
            raise ConfigError(f"cheaper={self.cheaper!r} does not work: names of models joined by +, tiny+small say")
        if len(set(self.other_models)) < len(self.other_models):
            raise ConfigError(f"cheaper={self.cheaper!r} names a model twice: keep one")
        low, high = self.scorer.range
        if self.confidence == "scores" and (low < 0 or high > 1):
            raise ConfigError(
                f"{type(self.scorer).__name__} gives scores from {low} to {high}, which are no confidence: "
                "use scorer=prm or p-true, or put a calibration map around it"
            )
        if len(self.thresholds) != len(self.other_models):
            raise ConfigError(
                f"threshold={self.threshold!r} does not fit {len(self.other_models)} cheaper models: give one number, "
                "or one for each joined by +"
            )

    @property
    def requires(self) -> frozenset[Capability]:
        """What its confidence needs."""
        if self.confidence == "scores":
            return self.scorer.needs
        return frozenset({Capability.LOGPROBS}) if self.confidence == "likelihood" else frozenset()

    @property
    def other_models(self) -> tuple[str, ...]:
        """The cheaper ones, in their order."""
        return tuple(name.strip() for name in self.cheaper.split("+"))

    @cached_property
    def thresholds(self) -> tuple[float, ...]:
        """One for each cheaper model."""
        try:
            given = tuple(float(part) for part in str(self.threshold).split("+"))
        except ValueError:
            given = (math.nan,)
        if not all(math.isfinite(value) and value >= 0 for value in given):
            raise ConfigError(f"threshold={self.threshold!r} does not work: 0 or more, or several joined by +")
        return given * len(self.other_models) if len(given) == 1 else given

    async def run(self, problem: Problem, context: Context) -> Result:
        """Ask one model after the other until one is sure."""
        stages = [*zip(self.other_models, self.thresholds, strict=True), (None, 0.0)]
        roots = [await context.root(model) for model, _ in stages]  # a model that is missing is missed before any draw
        seen: list[Node] = []
        choices: list[tuple[int, float]] = []
        for root, (model, threshold) in zip(roots, stages, strict=True):
            answers = await self._answers(root, context)
            best, sure = await self._choose(answers, context)
            choices.append((len(seen) + best, sure))
            seen += answers
            if context.answer(answers[best]) is not None and sure >= threshold:
                context.skip(0 if model is None else self.last)
                return context.result(seen, choices[-1][0], certain=model is not None)
            context.report(seen, max(choices, key=lambda choice: choice[1])[0])
        return context.conclude("budget" if context.exhausted else "finished")

    async def _answers(self, root: Node, context: Context) -> list[Node]:
        """What one model says."""
        n = self.last if root.model is None else self.k
        if self.confidence == "scores":
            return await context.extend([root], n, scored_by=self._scorer(root), **details_for(self.scorer))
        known = Capability.LOGPROBS in context.capabilities
        return await context.extend([root], n, logprobs=self.sampling.logprobs or 0 if known else None)

    async def _choose(self, answers: list[Node], context: Context) -> tuple[int, float]:
        """The place of the best of one model's answers, and how sure it is; 0 for one that cannot be read."""
        able = [i for i in finished(answers) if context.answer(answers[i]) is not None]
        if self.confidence == "agreement":
            best = majority(answers, context) or 0
            votes = [context.answer(node) for node in answers]
            return best, votes.count(votes[best]) / len(votes) if votes[best] is not None else 0.0
        if self.confidence == "likelihood":
            sure: Sequence[float] | FloatArray = [math.exp(mean_logprob(node)) for node in answers]
        else:
            sure = await context.score(answers, self._scorer(answers[0]))
        chosen = best_of(sure, able)
        return (0, 0.0) if chosen is None else (chosen, float(sure[chosen]))

    def _scorer(self, node: Node) -> Scorer:
        return InTree(self.scorer, node.model)


@dataclass(frozen=True, slots=True)
class InTree:
    """A scorer at work on the answers of one model: it begins to read that model's tree, prompt and all."""

    scorer: Scorer
    model: str | None

    @property
    def needs(self) -> frozenset[Capability]:
        """What the scorer needs."""
        return self.scorer.needs

    @property
    def range(self) -> tuple[float, float]:
        """The scorer's."""
        return self.scorer.range

    def cost(self, reading: Reading) -> int:
        """The scorer's."""
        return self.scorer.cost(reading)

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """The scorer's."""
        return await self.scorer.score(nodes, problem, backend)


def learned_threshold(
    confidences: Sequence[float] | FloatArray,
    right: Sequence[bool],
    next_right: Sequence[bool],
    price: float = 0.0,
) -> float:
    """The threshold under which a model and the next one together do best on problems whose answers are known.

    Args:
        confidences: [problems] of the cheaper model's answers.
        right: [problems] whether those are right.
        next_right: [problems] whether the next model is right.
        price: share of accuracy that asking the next model for all problems has to bring to be worth it.

    Returns:
        The threshold of the highest accuracy less price times the share of problems passed on; of equals the lowest.

    Raises:
        ConfigError: there are no problems, or the numbers of entries differ.
    """
    sure, own, after = np.asarray(confidences, dtype=np.float64), np.asarray(right), np.asarray(next_right)
    if sure.ndim != 1 or not len(sure) or not sure.shape == own.shape == after.shape:
        raise ConfigError(f"{sure.size} confidences, {own.size} and {after.size} outcomes: give one of each a problem")
    best, found = -math.inf, 0.0
    for threshold in (0.0, *np.unique(sure).tolist(), float(np.nextafter(sure.max(), math.inf))):
        passed = sure < threshold
        worth = float(np.where(passed, after, own).mean() - price * passed.mean())
        if worth > best + 1e-12:  # a rounding is no gain
            best, found = worth, threshold
    return found
