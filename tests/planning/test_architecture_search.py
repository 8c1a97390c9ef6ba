"""Architecture search: it finds what was planted, never takes the worst for the best, and compares at equal budgets."""

import asyncio
import random

import msgspec
import pytest

from ramify.backends.scripted import ScriptedBackend
from ramify.errors import ConfigError, ScorerError
from ramify.planning.architecture_search import (
    ArchitectureSpace,
    Measurement,
    SearchResult,
    measuring,
    search_architectures,
)
from ramify.scoring import MarkedAnswer, Problem
from ramify.strategies import parse_strategy
from ramify.strategies.programs.archon import Archon
from ramify.strategies.programs.archon_layers import read_layers

SPACE = ArchitectureSpace(("main", "small"), top_models=(1, 2))
EVERY = SPACE.architectures()
BEST, WORST, GREEDY = EVERY[17], EVERY[5], EVERY[-1]
TRAIN = [Problem(f"t{i}", "q?") for i in range(32)]
VALIDATION = [Problem(f"v{i}", "q?") for i in range(32)]
BUDGET = 100


def planted(layers):
    """The chance to be right, and the tokens that it takes to be so."""
    if layers == GREEDY:
        return 0.99, 400
    return {BEST: 0.9, WORST: 0.02}.get(layers, 0.3), 80


def bench(seed, sleeps=0):
    """A synthetic world: every architecture on every problem is right or not, once and for all."""

    async def measure(layers, problem, tokens):
        for _ in range(sleeps and random.Random(f"{sleeps}{layers}{problem.id}").randrange(5)):
            await asyncio.sleep(0)
        chance, wanted = planted(layers)
        if wanted > tokens:
            chance = 0.0  # cut before it says anything
        drawn = random.Random(f"{seed} {layers} {problem.id}").random()
        return float(drawn < chance), min(wanted, tokens)

    return measure


def search(measure=None, architectures=EVERY, train=TRAIN, validation=VALIDATION, tokens=BUDGET, seed=0, **options):
    measure = measure or bench(seed)
    return asyncio.run(search_architectures(architectures, measure, train, validation, tokens, seed=seed, **options))


def test_the_planted_best_is_found_whatever_the_seed():
    for seed in range(40):
        result = search(seed=seed, trials=len(EVERY))
        assert result.best == BEST
        assert result.validation.standings[0].layers == BEST


def test_the_worst_of_those_tried_is_never_chosen():
    found = 0
    for seed in range(60):
        result = search(seed=seed, trials=12)
        tried = {standing.layers for standing in result.rungs[0].standings}
        assert len(tried) == 12
        assert result.best != WORST
        assert (result.best == BEST) == (BEST in tried)
        found += BEST in tried
    assert 0 < found < 60


def test_each_rung_keeps_the_highest_scores():
    result = search(trials=len(EVERY))
    for rung, after in zip(result.rungs, [*result.rungs[1:], result.validation], strict=True):
        scores = [standing.score for standing in rung.standings]
        assert scores == sorted(scores, reverse=True)
        kept = [standing.layers for standing in rung.standings[: len(after.standings)]]
        assert sorted(kept) == sorted(standing.layers for standing in after.standings)
    assert len(result.validation.standings) == 4
    assert [rung.problems for rung in result.rungs] == [8, 16, 32][: len(result.rungs)]


def test_at_an_equal_budget_what_needs_more_is_not_the_best_and_at_a_larger_one_it_is():
    assert search(trials=len(EVERY)).best == BEST
    assert search(trials=len(EVERY), tokens=400).best == GREEDY


def test_of_equally_good_ones_the_cheaper_wins():
    async def measure(layers, problem, tokens):
        return 0.5, 40 if layers == EVERY[3] else 50

    assert search(measure, trials=len(EVERY)).best == EVERY[3]


def test_all_of_a_rung_are_measured_on_the_same_problems_and_validation_only_at_the_end():
    result = search(trials=10)
    by_layers = {}
    for one in result.measurements:
        assert one.budget == BUDGET >= one.tokens
        by_layers.setdefault(one.layers, []).append(one.problem)
    first = {frozenset(problems[:8]) for problems in by_layers.values()}
    assert len(first) == 1
    judged = {layers for layers, problems in by_layers.items() if any(p.startswith("v") for p in problems)}
    assert judged == {standing.layers for standing in result.validation.standings}
    assert len({(one.layers, one.problem) for one in result.measurements}) == len(result.measurements)
    assert result.total_tokens == sum(one.tokens for one in result.measurements)


def test_the_result_does_not_depend_on_what_ran_first():
    alone = search(trials=12, concurrency=1)
    for sleeps in (1, 2):
        assert search(bench(0, sleeps), trials=12) == alone


def test_a_result_is_plain_data_and_its_spec_makes_the_strategy():
    result = search(trials=12)
    assert msgspec.json.decode(msgspec.json.encode(result), type=SearchResult) == result
    assert parse_strategy(result.spec) == Archon(result.best)


def test_a_search_that_was_stopped_goes_on_from_what_is_known():
    kept = []

    async def breaks(layers, problem, tokens):
        if len(kept) == 50:
            raise KeyError(problem.id)
        return await bench(0)(layers, problem, tokens)

    with pytest.raises(KeyError):
        search(breaks, trials=12, on_measured=kept.append)
    again = []
    other_budget = [Measurement(one.layers, one.problem, 7, 1.0, 7) for one in kept]
    result = search(trials=12, known=[*kept, *other_budget], on_measured=again.append)
    assert result == search(trials=12)
    assert len(kept) + len(again) == len(result.measurements)


def test_a_field_as_small_as_the_final_goes_there_at_once():
    result = search(architectures=[WORST, BEST], finalists=2)
    assert (result.best, result.rungs) == (BEST, ())


def test_every_architecture_of_a_space_can_run_and_is_there_once():
    assert len(EVERY) == len(set(EVERY))
    for layers in EVERY:
        assert read_layers(layers)
        assert ("critic" in layers) <= ("ranker" in layers or "fuser" in layers)
    assert EVERY[0] == "generator"
    space = ArchitectureSpace(("large", "main"), (2,), (4,), (2,), (True,), (3,))
    assert space.architectures() == [
        "generator:4@large+generator:4/critic@large/ranker:3@large/fuser@large+fuser/fuser@large"
    ]
    without_work = ArchitectureSpace(samples=(1,), fuser_layers=(0,), critic=(True,), ranked=(4,))
    assert without_work.architectures() == ["generator"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tokens": 0}, "tokens=0"),
        ({"trials": 0}, "trials=0"),
        ({"eta": 1}, "eta"),
        ({"finalists": 0}, "finalists=0"),
        ({"architectures": []}, "no architecture"),
        ({"train": []}, "training problems"),
        ({"validation": []}, "validation problems"),
        ({"validation": [VALIDATION[0], VALIDATION[0]]}, "id of its own"),
        ({"validation": TRAIN[:1]}, "'t0' is for training and for validation"),
    ],
)
def test_arguments_that_do_not_work_are_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        search(**options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"samples": ()}, "samples"),
        ({"fuser_layers": (-1,)}, "fuser_layers"),
        ({"top_models": (3,)}, "top_models"),
        ({"models": ("a", "a")}, "models"),
        ({"critic": ()}, "critic"),
    ],
)
def test_spaces_that_do_not_work_are_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        ArchitectureSpace(**options)


@pytest.mark.parametrize("score", [float("nan"), 1.5, -0.1])
def test_a_score_that_is_none_is_an_error(score):
    async def measure(layers, problem, tokens):
        return score, 1

    with pytest.raises(ScorerError, match="not in"):
        search(measure)


def test_what_spends_more_than_its_budget_is_refused():
    async def measure(layers, problem, tokens):
        return 1.0, tokens + 1

    with pytest.raises(ConfigError, match="equal budgets"):
        search(measure)


def test_architectures_run_on_a_backend_and_the_one_that_the_model_is_made_for_wins():
    def script(call):
        """A model whose drafts are wrong, and that mends them once they are criticised."""
        if "Write one answer that is better" not in call.text:
            return "weak, it says 1" if "what is weak in it" in call.text or "one paragraph" in call.text else "#### 1"
        return "#### 2" if "What was said about" in call.text else "#### 3"

    backend = ScriptedBackend(script)
    measure = measuring(backend, lambda problem, result: float(str(result.answer) == "2"), equivalence=MarkedAnswer())
    space = ArchitectureSpace(samples=(1, 2), fuser_layers=(0, 1), ranked=(0,))
    options = {"train": TRAIN[:4], "validation": VALIDATION[:4], "first": 2, "finalists": 2}
    result = search(measure, space.architectures(), tokens=1000, **options)
    assert result.best == "generator/critic/fuser"  # the cheapest of those that are right
    assert result.validation.standings[0].score == 1.0
    assert result.total_tokens == backend.usage.generated
    assert search(measure, space.architectures(), tokens=3, **options).best == "generator"  # too little for more
