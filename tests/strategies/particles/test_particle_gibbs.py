"""Particle Gibbs: a sweep leaves its target as it is, with the reference weighed by its score at each step."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from ramify.backends.toy import ToyModel
from ramify.errors import ConfigError
from ramify.strategies import parse_strategy
from ramify.strategies.kernel.trace import Dropped, Forced, Grown
from ramify.strategies.particles import particle_gibbs
from ramify.strategies.particles.particle_gibbs import ParticleGibbs, Sweep
from ramify.strategies.particles.potentials import lineage
from ramify.strategies.resampling import choose, softmax
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import SMALL, assert_law, chi_square, run_many

RUNS = 200
TOKEN = parse_strategy("particle-gibbs:until=1").until
PLAIN = parse_strategy("particle-gibbs:temperature=1").sampling
BEGINNINGS = {(1,): 0.9, (2,): 0.1, (1, 1): 0.8, (1, 2): 0.2, (2, 1): 0.2, (2, 2): 0.5}
ENDS = {prefix: np.array([1.0, 0.0, 0.0]) for prefix in [(1, 1), (1, 2), (2, 1), (2, 2)]}


def model(after_one, after_two):
    """Two tokens and the end; the second depends on the first."""
    first = {(): np.array([0.0, 0.5, 0.5]), (1,): np.array(after_one), (2,): np.array(after_two)}
    return ToyModel(("", "a", "b\n"), first | ENDS)


MODEL = model([0.15, 0.8, 0.05], [0.25, 0.05, 0.7])
EVEN = model([0.0, 0.4, 0.6], [0.0, 0.7, 0.3])
"""Its answers have one length, so that weights that are replaced have a target too: the law times all of them."""


def misleading(tokens):
    """A reward under which good beginnings end badly and the other way round."""
    return BEGINNINGS[tokens] if tokens in BEGINNINGS else (0.15 if tokens[0] == 1 else 0.9)


def slight(tokens):
    """A reward that only tells the first tokens apart."""
    return 0.6 if tokens[0] == 1 else 0.5


def target(strategy):
    """What a sweep of the strategy leaves as it is."""
    reward = getattr(strategy, "reward", misleading)

    def weight(tokens):
        if strategy.potential == "incremental":
            return reward(tokens)
        rewards = [reward(tokens[:end]) for end in range(1, len(tokens) + 1)]
        return math.prod(reward / (1 - reward) for reward in rewards)

    law = getattr(strategy, "model", MODEL).law()
    masses = {tokens: chance * weight(tokens) for tokens, chance in law.items()}
    return {tokens: mass / sum(masses.values()) for tokens, mass in masses.items()}


class FromTheTarget(ParticleGibbs):
    """The same sweeps, begun at an exact draw from the target in place of a filter."""

    sweep = Sweep
    model = MODEL
    reward = staticmethod(misleading)

    async def run(self, problem, context):
        reference = await self.exact(context)
        for sweep in range(self.sweeps):
            population = await self.sweep(self, context, sweep, reference).run()
            reference = lineage(population.nodes[choose(softmax(population.log_weights), context.uniform("k", sweep))])
        return context.result([reference[-1]], 0)

    async def exact(self, context):
        law = target(self)
        answer = list(law)[choose(np.array(list(law.values())), context.uniform("exact"))]
        nodes = [await context.root()]
        for token in answer:
            nodes.append(await context.append(nodes[-1], (token,)))
        return (*nodes[1:-1], replace(nodes[-1], finish_reason="stop"))


class Replaced(FromTheTarget):
    """On answers of one length."""

    model = EVEN


class Slight(FromTheTarget):
    """With weights under which ancestors are often drawn anew."""

    reward = staticmethod(slight)


class WeighedByItsFinalScore(Replaced):
    """The fault: the reference competes with its final score at every step."""

    class sweep(Sweep):  # noqa: N801 - stands in for the attribute
        async def rewards(self, nodes):
            rewards = await super().rewards(nodes)
            if self.slot is not None:
                rewards[self.slot] = misleading(self.reference[-1].tokens)
            return rewards


def p_value(strategy, runs=RUNS):
    reward = getattr(strategy, "reward", misleading)
    results = run_many(strategy, runs, reward=reward, model=getattr(strategy, "model", MODEL))
    return chi_square(Counter(result.best.tokens for result in results), target(strategy), runs)


@pytest.mark.parametrize("resampling", ["systematic", "residual"])
def test_a_sweep_leaves_the_target_as_it_is(resampling):
    strategy = FromTheTarget(n=2, sweeps=2, until=TOKEN, resampling=resampling, sampling=PLAIN)
    assert p_value(strategy) > 1e-3


@pytest.mark.parametrize(("method", "n", "ess"), [(FromTheTarget, 2, 0.8), (Slight, 3, 1.0)])
def test_a_sweep_with_ancestor_sampling_leaves_the_target_as_it_is(method, n, ess):
    strategy = method(n=n, sweeps=2, until=TOKEN, ancestor=True, ess=ess, sampling=PLAIN)
    assert p_value(strategy) > 1e-3


def test_forgetting_the_rest_of_the_reference_in_ancestor_sampling_would_be_seen(monkeypatch):
    async def flat(context, prefixes, behind, final):
        return np.zeros(len(prefixes))

    monkeypatch.setattr(particle_gibbs, "tail_logprobs", flat)
    assert p_value(Slight(n=3, sweeps=2, until=TOKEN, ancestor=True, sampling=PLAIN)) < 1e-6


def test_the_reference_competes_with_its_score_at_each_step():
    strategy = Replaced(n=2, sweeps=2, until=TOKEN, potential="replace", sampling=PLAIN)
    assert p_value(strategy) > 1e-3


def test_weighing_the_reference_by_its_final_score_would_be_seen():
    strategy = WeighedByItsFinalScore(n=2, sweeps=2, until=TOKEN, potential="replace", sampling=PLAIN)
    assert p_value(strategy) < 1e-6


def test_sweeps_bring_a_small_filter_that_was_misled_nearer_to_the_target():
    def share(sweeps):
        strategy = ParticleGibbs(n=3, sweeps=sweeps, until=TOKEN, select="sample", sampling=PLAIN)
        results = run_many(strategy, 100, reward=misleading, model=MODEL)
        return sum(result.best.tokens[0] == 2 for result in results) / len(results)

    strategy = ParticleGibbs(until=TOKEN)
    wanted = sum(mass for tokens, mass in target(strategy).items() if tokens[0] == 2)
    assert share(1) + 0.1 < share(8) < wanted + 0.1


def test_a_constant_reward_leaves_the_models_law():
    strategy = parse_strategy("particle-gibbs:n=2,sweeps=2,until=1,select=sample")
    assert_law(run_many(strategy, 120), SMALL.law(0.8))


def test_one_particle_and_one_sweep_is_plain_sampling():
    results = run_many(
        parse_strategy("particle-gibbs:n=1,sweeps=1,until=1"), 200, reward=lambda tokens: 0.1 + 0.2 * len(tokens)
    )
    assert_law(results, SMALL.law(0.8))


def test_the_reference_is_replayed_and_never_drawn_again_or_resampled_away():
    class Watched(ParticleGibbs):
        """Keeps the references of its sweeps."""

        async def run(self, problem, context):
            first = await Sweep(self, context, 0, ()).run()
            reference = lineage(first.nodes[0])
            run = Sweep(self, context, 1, reference)
            second = await run.run()
            assert run.reference == reference
            assert second.nodes[run.slot] is reference[-1]
            return context.result(second.nodes, run.slot)

    for result in run_many(Watched(n=3, sweeps=2, until=TOKEN), 40, reward=misleading, model=MODEL):
        dropped = {node for event in result.trace.events if isinstance(event, Dropped) for node in event.nodes}
        tree = result.trace.tree()
        path = [node.id for node in tree if node.best]
        assert not dropped & set(path)


def test_free_particles_branch_off_from_the_steps_of_the_reference():
    branched = 0
    for result in run_many(parse_strategy("particle-gibbs:n=4,sweeps=3,until=1"), 40, reward=misleading, model=MODEL):
        children = Counter(e.parent for e in result.trace.events if isinstance(e, Grown) and e.parent != 0)
        branched += any(count > 1 for count in children.values())
    assert branched > 20


def test_a_run_draws_at_most_the_particle_steps_that_it_states():
    for result in run_many(parse_strategy("particle-gibbs:n=3,sweeps=4,until=1"), 40, reward=misleading, model=MODEL):
        depths, at_depth = {0: 0}, Counter()
        for event in result.trace.events:
            if isinstance(event, Grown):
                depths[event.node] = depths[event.parent] + 1
                at_depth[depths[event.node]] += 1
        assert at_depth[1] == 3 + 3 * 2
        assert max(at_depth.values()) <= 3 + 3 * 2


def test_ancestor_sampling_charges_the_probabilities_as_probes_and_forces_what_it_accepts():
    spec = "particle-gibbs:n=4,sweeps=4,until=1,ancestor=true,temperature=1"
    results = run_many(parse_strategy(spec), 40, reward=misleading, model=MODEL)
    assert all(result.ledger.probe > 0 for result in results)
    assert any(isinstance(event, Forced) for result in results for event in result.trace.events)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("particle-gibbs:n=1", "would only replay"),
        ("particle-gibbs:sweeps=0", "1 or more"),
        ("particle-gibbs:ess=1.5", "ess=1.5"),
        ("particle-gibbs:resampling=fair", "choose from"),
        ("particle-gibbs:scorer=logprob", "scorer=prm"),
        ("particle-gibbs:ancestor=true", "temperature=1"),
        ("particle-gibbs:ancestor=true,temperature=1,top_k=3", "no truncation"),
        ("particle-gibbs:ancestor=true,temperature=1,potential=replace", "potential=incremental"),
    ],
)
def test_options_that_do_not_work_are_refused_with_the_remedy(spec, words):
    with pytest.raises(ConfigError, match=words):
        parse_strategy(spec)


@pytest.mark.parametrize(
    "spec",
    [
        "particle-gibbs:n=3,sweeps=2,until=1,potential=replace,select=vote,resampling=residual",
    ],
)
def test_it_keeps_the_laws_of_every_strategy(spec):
    check_strategy(parse_strategy(spec))
