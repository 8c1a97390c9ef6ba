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
from ramify.strategies.particles.log_marginal import state_log_marginal
from ramify.strategies.particles.potentials import (
    Population,
    Potential,
    Select,
    carried,
    check_rewards,
    entropic_temperature,
    reweighted,
    selected,
)
from ramify.strategies.registry import Method, strategy
from ramify.strategies.resampling import effective_sample_size, log_mean, scheme, softmax
from ramify.strategies.steps import StepSplitter, lines


@strategy("particle-filter", kind="distribution", paper="arXiv:2502.01618", needs=("scorer",))
@dataclass(frozen=True)
class ParticleFilter(Method):
    """A population of partial answers that moves step by step; promising ones are copied, hopeless ones dropped.

    Finished particles are absorbing: they keep their text and their weight, and only open ones are resampled among
    themselves, so nothing is resampled after the last step. With incremental potentials a run that came to its end
    states an unbiased estimate of the mean reward (see `log_marginal`).

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
        tempering: "entropic" flattens the weights that are resampled by in the first half of `steps`, where few
            particles hold most of the weight; the target of incremental potentials stays what it is.
        select: "argmax" takes the highest final reward, "sample" draws by weight, "vote" lets weights vote on answers.
        steps: steps at most.
    """

    n: int = 8
    scorer: Scorer = field(default_factory=ProcessReward)
    until: StepSplitter = field(default_factory=lines)
    potential: Potential = "replace"
    tau: float = 1.0
    resampling: Literal["systematic", "stratified", "residual", "multinomial"] = "systematic"
    ess: float = 1.0
    tempering: Literal["none", "entropic"] = "none"
    select: Select = "argmax"
    steps: int = 64

    def __post_init__(self) -> None:
        scheme(self.resampling)
        check_rewards(self.scorer, "a particle filter")
        if self.n < 1 or self.steps < 1:
            raise ConfigError(f"n={self.n}, steps={self.steps} do not work: both must be at least 1")
        if self.tau <= 0 or not 0 <= self.ess <= 1:
            raise ConfigError(f"tau={self.tau}, ess={self.ess} do not work: tau must be above 0, ess from 0 to 1")

    async def run(self, problem: Problem, context: Context) -> Result:
        """Move, weigh, resample."""
        root = await context.root()
        nodes = await context.extend([root], self.n, self.until, scored_by=self.scorer)
        context.retire([root])
        rewards = await context.score(nodes, self.scorer)
        log_weights = reweighted(self.potential, np.zeros(len(nodes)), rewards, None, self.tau)
        particles = Population(nodes, rewards, log_weights)
        for step in range(1, self.steps):
            self._report(context, particles.nodes, particles.rewards, particles.log_weights)
            if not any(node.open for node in particles.nodes):
                break
            particles = self._resample(context, particles, step)
            nodes = await context.step(particles.nodes, self.until, scored_by=self.scorer)
            rewards = await context.score(nodes, self.scorer)
            log_weights = reweighted(self.potential, particles.log_weights, rewards, particles.rewards, self.tau)
            particles = Population(nodes, rewards, log_weights)
        self._state(context, particles)
        return self._report(context, particles.nodes, particles.rewards, particles.log_weights)

    def _resample(self, context: Context, particles: Population, step: int) -> Population:
        """The particles that go on, each in its slot."""
        nodes, log_weights = particles.nodes, particles.log_weights
        slots = [i for i, node in enumerate(nodes) if node.open]
        size = effective_sample_size(softmax(log_weights[slots]))
        if size >= self.ess * len(slots) * (1 - 1e-9):  # 1e-9: equal weights are no reason to resample
            return particles
        tempered = self.tempering == "entropic"
        temperature = entropic_temperature(size, len(slots), step, self.steps) if tempered else 1.0
        chances = softmax(log_weights[slots] / temperature)
        parents = scheme(self.resampling)(chances, context.uniforms("resample", step, n=len(slots)))
        chosen = list(range(len(nodes)))
        for slot, parent in zip(slots, parents, strict=True):
            chosen[slot] = slots[parent]
        numbers = [context.number(node) for node in nodes]
        context.emit(Resampled([numbers[i] for i in slots], [numbers[slots[p]] for p in parents], size))
        context.drop(nodes[i] for i in slots if i not in chosen)
        levelled = log_weights.copy()
        levelled[slots] = carried(log_weights[slots], chances, parents)
        return Population([nodes[i] for i in chosen], particles.rewards[chosen], levelled)

    def _state(self, context: Context, particles: Population) -> None:
        """State the log-marginal where it is one: incremental weights of answers that all came to their end."""
        ended = not context.exhausted and not any(node.open for node in particles.nodes)
        if self.potential == "incremental" and ended:
            state_log_marginal(context, log_mean(particles.log_weights))

    def _report(self, context: Context, nodes: list[Node], rewards: FloatArray, log_weights: FloatArray) -> Result:
        weights = softmax(log_weights)
        best = selected(context, self.select, nodes, rewards, weights, context.uniform("select"))
        return context.result(nodes, best, scores=rewards, weights=weights)
