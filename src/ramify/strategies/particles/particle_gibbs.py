"""Particle Gibbs: particle filters in a chain, each conditioned on a path of the one before it (arXiv:2502.01618).

The filter is conditional sequential Monte Carlo (Andrieu, Doucet and Holenstein, 2010); ancestor sampling is that of
Lindsten, Jordan and Schon (2014), arXiv:1401.0604, with one Metropolis step in place of N evaluations of the reward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ramify.backends.base import Capability, FloatArray, Node
from ramify.errors import ConfigError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.kernel.trace import Resampled
from ramify.strategies.particles.potentials import (
    Population,
    Potential,
    Select,
    advanced,
    answer_limit,
    check_rewards,
    clipped,
    lineage,
    reweighted,
    selected,
    undistorted,
)
from ramify.strategies.particles.splicing import fits, splice, tail_logprobs
from ramify.strategies.registry import Method, strategy
from ramify.strategies.resampling import choose, conditional, effective_sample_size, log_mean, scheme, softmax
from ramify.strategies.steps import StepSplitter, lines


@strategy("particle-gibbs", kind="distribution", paper="arXiv:2502.01618", needs=("scorer",))
@dataclass(frozen=True)
class ParticleGibbs(Method):
    """Sweeps of a particle filter; each keeps one path of the sweep before it as a reference that cannot be lost.

    The first sweep is a particle filter. From then on a path drawn by the final weights is replayed step by step beside
    n - 1 free particles: after step t it competes with its reward at step t, free particles may branch off from its
    first t steps, and its own slot is never resampled away. With incremental potentials a sweep leaves the model's law
    times the reward as it is, so that the drawn paths approach that law with the number of sweeps, for any n from 2 up.
    All sweeps together draw at most ``sweeps * n`` continuations a step; replaying draws nothing.

    Attributes:
        n: particles of a sweep, the reference among them.
        sweeps: how many sweeps; 1 is a particle filter.
        scorer: a reward in [0, 1] of a path so far; a process reward model by default.
        until: where a step ends; a line by default.
        potential: "incremental" weighs by ``log w += log r(t) - log r(t-1)``; "replace" by the present reward alone,
            ``log w = logit(r) / tau``, as the paper's filter does.
        tau: temperature of "replace".
        ancestor: whether the reference's first steps are drawn anew among all particles, by their weight times the
            probability of the rest of the reference behind them. It mixes better over long answers; the probabilities
            cost probe tokens, and it needs temperature 1 without truncation, and incremental potentials.
        resampling: systematic, stratified, residual or multinomial.
        ess: open particles are resampled when their effective sample size falls below this share of their number; 1 is
            at every step.
        select: "argmax" takes the highest final reward of all sweeps, "vote" lets the weights of all sweeps vote,
            "sample" takes the path drawn from the last sweep, which is what follows the law.
        steps: steps of a sweep at most.
    """

    n: int = 4
    sweeps: int = 3
    scorer: Scorer = field(default_factory=ProcessReward)
    until: StepSplitter = field(default_factory=lines)
    potential: Potential = "incremental"
    tau: float = 1.0
    ancestor: bool = False
    resampling: Literal["systematic", "stratified", "residual", "multinomial"] = "systematic"
    ess: float = 1.0
    select: Select = "argmax"
    steps: int = 64

    def __post_init__(self) -> None:
        scheme(self.resampling)
        check_rewards(self.scorer, "particle Gibbs")
        if min(self.n, self.sweeps, self.steps) < 1:
            raise ConfigError(f"n={self.n}, sweeps={self.sweeps}, steps={self.steps} do not work: use 1 or more")
        if self.n == 1 and self.sweeps > 1:
            raise ConfigError(f"n=1 with sweeps={self.sweeps} would only replay one path: use n of 2 or more")
        if self.tau <= 0 or not 0 <= self.ess <= 1:
            raise ConfigError(f"tau={self.tau}, ess={self.ess} do not work: tau must be above 0, ess from 0 to 1")
        if self.ancestor and (self.potential != "incremental" or not undistorted(self.sampling)):
            raise ConfigError(
                "ancestor=true weighs by the model's own probabilities: use potential=incremental, temperature=1 and "
                "no truncation, penalty or bias"
            )

    @property
    def requires(self) -> frozenset[Capability]:
        """What the scorer needs; ancestor sampling also scores given tokens."""
        more = {Capability.PROMPT_SCORING, Capability.CONTINUE, Capability.TOKENS} if self.ancestor else set()
        return self.scorer.needs | more

    async def run(self, problem: Problem, context: Context) -> Result:
        """A filter, then conditional filters, each around a path of the one before."""
        reference: tuple[Node, ...] = ()
        sweeps: list[Population] = []
        for sweep in range(self.sweeps):
            run = Sweep(self, context, sweep, reference)
            sweeps.append(await run.run())
            drawn = choose(softmax(sweeps[-1].log_weights), context.uniform("reference", sweep))
            reference = lineage(sweeps[-1].nodes[drawn])
            context.retire(node for node in run.made if node not in reference)
            self._report(context, sweeps, drawn)
            if context.exhausted:
                break
        return context.conclude("budget" if context.exhausted else "finished")

    def _report(self, context: Context, sweeps: list[Population], drawn: int) -> None:
        """The answers of all sweeps, weighted so that each sweep counts the same."""
        nodes = [node for population in sweeps for node in population.nodes]
        rewards = np.concatenate([population.rewards for population in sweeps])
        weights = np.concatenate([softmax(population.log_weights) for population in sweeps]) / len(sweeps)
        best: int | None = len(nodes) - len(sweeps[-1].nodes) + drawn
        if self.select != "sample":
            best = selected(context, self.select, nodes, rewards, weights, 0.5)
        context.report(nodes, best, scores=rewards, weights=weights)


class Sweep:
    """One sweep.

    Args:
        method: its options.
        context: of the run.
        number: of the sweep; it names the draws.
        reference: the step nodes of the path to keep, alive and in order; empty in the first sweep.
    """

    def __init__(self, method: ParticleGibbs, context: Context, number: int, reference: tuple[Node, ...]) -> None:
        self.method = method
        self.context = context
        self.number = number
        self.reference = reference
        self.slot: int | None = None
        """Where the reference stands in the population."""
        self.made = list(reference)
        """Nodes that are alive at the end unless the caller retires them."""

    async def run(self) -> Population:
        """Move, weigh and resample until nothing is open."""
        method = self.method
        nodes = await self._first()
        rewards = await self.rewards(nodes)
        log_weights = reweighted(method.potential, np.zeros(len(nodes)), rewards, None, method.tau)
        particles = Population(nodes, rewards, log_weights)
        for step in range(1, method.steps):
            if not any(node.open for node in particles.nodes):
                break
            particles = await self._resampled(particles, step)
            nodes = await self._moved(particles.nodes, step)
            rewards = await self.rewards(nodes)
            log_weights = reweighted(method.potential, particles.log_weights, rewards, particles.rewards, method.tau)
            particles = Population(nodes, rewards, log_weights)
        return particles

    async def rewards(self, nodes: list[Node]) -> FloatArray:
        """Rewards of paths as they are now; the replayed reference's is that of its first steps, not its final one."""
        return await self.context.score(nodes, self.method.scorer)

    async def _first(self) -> list[Node]:
        """One step from the root for each free particle, and the reference's first step."""
        method, context = self.method, self.context
        free = method.n - 1 if self.reference else method.n
        nodes = await context.extend([await context.root()], free, method.until, scored_by=method.scorer)
        self.made += nodes
        if self.reference:
            self.slot = len(nodes)
            nodes = [*nodes, self.reference[0]]
        return nodes

    async def _moved(self, nodes: list[Node], step: int) -> list[Node]:
        """One step on: free particles draw, the reference replays."""
        going = [i for i, node in enumerate(nodes) if node.open and i != self.slot]
        method = self.method
        drawn = await advanced(self.context, [nodes[i] for i in going], method.until, method.scorer)
        self.made += drawn
        moved = dict(zip(going, drawn, strict=True))
        if self.slot is not None:
            moved[self.slot] = self.reference[min(step, len(self.reference) - 1)]
        return [moved.get(i, node) for i, node in enumerate(nodes)]

    async def _resampled(self, particles: Population, step: int) -> Population:
        """The particles that go on, each in its slot; finished ones are not touched."""
        method, context = self.method, self.context
        nodes, log_weights = particles.nodes, particles.log_weights
        slots = [i for i, node in enumerate(nodes) if node.open]
        weights = softmax(log_weights[slots])
        size = effective_sample_size(weights)
        if size >= method.ess * len(slots) * (1 - 1e-9):  # 1e-9: equal weights are no reason to resample
            return particles
        uniforms = context.uniforms("resample", self.number, step, n=len(slots))
        if self.slot in slots:
            if method.ancestor:
                await self._draw_ancestor(particles, slots, step)
            mark = context.uniform("keep", self.number, step)
            parents, place = conditional(method.resampling, weights, slots.index(self.slot), uniforms, mark)
            self.slot = slots[place]
        else:
            parents = scheme(method.resampling)(weights, uniforms)
        chosen = list(range(len(nodes)))
        for slot, parent in zip(slots, parents, strict=True):
            chosen[slot] = slots[parent]
        numbers = [context.number(node) for node in nodes]
        context.emit(Resampled([numbers[i] for i in slots], [numbers[slots[p]] for p in parents], size))
        context.drop(nodes[i] for i in slots if i not in chosen)
        levelled = log_weights.copy()
        levelled[slots] = log_mean(log_weights[slots])
        return Population([nodes[i] for i in chosen], particles.rewards[chosen], levelled)

    async def _draw_ancestor(self, particles: Population, slots: list[int], step: int) -> None:
        """Draw anew which particle the rest of the reference goes on from.

        The law of the choice has weights ``w_i p(rest | i) r(i + rest) / r(i)``. A candidate is drawn by the first two
        factors, which take one pass over the rest, and accepted by the ratio of the others, which takes one splice.
        """
        final, at = self.reference[-1], self.slot
        assert at is not None
        if final.finish_reason != "stop":
            return  # where an answer was cut depends on its length, which another beginning would change
        context, nodes = self.context, particles.nodes
        limit = answer_limit(context, final)
        among = [i for i in slots if fits(nodes[i], nodes[at], final, limit)]
        if at not in among or len(among) == 1:
            return
        logs = await tail_logprobs(context, [nodes[i] for i in among], nodes[at], final)
        chances = softmax(particles.log_weights[among] + logs)
        candidate = among[choose(chances, context.uniform("ancestor", self.number, step))]
        if candidate == at:
            return
        spliced = await splice(context, nodes[candidate], self.reference, step)
        old, new = clipped(await context.score([final, spliced[-1]], self.method.scorer))
        before = clipped(particles.rewards)
        log_ratio = math.log(new / before[candidate]) - math.log(old / before[at])
        if math.log(context.uniform("accept", self.number, step)) >= log_ratio:
            context.drop(spliced)
            return
        self.made += spliced
        self.reference = (*lineage(nodes[candidate]), *spliced)
        self.slot = candidate
