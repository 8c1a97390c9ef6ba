"""A strategy replayed from a pool chooses what it chooses when it runs, and says what it lacks."""

import asyncio
import itertools
from pathlib import Path

import numpy as np
import pytest

from ramify.errors import ConfigError
from ramify.evals.estimators import weighted_at_k
from ramify.evals.pools import Pool, Sample, draw_pool
from ramify.evals.replay import accuracy_at_k, replay
from ramify.evals.selectors import ballot_of, chooser_of, estimate_of
from ramify.sampling import SamplingParams
from ramify.scoring import KeyedBy
from ramify.strategies import parse_strategy, solve
from tests.evals.toy_task import PROBLEMS, ToyTask, make_backend

N = 8
PARAMS = SamplingParams(temperature=1.0, max_tokens=8)
FREE = [
    "self-consistency",
    "weighted-vote",
    "weighted-vote:scorer=logprob,transform=rank,power=2",
    "weighted-vote:scorer=self-certainty,transform=softmax,tau=0.5",
    "confidence-vote:top=3,window=2,measure=lowest,keep=0.5",
    "confidence-vote:top=3,window=2,measure=tail,transform=rank",
    "confidence-vote:scorer=self-certainty,transform=rank,power=0.5",
    "best-of-n:scorer=logprob",
    "best-of-n:scorer=deepconf,top=3",
    "best-of-n:scorer=inverse-perplexity,select=weighted",
    "shortest-majority",
    "rpc",
    "rpc:prune=false,probability=token",
    "mbr",
    "mbr:similarity=f1",
    "mbr:similarity=key",
    "tournament:scorer=inverse-perplexity",
    "tournament:scorer=logprob,limit=2,among=samples",
]
SCORED = [
    "best-of-n:model=toy-prm",
    "best-of-n:model=toy-prm,select=weighted,agg=mean",
    "weighted-vote:scorer=prm,model=toy-prm,agg=min",
    "tournament:model=toy-prm,tau=0.3",
]


async def draw(path: Path, **options) -> Pool:
    return await draw_pool(
        path, ToyTask(), PROBLEMS, make_backend(), model="toy", n=N, params=PARAMS, details=3, **options
    )  # fmt: skip


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    return asyncio.run(draw(tmp_path_factory.mktemp("pool") / "pool.jsonl", reward_models=["toy-prm"]))


@pytest.mark.parametrize("spec", FREE + SCORED)
def test_the_replay_of_a_whole_pool_chooses_what_the_run_chooses(pool: Pool, spec: str) -> None:
    method = parse_strategy(f"{spec}{',' if ':' in spec else ':'}n={N}", PARAMS)
    for problem in PROBLEMS:
        result = asyncio.run(solve(method, problem, make_backend(), equivalence=KeyedBy(ToyTask().answer)))
        samples = pool.samples[problem.id]
        assert [c.node.tokens for c in result.candidates] == [sample.tokens for sample in samples]
        place = chooser_of(method, samples)(range(N))
        assert place is not None
        assert samples[place].tokens == result.best.tokens


@pytest.mark.parametrize("spec", FREE + SCORED)
def test_every_estimate_is_near_the_mean_over_all_subsets(pool: Pool, spec: str) -> None:
    method, k = parse_strategy(spec), 3
    for samples in list(pool.samples.values())[:2]:
        choose = chooser_of(method, samples)
        right = []
        for subset in itertools.combinations(range(N), k):
            pick = choose(subset)
            right.append(pick is not None and samples[pick].correct)
        found = estimate_of(method, pool, count=300)(samples, k)
        assert found == pytest.approx(np.mean(right), abs=0.15)  # ties go to the first drawn here, at random there


def test_one_sample_leaves_no_choice_and_is_exact(pool: Pool) -> None:
    for spec in FREE + SCORED:
        for samples in pool.samples.values():
            mean = np.mean([sample.correct for sample in samples])
            assert estimate_of(parse_strategy(spec), pool, count=7)(samples, 1) == pytest.approx(mean)


def test_a_spec_is_a_row_of_the_replay_and_pays_for_what_it_reads(pool: Pool) -> None:
    rows = {(row.method, row.k): row for row in replay(pool, [2, N], specs=["rpc", SCORED[2]], count=50)}
    assert rows["rpc", 2].tokens == rows["majority", 2].tokens
    assert rows[SCORED[2], 2].tokens == rows["best-of-n", 2].tokens
    assert rows["rpc", N].accuracy.low <= rows["rpc", N].accuracy.mean <= rows["rpc", N].accuracy.high


def test_the_weighted_votes_replay_agrees_with_its_own_estimator(pool: Pool) -> None:
    method = parse_strategy("weighted-vote:scorer=prm,model=toy-prm")
    for samples in pool.samples.values():
        scores = [sample.steps["toy-prm"][-1] for sample in samples]
        keys, right = [s.key for s in samples], [s.correct for s in samples]
        found = estimate_of(method, pool, count=1000)(samples, 4)
        assert found == pytest.approx(weighted_at_k(keys, scores, right, 4), abs=0.06)


def test_the_seed_decides_the_subsets(pool: Pool) -> None:
    method = parse_strategy("shortest-majority")
    first, second = (accuracy_at_k(pool, estimate_of(method, pool, seed, 20), 4) for seed in (0, 0))
    assert first == second


def old_sample(index: int, key: str) -> Sample:
    return Sample("p", index, key, (index,), key, key == "a", -0.5, "stop", 3, 10)


def test_a_pool_of_earlier_versions_is_replayed_by_what_it_holds() -> None:
    group = [old_sample(0, "a"), old_sample(1, "b"), old_sample(2, "a")]
    assert ballot_of(group[0]).logprob == pytest.approx(-5)
    old = Pool({"reward_models": []}, {"p": group})
    for spec in ("rpc", "weighted-vote", "mbr", "shortest-majority"):
        assert accuracy_at_k(old, estimate_of(parse_strategy(spec), old), 3).mean in (0.0, 1.0)
    with pytest.raises(ConfigError, match="no confidences"):
        estimate_of(parse_strategy("confidence-vote"), old)
    with pytest.raises(ConfigError, match="SelfCertainty"):
        estimate_of(parse_strategy("confidence-vote:scorer=self-certainty"), old)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("best-of-n:model=other", "no scores of 'other'"),
        ("confidence-vote:top=5", "average over 3"),
        ("tournament:judge=letters", "needs the model"),
        ("synthesis", "needs the model"),
        ("beam", "needs the model"),
        ("weighted-vote:scorer=rule", "RuleCheck"),
    ],
)
def test_what_a_pool_cannot_answer_is_refused(pool: Pool, spec: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        estimate_of(parse_strategy(spec), pool)
