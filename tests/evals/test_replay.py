"""Replaying a pool gives what the estimators give problem by problem, and charges what each method would have cost."""

import math
from pathlib import Path

import numpy as np
import pytest

from ramify.errors import ConfigError
from ramify.evals.estimators import best_of_n_at_k, maj_at_k, pass_at_k, soft_at_k
from ramify.evals.pools import Pool, Sample, draw_pool
from ramify.evals.replay import accuracy_at_k, best_of_n, majority, replay, tokens_at_k, with_selector
from ramify.sampling import SamplingParams
from tests.evals.toy_task import PROBLEMS, ToyTask, make_backend


def sample(index: int, key: str | None, score: float = 0.5, logprob: float | None = -1.0) -> Sample:
    return Sample(
        problem="p", index=index, text=key or "", tokens=(1,), key=key, correct=key == "a", logprob=logprob,
        finish_reason="stop", prompt_tokens=3, generated=10, steps={"prm": (1.0, score)}, verifier={"prm": 10},
    )  # fmt: skip


def pool_of(*groups: list[Sample]) -> Pool:
    return Pool({"reward_models": ["prm"]}, {f"p{i}": group for i, group in enumerate(groups)})


async def test_a_drawn_pool_is_replayed_by_every_method(tmp_path: Path) -> None:
    params = SamplingParams(max_tokens=8)
    pool = await draw_pool(
        tmp_path / "pool.jsonl", ToyTask(), PROBLEMS, make_backend(),
        model="toy", n=8, params=params, reward_models=["toy-prm"],
    )  # fmt: skip
    rows = {(row.method, row.k): row for row in replay(pool, [1, 4, 8])}
    assert {method for method, _ in rows} == {"pass@k", "majority", "logprob", "best-of-n", "weighted", "soft"}
    groups = list(pool.samples.values())
    for k in (1, 4, 8):
        expected = np.mean([pass_at_k(8, sum(s.correct for s in group), k) for group in groups])
        assert rows["pass@k", k].accuracy.mean == pytest.approx(expected)
        votes = [maj_at_k([s.key for s in group], [s.correct for s in group], k) for group in groups]
        assert rows["majority", k].accuracy.mean == pytest.approx(np.mean(votes))
        assert rows["best-of-n", k].tokens == pytest.approx(k * _mean_cost(groups) + groups[0][0].prompt_tokens)
        assert rows["best-of-n", k].tokens > rows["majority", k].tokens
    # One sample leaves no choice, so all methods give the mean of the pool (the vote only where answers can be read).
    for method in ("logprob", "best-of-n", "soft"):
        assert rows[method, 1].accuracy.mean == pytest.approx(rows["pass@k", 1].accuracy.mean, abs=0.02)


def _mean_cost(groups: list[list[Sample]]) -> float:
    return float(np.mean([np.mean([s.generated + s.verifier["toy-prm"] for s in group]) for group in groups]))


def test_tokens_count_the_verifier_only_where_it_is_used() -> None:
    pool = pool_of([sample(0, "a"), sample(1, "b")])
    assert tokens_at_k(pool, 2) == 20
    assert tokens_at_k(pool, 2, "prm") == 20 + 20 + 3
    assert math.isnan(tokens_at_k(Pool({"reward_models": []}, {}), 1))


def test_any_selector_can_be_replayed_and_agrees_with_the_closed_form() -> None:
    group = [sample(i, "ab"[i % 3 == 0], score=(i * 7 % 5) / 5) for i in range(9)]
    pool = pool_of(group)
    correct, scores = [s.correct for s in group], [s.steps["prm"][-1] for s in group]
    for k in (1, 3, 6):
        drawn = accuracy_at_k(pool, with_selector(best_of_n("prm")), k).mean
        assert drawn == pytest.approx(best_of_n_at_k(scores, correct, k), abs=0.05)
        voted = accuracy_at_k(pool, with_selector(majority), k).mean
        assert voted == pytest.approx(maj_at_k([s.key for s in group], correct, k), abs=0.05)


def test_majority_breaks_ties_by_log_probability_then_by_order_and_none_never_votes() -> None:
    assert majority([sample(0, None), sample(1, None)]) is None
    assert majority([sample(0, None), sample(1, None), sample(2, "b")]).index == 2
    assert majority([sample(0, "b", logprob=-2), sample(1, "a", logprob=-1)]).index == 1
    assert majority([sample(0, "b"), sample(1, "a")]).index == 0
    assert majority([sample(0, "b", logprob=-9), sample(1, "b", logprob=-3), sample(2, "a", logprob=0)]).index == 1


def test_soft_best_of_n_lies_between_the_mean_and_the_best() -> None:
    scores, correct = [0.1, 0.9, 0.5], [False, True, False]
    assert soft_at_k(scores, correct, 3, temperature=1e-3) == pytest.approx(1)
    assert soft_at_k(scores, correct, 3, temperature=1e6) == pytest.approx(1 / 3, abs=1e-4)
    weights = np.exp(np.array(scores) / 0.4)
    assert soft_at_k(scores, correct, 3, temperature=0.4) == pytest.approx(weights[1] / weights.sum())
    with pytest.raises(ConfigError, match="temperature=0"):
        soft_at_k(scores, correct, 3, temperature=0)


def test_what_the_pool_cannot_answer_is_an_error() -> None:
    pool = pool_of([sample(0, "a"), sample(1, "b")])
    with pytest.raises(ConfigError, match="k=3 cannot be estimated from a pool of 2"):
        replay(pool, [3])
    with pytest.raises(ConfigError, match=r"no scores of 'other' \(it has prm\)"):
        replay(pool, [1], reward_model="other")


def test_a_pool_without_log_probabilities_is_replayed_by_the_other_methods() -> None:
    rows = replay(pool_of([sample(0, "a", logprob=None)]), [1])
    assert "logprob" not in {row.method for row in rows}
    assert {row.method for row in rows} >= {"majority", "best-of-n"}
