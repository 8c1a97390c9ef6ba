"""Pools become the plain data that planning works on: the same numbers, and no problem in two parts."""

from pathlib import Path

import numpy as np
import pytest

from ramify.backends.toy import ToyBackend
from ramify.errors import ConfigError
from ramify.evals.advice import (
    groups_of,
    measure_live,
    measure_pool,
    outcomes_of,
    parts_of,
    predicted_of,
    replayable,
    right_answers,
    run_fixed,
    stored,
    verified_of,
)
from ramify.evals.allocation import compare_osca, replay_shared
from ramify.evals.pools import Pool, draw_pool
from ramify.evals.replay import majority
from ramify.evals.tasks import get_task
from ramify.planning.per_prompt import Agreement, Checked
from ramify.sampling import SamplingParams
from ramify.scoring.problem import Problem
from ramify.strategies import parse_strategy
from tests.evals.toy_task import PROBLEMS, ToyTask, make_backend

VOTE = parse_strategy("self-consistency")
JUDGED = parse_strategy("best-of-n:model=toy-prm")


async def draw(path: Path, temperature: float = 1.0, n: int = 8, backend: ToyBackend | None = None) -> Pool:
    params = SamplingParams(temperature=temperature, max_tokens=8)
    return await draw_pool(
        path, ToyTask(), PROBLEMS, backend or make_backend(),
        model="toy", n=n, params=params, reward_models=["toy-prm"],
    )  # fmt: skip


@pytest.fixture
async def pool(tmp_path: Path) -> Pool:
    return await draw(tmp_path / "pool.jsonl")


def test_parts_share_no_content() -> None:
    generated = parts_of(get_task("countdown"), [], 30, 20)
    asked = [Problem(f"q{i}", f"question {i % 9}", "1", "file") for i in range(18)]
    for parts in (generated, parts_of(ToyTask(), asked, 0, 0)):
        groups = [set(groups_of(part)) for part in (parts.train, parts.validation, parts.test)]
        assert sum(map(len, groups)) == len(set.union(*groups))
        assert abs(len(parts.train) - len(parts.validation)) <= 2
    assert len(generated.train) + len(generated.validation) == 60
    assert all("/validation/" in p.id for p in generated.train)  # no model was trained on it
    with pytest.raises(ConfigError, match="at least 6"):
        parts_of(ToyTask(), asked[:2], 0, 0)


def test_a_replayed_method_has_the_pool_s_accuracies_and_tokens(pool: Pool) -> None:
    measured = measure_pool(pool, VOTE, "self-consistency")
    assert measured.specs == tuple(f"self-consistency:n={n}" for n in (1, 2, 3, 4, 6, 8))
    winners = [majority(samples) for samples in pool.samples.values()]
    assert measured.accuracy[:, -1].tolist() == [float(winner is not None and winner.correct) for winner in winners]
    rates = [np.mean([s.correct for s in samples]) for samples in pool.samples.values()]
    assert measured.accuracy[:, 0] == pytest.approx(rates)
    assert measured.tokens[:, 0] == pytest.approx([np.mean([s.generated for s in g]) for g in pool.samples.values()])
    judged = measure_pool(pool, JUDGED, "best-of-n:model=toy-prm")
    assert judged.specs[-1] == "best-of-n:n=8,model=toy-prm"
    assert (judged.tokens > measured.tokens).all()  # the reward model reads too


async def test_a_live_method_runs_at_rising_sizes_up_to_the_budget(tmp_path: Path, pool: Pool) -> None:
    backend = make_backend()
    measured = await measure_live(
        VOTE, "self-consistency", ToyTask(), PROBLEMS, backend, path=tmp_path / "runs.jsonl", model="toy", most=6
    )
    means = measured.tokens.mean(axis=0)
    assert (means[:-1] <= 6).all()
    assert means[-1] > 6
    again, tokens = await run_fixed(
        parse_strategy(measured.specs[1]), ToyTask(), PROBLEMS, make_backend(), path=tmp_path / "x.jsonl", model="toy"
    )
    assert again.tolist() == measured.accuracy[:, 1].tolist()
    assert tokens.tolist() == measured.tokens[:, 1].tolist()


def test_what_a_pool_cannot_replay_is_known(pool: Pool) -> None:
    assert replayable(pool, VOTE)
    assert replayable(pool, JUDGED)
    assert not replayable(pool, parse_strategy("beam:n=4,m=2,scorer=logprob"))
    assert not replayable(pool, parse_strategy("best-of-n:model=another"))


async def test_outcomes_count_right_samples_by_setting(tmp_path: Path, pool: Pool) -> None:
    cold = await draw(tmp_path / "cold.jsonl", temperature=0.5)
    made = outcomes_of([pool, cold])
    assert made.correct[2].tolist() == [sum(s.correct for s in p.samples[PROBLEMS[2].id]) for p in (pool, cold)]
    assert (made.drawn == 8).all()
    fewer = Pool(cold.header, dict(list(cold.samples.items())[:3]))
    with pytest.raises(ConfigError, match="different problems"):
        outcomes_of([pool, fewer])
    rows = compare_osca([pool, cold], [pool, cold], [pool, cold], [6.0, 20.0], PROBLEMS)
    assert [row["budget"] for row in rows] == [6.0, 20.0]
    assert rows[1]["solved"]["mean"] >= rows[0]["solved"]["mean"]
    for row in rows:
        assert row["difference"]["mean"] == pytest.approx(row["solved"]["mean"] - row["single_solved"]["mean"])
        assert row["cost"] <= row["budget"] + 1e-9


async def test_a_stored_pool_gives_its_samples_in_any_order_but_each_once(pool: Pool) -> None:
    for order in (0, 3):
        source = stored(pool, checked=True, order=order)
        drawn = [(await source.draw([1], 99))[0] for _ in range(8)]
        expected = pool.samples[PROBLEMS[1].id]
        assert sorted(str(d.answer) for d in drawn) == sorted(str(s.key) for s in expected)
        assert not source.left(1)
        assert source.left(0)


def test_a_shared_budget_is_replayed_within_it(pool: Pool) -> None:
    for rule, checked in ((Checked(), True), (Agreement(), False)):
        accuracy, tokens = replay_shared(pool, rule, 60, checked, orders=3)
        assert accuracy.shape == (6,)
        assert tokens * 6 <= 60
        assert ((accuracy >= 0) & (accuracy <= 1)).all()
    assert len(right_answers(pool)) == 6


def test_difficulty_is_the_agreement_of_the_first_samples_and_every_option_keeps_them(pool: Pool) -> None:
    found = predicted_of(pool, [("self-consistency", VOTE), ("best-of-n", JUDGED)], orders=2)
    assert found.table.options == ("self-consistency:n=4", "self-consistency:n=6", "self-consistency:n=8",
                                   "best-of-n:n=4", "best-of-n:n=6", "best-of-n:n=8")  # fmt: skip
    assert found.agreement.shape == (12,)
    assert set(found.agreement) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert (np.diff(found.table.cost[:, :3], axis=1) > 0).all()
    assert found.groups == [problem.id for problem in PROBLEMS for _ in range(2)]


def test_a_reward_model_s_score_is_a_verdict(pool: Pool) -> None:
    made = verified_of(pool, "toy-prm")
    assert made[0].verdicts.shape == (8, 1)
    assert made[0].once == pool.samples[PROBLEMS[0].id][0].prompt_tokens
    assert made[0].correct == tuple(s.correct for s in pool.samples[PROBLEMS[0].id])
