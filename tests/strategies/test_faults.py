"""Faults that implementations of these methods are known to have, each held off by a test."""

import asyncio
import math
from collections import Counter

import numpy as np
import pytest

from ramify.backends.base import Capability, StepScores
from ramify.errors import CapabilityError, ConfigError, RequestError, ScorerError
from ramify.scoring import Problem, ProcessReward, RuleCheck, ScoreBatch
from ramify.scoring.prm import aggregate
from ramify.strategies import Beam, BestOfN, ParticleFilter, parse_strategy, solve
from ramify.strategies.kernel.trace import Dropped, Grown, Resampled
from ramify.strategies.testing import BY_TEXT, rising_reward, toy_backend


def run(strategy, backend=None, **options):
    backend = backend or toy_backend()
    strategy = parse_strategy(strategy) if isinstance(strategy, str) else strategy
    return asyncio.run(solve(strategy, Problem("p", "xy"), backend, equivalence=BY_TEXT, **options))


def levels(result):
    """How many nodes were drawn at each depth."""
    tree = result.trace.tree()
    depths = {0: 0}
    for node in tree[1:]:
        depths[node.id] = depths[node.parent] + 1
    return Counter(depth for depth in depths.values() if depth)


@pytest.mark.parametrize(("n", "m"), [(8, 2), (8, 4), (8, 8), (6, 1)])
def test_beam_draws_n_paths_at_the_first_level_and_never_more_at_a_later_one(n, m):
    for seed in range(5):
        drawn = levels(run(Beam(n=n, m=m, until=parse_strategy("beam:until=1").until), seed=seed))
        assert drawn[1] == n
        assert all(count <= n and count % m == 0 for count in drawn.values())


def test_beam_keeps_the_best_open_paths_of_a_level():
    result = run("beam:n=6,m=3,until=1", seed=3)
    tree = result.trace.tree()
    first = [node for node in tree if node.parent == 0 and node.status in ("open", "dropped")]
    kept = [node.scores["ProcessReward"] for node in first if node.children]
    dropped = [node.scores["ProcessReward"] for node in first if not node.children and node.scores]
    assert kept
    assert all(min(kept) >= score for score in dropped)


@pytest.mark.parametrize("spec", ["beam:n=9,m=3", "beam:n=9,m=3,until=1,select=vote"])
def test_no_candidate_of_a_beam_stands_for_two(spec):
    for seed in range(10):
        candidates = run(spec, seed=seed).candidates
        assert len({candidate.node.tokens for candidate in candidates}) == len(candidates)


def test_the_resampling_scheme_that_was_asked_for_is_used():
    chosen = set()
    for name in ("systematic", "stratified", "residual", "multinomial"):
        spec = f"particle-filter:n=8,until=1,resampling={name}"
        events = [event for seed in range(10) for event in run(spec, seed=seed).trace.events]
        chosen.add(tuple(tuple(event.parents) for event in events if isinstance(event, Resampled)))
    assert len(chosen) == 4


@pytest.mark.parametrize("potential", ["replace", "incremental"])
def test_a_finished_particle_is_never_resampled_away(potential):
    for seed in range(10):
        events = run(f"particle-filter:n=6,until=1,potential={potential}", seed=seed).trace.events
        ended = {event.node for event in events if isinstance(event, Grown) and event.finish_reason}
        touched = {node for e in events if isinstance(e, Resampled) for node in (*e.nodes, *e.parents)}
        dropped = {node for event in events if isinstance(event, Dropped) for node in event.nodes}
        assert not ended & (touched | dropped)


def test_nothing_is_resampled_after_the_last_step():
    for seed in range(10):
        events = run("particle-filter:n=6,until=1,resampling=multinomial", seed=seed).trace.events
        moves = [type(event) for event in events if isinstance(event, Grown | Resampled)]
        assert moves[-1] is Grown


def test_a_particle_filter_that_resamples_at_no_loss_keeps_equal_weights_apart():
    result = run(ParticleFilter(n=5, until=parse_strategy("beam:until=1").until), toy_constant())
    assert not [event for event in result.trace.events if isinstance(event, Resampled)]


def toy_constant():
    backend = toy_backend()
    backend.rewards["nano-prm"] = lambda tokens: 0.5
    return backend


def test_each_aggregation_is_the_one_that_was_asked_for():
    steps = StepScores((0.5, 0.25, 0.75), 3)
    found = [aggregate(steps, agg) for agg in ("last", "min", "prod", "mean")]
    assert found == [0.75, 0.25, pytest.approx(0.09375), 0.5]
    with pytest.raises(ScorerError, match="unknown aggregation"):
        aggregate(steps, "median")
    with pytest.raises(ScorerError, match="no step"):
        aggregate(StepScores((), 0), "last")


@pytest.mark.parametrize("agg", ["last", "min", "prod", "mean"])
def test_best_of_n_ranks_by_its_aggregation_and_takes_the_highest(agg):
    result = run(f"best-of-n:n=8,agg={agg}")
    backend = toy_backend()
    for candidate in result.candidates:
        steps = StepScores(backend._step_scores(candidate.node, rising_reward), 0)
        assert candidate.score == aggregate(steps, agg)
    assert max(c.score for c in result.candidates) == next(
        c.score for c in result.candidates if c.node.key == result.best.key
    )


class Scoring:
    """A scorer that gives whatever it is told."""

    needs = frozenset()
    range = (0.0, 1.0)

    def __init__(self, values, num_tokens=0, declared=0):
        self.values, self.num_tokens, self.declared = values, num_tokens, declared

    def cost(self, reading):
        return self.declared

    async def score(self, nodes, problem, backend):
        if isinstance(self.values, Exception):
            raise self.values
        return ScoreBatch(np.array(self.values), self.num_tokens)


@pytest.mark.parametrize(
    ("scorer", "words"),
    [
        (Scoring([0.5, math.nan]), "outside its range"),
        (Scoring([0.5, 1.5]), "outside its range"),
        (Scoring([0.5, -0.1]), "outside its range"),
        (Scoring([0.0]), "one each"),
        (Scoring([[0.1], [0.2]]), "one each"),
        (Scoring(OSError("connection lost")), "OSError: connection lost"),
        (Scoring([0.5, 0.5], num_tokens=9, declared=2), "had declared 4"),
    ],
)
def test_a_scorer_that_fails_raises_and_leaves_nothing_behind(scorer, words):
    backend = toy_backend()
    with pytest.raises(ScorerError, match=words):
        run(BestOfN(n=2, scorer=scorer), backend)
    assert not backend.live


def test_a_rule_check_that_gives_no_truth_value_is_an_error():
    with pytest.raises(ScorerError, match="True or False"):
        run(BestOfN(n=2, scorer=RuleCheck(lambda text, problem: None)))


def test_an_unknown_reward_model_is_an_error_that_names_the_known_ones():
    with pytest.raises((ScorerError, RequestError), match="nano-prm"):
        run(BestOfN(n=2, scorer=ProcessReward(model="other")))


def test_a_missing_capability_fails_before_the_first_token():
    backend = toy_backend()
    backend.capabilities = frozenset(Capability) - {Capability.REWARD}
    with pytest.raises(CapabilityError, match="strategy 'best-of-n' needs reward"):
        run("best-of-n:n=2", backend)
    assert backend.usage.generated == 0


@pytest.mark.parametrize(
    "spec",
    [
        "best-of-n:n=0",
        "best-of-n:tau=0",
        "best-of-n:select=weighted,scorer=logprob",
        "self-consistency:n=0",
        "beam:n=8,m=3",
        "beam:select=vote,scorer=logprob",
        "particle-filter:resampling=fair",
        "particle-filter:scorer=logprob",
        "particle-filter:ess=2",
    ],
)
def test_settings_that_cannot_work_are_refused_when_made(spec):
    with pytest.raises(ConfigError):
        parse_strategy(spec)
