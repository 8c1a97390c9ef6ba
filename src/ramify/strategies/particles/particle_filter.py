"""Particle filter: sequential Monte Carlo over reasoning steps, steered by a process reward (arXiv:2502.01618)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ramify.backends.base import FloatArray, Node
from ramify.errors import ConfigError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.kernel.trace import Resampled
from ramify.strategies.registry import Method, strategy
from ramify.strategies.resampling import effective_sample_size, log_mean, scheme, softmax
from ramify.strategies.steps import StepSplitter, lines
from ramify.strategies.votes import best_of, finished, vote

LEAST_REWARD = 1e-6  # rewards are kept this far from 0 and 1, where a log-weight would be infinite


@strategy("particle-filter", kind="distribution", paper="arXiv:2502.01618", needs=("scorer",))
@dataclass(frozen=True)
class ParticleFilter(Method):
    """A population of partial answers that moves step by step; promising ones are copied, hopeless ones dropped.

    Finished particles are absorbing: they keep their text and their weight, and only open ones are resampled among
    themselves, so nothing is resampled after the last step.

    Attributes:
        n: particles.
        scorer: a reward in [0, 1] of a path so far; a process reward model by default.
        until: where a step ends; a line by default.
        potential: "replace" weighs a particle by its present reward alone, ``log w = logit(r) / tau`` (the paper's);
            "incremental" by ``log w += log r(t) - log r(t-1)``, whose target is the model's law times the reward.
        tau: temperature of "replace".
        resampling: systematic, stratified, residual or multinomial.
        ess: open particles are resampled when their effective sample size falls below this share of their number; 1 is
            at every step.
        select: "argmax" takes the highest final reward, "sample" draws by weight, "vote" lets weights vote on answers.
        steps: steps at most.
    """

    n: int = 8
    scorer: Scorer = field(default_factory=ProcessReward)
    until: StepSplitter = field(default_factory=lines)
    potential: Literal["replace", "incremental"] = "replace"
    tau: float = 1.0
    resampling: Literal["systematic", "stratified", "residual", "multinomial"] = "systematic"
    ess: float = 1.0
    select: Literal["argmax", "sample", "vote"] = "argmax"
    steps: int = 64

    def __post_init__(self) -> None:
        scheme(self.resampling)
        if self.n < 1 or self.steps < 1:
            raise ConfigError(f"n={self.n}, steps={self.steps} do not work: both must be at least 1")
        if self.tau <= 0 or not 0 <= self.ess <= 1:
            raise ConfigError(f"tau={self.tau}, ess={self.ess} do not work: tau must be above 0, ess from 0 to 1")
        if self.scorer.range != (0.0, 1.0):
            raise ConfigError(
                f"a particle filter needs rewards from 0 to 1; {type(self.scorer).__name__} gives {self.scorer.range}: "
                "use scorer=prm"
            )

    async def run(self, problem: Problem, context: Context) -> Result:
        """Move, weigh, resample."""
        root = await context.root()
        particles = await context.extend([root], self.n, self.until, scored_by=self.scorer)
        context.retire([root])
        rewards = await context.score(particles, self.scorer)
        log_weights = self._weigh(np.zeros(len(particles)), rewards, np.ones(len(particles)))
        for step in range(1, self.steps):
            self._report(context, particles, rewards, log_weights)
            if not any(node.open for node in particles):
                break
            chosen, log_weights = self._resample(context, particles, log_weights, step)
            particles, before = [particles[i] for i in chosen], rewards[chosen]
            particles = await context.step(particles, self.until, scored_by=self.scorer)
            rewards = await context.score(particles, self.scorer)
            log_weights = self._weigh(log_weights, rewards, before)
        return self._report(context, particles, rewards, log_weights)

    def _weigh(self, log_weights: FloatArray, rewards: FloatArray, before: FloatArray) -> FloatArray:
        """Log-weights after a step that took rewards from `before` to `rewards`; a finished particle's stays."""
        now, then = (np.clip(r, LEAST_REWARD, 1 - LEAST_REWARD) for r in (rewards, before))
        if self.potential == "replace":
            return np.asarray((np.log(now) - np.log1p(-now)) / self.tau, dtype=np.float64)
        return np.asarray(log_weights + np.log(now) - np.log(then), dtype=np.float64)

    def _resample(
        self, context: Context, particles: list[Node], log_weights: FloatArray, step: int
    ) -> tuple[list[int], FloatArray]:
        """For each slot the index of the particle that fills it, and the new log-weights."""
        chosen = list(range(len(particles)))
        slots = [i for i in chosen if particles[i].open]
        weights = softmax(log_weights[slots])
        size = effective_sample_size(weights)
        if size >= self.ess * len(slots) * (1 - 1e-9):  # 1e-9: equal weights are no reason to resample
            return chosen, log_weights
        parents = scheme(self.resampling)(weights, context.uniforms("resample", step, n=len(slots)))
        for slot, parent in zip(slots, parents, strict=True):
            chosen[slot] = slots[parent]
        numbers = [[context.number(particles[i]) for i in places] for places in (slots, [slots[p] for p in parents])]
        context.emit(Resampled(numbers[0], numbers[1], size))
        context.drop(particles[i] for i in slots if i not in chosen)
        levelled = log_weights.copy()
        levelled[slots] = log_mean(log_weights[slots])
        return chosen, levelled

    def _report(self, context: Context, particles: list[Node], rewards: FloatArray, log_weights: FloatArray) -> Result:
        weights = softmax(log_weights)
        among = finished(particles)
        best: int | None = best_of(rewards, among)
        if self.select == "sample":
            heights = np.cumsum(weights[among])
            mark = context.uniform("select") * heights[-1]
            best = among[min(int(np.searchsorted(heights, mark, side="right")), len(among) - 1)]
        elif self.select == "vote":
            winner = vote([context.answer(particles[i]) for i in among], weights[among], merits=rewards[among])
            best = best if winner is None else among[winner]
        return context.result(particles, best, scores=rewards, weights=weights)
