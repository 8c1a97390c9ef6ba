"""SMC steering: answers that keep a constraint, drawn from the model's law given that they do (arXiv:2306.03081).

Masking forbidden tokens alone draws from another law: it never looks back at how unlikely its beginning made the
constraint. Here every token comes with a weight, the mass that the mask left, and particles are resampled by their
weights, as in arXiv:2504.05410 (whose rejection scheme spares computing that mass; the engine knows it anyway).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from ramify.backends.base import Capability
from ramify.errors import ConfigError
from ramify.registry import ReadsFile
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.kernel.trace import Cut, Resampled
from ramify.strategies.particles.log_marginal import state_log_marginal
from ramify.strategies.particles.model_vocabulary import model_vocabulary
from ramify.strategies.particles.potentials import (
    Population,
    answer_limit,
    check_rewards,
    reweighted,
    undistorted,
)
from ramify.strategies.registry import Method, strategy
from ramify.strategies.resampling import choose, effective_sample_size, log_mean, scheme, softmax
from ramify.strategies.steps import StepSplitter
from ramify.strategies.votes import vote
from ramify.text.constraints import AllOf, BoolArray, Constraint, Forbidden, Grammar, JsonSchema, Length, Regex, bind
from ramify.text.constraints.base import end_mask

_ONE_TOKEN = StepSplitter(max_tokens=1)


@strategy("smc-steering", kind="distribution", paper="arXiv:2306.03081", needs=("logprobs", "tokens"))
@dataclass(frozen=True)
class SmcSteering(Method):
    """Particles that grow by one allowed token at a time, weighed by how much of the model's law was allowed.

    The target is the model's law (at the run's temperature) of answers that keep the constraint and end within the
    limit, times the critic's reward if there is one. The end is forced at the limit, with its probability as weight.
    A run also states an unbiased estimate of the probability that a plain sample keeps the constraint (see
    `log_marginal`). With n=1 it is masking alone, which follows another law.

    Attributes:
        n: particles.
        regex: the whole answer matches this expression.
        grammar: the whole answer is derived from this Lark grammar.
        json_schema: the whole answer is JSON of this schema. Of these three, a value that starts with @ names a file.
        forbid: texts that must not occur, with | between them.
        min_answer: tokens at least before the end.
        constraint: any `Constraint`, from Python; all that are given hold together.
        scorer: a critic with rewards in [0, 1] of a path so far, by which the law is multiplied; none by default. It
            judges after every token.
        resampling: systematic, stratified, residual or multinomial.
        ess: unfinished particles are resampled when their effective sample size falls below this share of their number.
        select: "sample" draws an answer by weight, "vote" lets weights vote on answers.
    """

    n: int = 8
    regex: Annotated[str, ReadsFile("@")] = ""
    grammar: Annotated[str, ReadsFile("@")] = ""
    json_schema: Annotated[str, ReadsFile("@")] = ""
    forbid: str = ""
    min_answer: int = 0
    constraint: Constraint | None = None
    scorer: Scorer | None = None
    resampling: Literal["systematic", "stratified", "residual", "multinomial"] = "systematic"
    ess: float = 0.5
    select: Literal["sample", "vote"] = "sample"

    def __post_init__(self) -> None:
        scheme(self.resampling)
        if self.scorer is not None:
            check_rewards(self.scorer, "SMC steering")
        if self.n < 1 or self.min_answer < 0 or not 0 <= self.ess <= 1:
            raise ConfigError(
                f"n={self.n}, min_answer={self.min_answer}, ess={self.ess} do not work: n must be at least 1, "
                "min_answer 0 or more, ess from 0 to 1"
            )
        sampling = self.sampling
        if sampling.temperature == 0 or not undistorted(sampling.with_(temperature=1.0)):
            raise ConfigError(
                "steering weighs by the mass that a mask leaves: use a temperature above 0 and no truncation, penalty, "
                "bias or min_tokens (there is min_answer)"
            )
        if sampling.stop_strings or sampling.stop_token_ids:
            raise ConfigError("stops would end answers where the constraint does not: leave them out, or use a regex")

    @property
    def requires(self) -> frozenset[Capability]:
        """Log-probabilities and ids, and what the critic needs."""
        own = frozenset({Capability.LOGPROBS, Capability.TOKENS, Capability.CONTINUE})
        return own if self.scorer is None else self.scorer.needs | own

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw an allowed token for each particle, weigh, resample."""
        root = await context.root()
        vocabulary = model_vocabulary(context)
        # Reading a grammar may take a while, in which other runs go on.
        allowed = await asyncio.to_thread(bind, AllOf(self._constraints()), vocabulary)
        end = end_mask(vocabulary)
        limit = answer_limit(context, root)
        context.report([], None)  # until one is finished there is no answer: an unfinished one breaks the constraint
        particles = Population([root] * self.n, np.ones(self.n), np.zeros(self.n))
        for step in range(1, limit + 1):
            nodes = particles.nodes
            alive = [i for i in range(self.n) if nodes[i].open and particles.log_weights[i] > -np.inf]
            if not alive or context.exhausted:
                break
            masks = {i: allowed(nodes[i].tokens) & end if step == limit else allowed(nodes[i].tokens) for i in alive}
            particles = await self._grown(context, particles, masks, end)
            particles = await self._judged(context, particles, alive, step)
            self._report(context, particles)
            particles = self._resampled(context, particles, step)
        self._state(context, particles)
        return context.conclude("budget" if context.exhausted else "finished")

    async def _grown(
        self, context: Context, particles: Population, masks: Mapping[int, BoolArray], end: BoolArray
    ) -> Population:
        """One allowed token for each particle with a mask, and its weight: the mass of what was allowed.

        A particle that nothing may follow stays where it is, with no weight. One call draws for all that share a mask.
        """
        nodes, log_weights = list(particles.nodes), particles.log_weights.copy()
        groups: dict[bytes, list[int]] = {}
        for i, mask in masks.items():
            groups.setdefault(mask.tobytes(), []).append(i)
        for members in groups.values():
            ids = tuple(np.flatnonzero(masks[members[0]]).tolist())
            if not ids:
                log_weights[members] = -np.inf
                continue
            parents = [nodes[i] for i in members]
            calls = context.samples(parents, 1, _ONE_TOKEN, self.scorer, allowed_token_ids=ids, logprobs=1)
            drawn = [node async for node in calls]
            if len(drawn) < len(members):
                context.emit(Cut([context.number(node) for node in parents[len(drawn) :]]))
            for i, node in zip(members, drawn, strict=False):
                nodes[i] = node
                ended_otherwise = not node.open and not end[node.tokens[-1]]
                log_weights[i] += -np.inf if ended_otherwise else node.details[0].log_mass
        context.retire(old for old, new in zip(particles.nodes, nodes, strict=True) if old is not new)
        return Population(nodes, particles.rewards, log_weights)

    async def _judged(self, context: Context, particles: Population, moved: list[int], step: int) -> Population:
        """The critic as a twist: weights times the ratio of the rewards after and before the token."""
        if self.scorer is None or context.exhausted:
            return particles
        live = [i for i in moved if particles.log_weights[i] > -np.inf]
        rewards, log_weights = particles.rewards.copy(), particles.log_weights.copy()
        rewards[live] = await context.score([particles.nodes[i] for i in live], self.scorer)
        before = None if step == 1 else particles.rewards[live]
        log_weights[live] = reweighted("incremental", log_weights[live], rewards[live], before, 1.0)
        return Population(particles.nodes, rewards, log_weights)

    def _resampled(self, context: Context, particles: Population, step: int) -> Population:
        """Unfinished particles and those that came to nothing, resampled among themselves."""
        nodes, log_weights = particles.nodes, particles.log_weights
        slots = [i for i in range(self.n) if nodes[i].open or log_weights[i] == -np.inf]
        if not any(nodes[i].open and log_weights[i] > -np.inf for i in slots) or context.exhausted:
            return particles
        weights = softmax(log_weights[slots])
        size = effective_sample_size(weights)
        if size >= self.ess * len(slots) * (1 - 1e-9):  # 1e-9: equal weights are no reason to resample
            return particles
        parents = scheme(self.resampling)(weights, context.uniforms("resample", step, n=len(slots)))
        chosen = list(range(self.n))
        for slot, parent in zip(slots, parents, strict=True):
            chosen[slot] = slots[parent]
        numbers = [context.number(node) for node in nodes]
        context.emit(Resampled([numbers[i] for i in slots], [numbers[slots[p]] for p in parents], size))
        kept = {nodes[i].key for i in chosen}
        context.drop(nodes[i] for i in slots if nodes[i].key not in kept)
        levelled = log_weights.copy()
        levelled[slots] = log_mean(log_weights[slots])
        return Population([nodes[i] for i in chosen], particles.rewards[chosen], levelled)

    def _report(self, context: Context, particles: Population) -> None:
        """The answers that are finished and keep the constraint."""
        done = [i for i, node in enumerate(particles.nodes) if not node.open and particles.log_weights[i] > -np.inf]
        if not done:
            return
        nodes, weights = [particles.nodes[i] for i in done], softmax(particles.log_weights[done])
        best: int | None = choose(weights, context.uniform("select"))
        if self.select == "vote":
            winner = vote([context.answer(node) for node in nodes], weights)
            best = best if winner is None else winner
        scores = None if self.scorer is None else particles.rewards[done]
        context.report(nodes, best, scores=scores, weights=weights)

    def _state(self, context: Context, particles: Population) -> None:
        if context.exhausted:
            return
        estimate = log_mean(particles.log_weights)
        state_log_marginal(context, estimate)
        if estimate == -np.inf:
            context.note("no particle kept the constraint: use more particles, a longer limit or another constraint")

    def _constraints(self) -> tuple[Constraint, ...]:
        given: list[Constraint] = [] if self.constraint is None else [self.constraint]
        if self.regex:
            given.append(Regex(_text(self.regex)))
        if self.grammar:
            given.append(Grammar(_text(self.grammar)))
        if self.json_schema:
            given.append(JsonSchema(_text(self.json_schema)))
        if self.forbid:
            given.append(Forbidden(tuple(self.forbid.split("|"))))
        if self.min_answer:
            given.append(Length(at_least=self.min_answer))
        return tuple(given)


def _text(value: str) -> str:
    """An option's text, or that of the file it names. Raises `ConfigError` for a file that cannot be read."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8").rstrip("\n")
    except OSError as error:
        raise ConfigError(f"{value[1:]} cannot be read ({error.strerror}): give the path of a text file") from error
