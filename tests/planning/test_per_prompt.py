"""One budget over many problems: never passed, spent where it helps, and the same live as on a stored pool."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from ramify.errors import ConfigError
from ramify.evals.pools import draw_pool
from ramify.planning.per_prompt import Agreement, BetaPrior, Checked, Progress, spend, vote_gain
from ramify.planning.sources import Draw, Live, Stored
from ramify.sampling import SamplingParams
from ramify.scoring.equivalence import KeyedBy
from ramify.scoring.problem import Problem
from ramify.strategies.stopping.rules import ahead
from tests.evals.toy_task import PROBLEMS, ToyTask, make_backend

PARAMS = SamplingParams(temperature=1.0, max_tokens=8)


def draws(answers: str, right: str | None = None, tokens: int = 10) -> list[Draw]:
    return [Draw(None if a == "-" else a, None if right is None else a == right, tokens) for a in answers]


def flat(seed: int, rates: list[float], n: int = 40) -> list[list[Draw]]:
    rng = np.random.default_rng(seed)
    return [draws("".join("y" if hit else "n" for hit in rng.random(n) < rate), "y") for rate in rates]


async def test_the_first_right_sample_ends_a_problem_and_the_budget_goes_to_the_others() -> None:
    source = Stored([draws("yyyyyyyy", "y"), draws("nnnnnnny", "y"), draws("nynnnnnn", "y")])
    found = await spend(source, Checked(), 110, wave=1)
    assert found.samples == [1, 8, 2]
    assert found.stopped == "done"
    assert found.tokens == 110
    assert [progress.answer for progress in found.progress] == ["y", "y", "y"]


async def test_unsolved_problems_with_fewer_failures_come_first_and_cheaper_ones_among_equals() -> None:
    source = Stored([draws("n" * 9, "y", tokens=30), draws("n" * 9, "y", tokens=10)])
    found = await spend(source, Checked(), 400, wave=1)
    assert found.samples[1] == 9  # all that the pool has
    assert found.samples[0] in (9, 10, 11)
    early = await spend(
        Stored([draws("n" * 9, "y", tokens=30), draws("n" * 9, "y", tokens=10)]), Checked(), 220, wave=1
    )
    assert early.samples[1] > early.samples[0]


async def test_a_prior_of_its_own_makes_a_problem_first_or_last() -> None:
    priors = [BetaPrior(0.1, 10.0), BetaPrior(5.0, 5.0)]
    found = await spend(Stored(flat(0, [0.0, 0.0])), Checked(priors), 100, first=0, wave=1)
    assert found.samples[1] > found.samples[0]


async def test_votes_go_to_problems_that_are_not_settled() -> None:
    source = Stored([draws("a" * 40), draws("ab" * 20), draws("aaaaaaabaaaa" + "a" * 28)])
    found = await spend(source, Agreement(), 500, wave=1)
    assert found.samples[0] < found.samples[1]
    assert found.samples[2] < found.samples[1]
    assert found.tokens == 500


async def test_sharing_beats_as_many_samples_for_everybody_where_answers_can_be_checked() -> None:
    rates = [0.9, 0.8, 0.7, 0.15, 0.1, 0.1] * 10
    shared = await spend(Stored(flat(3, rates)), Checked(), 6 * 60 * 10)
    solved = np.mean([progress.solved for progress in shared.progress])
    alike = np.mean([any(draw.solved for draw in group[:6]) for group in flat(3, rates)])
    assert shared.tokens <= 6 * 60 * 10
    assert solved > alike + 0.1


@pytest.mark.parametrize("budget", [1, 7, 10, 33, 95, 1000])
@pytest.mark.parametrize("wave", [1, 4])
async def test_the_budget_is_never_passed_and_a_cut_sample_answers_nothing(budget: int, wave: int) -> None:
    found = await spend(Stored([draws("ab" * 3) for _ in range(5)]), Agreement(), budget, wave=wave)
    assert found.tokens <= budget
    assert found.tokens == sum(progress.tokens for progress in found.progress)
    assert found.stopped == ("done" if budget == 1000 else "budget")
    for progress in found.progress:
        assert all((draw.answer is None) == (draw.tokens < 10) for draw in progress.draws)


async def test_live_and_replayed_allocations_are_the_same(tmp_path: Path) -> None:
    task = ToyTask()
    pool = await draw_pool(tmp_path / "pool.jsonl", task, PROBLEMS, make_backend(), model="toy", n=60, params=PARAMS)
    for rule, checked in [(Agreement(), False), (Checked(), True)]:
        stored = Stored(
            [
                [
                    Draw(s.key, s.correct if checked else None, s.generated, s.logprob or 0.0)
                    for s in pool.samples[problem.id]
                ]
                for problem in PROBLEMS
            ]
        )
        replayed = await spend(stored, rule, 120, wave=4)
        for batch_size in (None, 2):
            backend = make_backend(batch_size)
            check = task.correct if checked else None
            async with Live(backend, PROBLEMS, PARAMS.with_(logprobs=0), KeyedBy(task.answer), check) as live:
                found = await spend(live, rule, 120, wave=4)
            assert found.tokens == replayed.tokens == backend.usage.generated
            assert found.samples == replayed.samples
            assert [p.answer for p in found.progress] == [p.answer for p in replayed.progress]
            assert not backend.live


async def test_a_failure_of_the_backend_is_raised_and_holds_nothing_back() -> None:
    def broken(text: str, problem: Problem) -> bool:
        raise RuntimeError("no check today")

    backend = make_backend()
    with pytest.raises(RuntimeError, match="no check today"):
        async with Live(backend, PROBLEMS, PARAMS, KeyedBy(ToyTask().answer), broken) as live:
            await spend(live, Checked(), 100)
    assert not backend.live


def test_the_gain_of_a_checked_problem_is_its_posterior_mean() -> None:
    rule = Checked(BetaPrior(1.0, 3.0))
    assert rule.gain(0, Progress()) == 0.25
    assert rule.gain(0, Progress(draws("nnnn", "y"))) == 1 / 8
    assert rule.gain(0, Progress(draws("nnny", "y"))) == 0


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (2, 2), (3, 1), (5, 1)])
def test_the_gain_of_votes_is_that_of_all_their_orders(first: int, second: int) -> None:
    def expected(more: int) -> float:
        total = 0.0
        for order in itertools.product((0, 1), repeat=more):
            votes, weight = [first, second], 1.0
            for vote in order:
                weight *= (votes[vote] + 1) / (sum(votes) + 2)
                votes[vote] += 1
            total += weight * ahead(max(votes), min(votes))
        return (total - ahead(first, second)) / more

    assert vote_gain(first, second, 6) == pytest.approx(max(0.0, *(expected(more) for more in range(1, 7))), abs=1e-12)


def test_a_settled_vote_gains_nothing() -> None:
    assert vote_gain(8, 0, 8) == pytest.approx(0, abs=1e-12)
    assert vote_gain(3, 3, 16) > vote_gain(5, 1, 16) > vote_gain(12, 1, 16) >= 0


def test_a_fitted_prior_is_near_the_one_that_made_the_problems() -> None:
    rng = np.random.default_rng(0)
    correct = rng.binomial(16, rng.beta(0.6, 1.4, size=3000))
    fitted = BetaPrior.fit(correct.tolist(), [16] * 3000)
    assert fitted.a / (fitted.a + fitted.b) == pytest.approx(0.3, abs=0.02)
    assert fitted.a + fitted.b == pytest.approx(2.0, rel=0.2)


def test_the_answer_is_the_one_that_passed_or_else_the_most_frequent() -> None:
    assert Progress(draws("abb-")).answer == "b"
    assert Progress(draws("bbbc", "c")).answer == "c"
    assert Progress([Draw("a", None, 9, -2.0), Draw("b", None, 9, -1.0)]).answer == "b"  # ties go to the likelier
    assert Progress(draws("--")).best is None
    assert Progress().counts() == (0, 0)
    assert Progress(draws("aab-c")).counts() == (2, 1)


async def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="budget=0"):
        await spend(Stored([]), Checked(), 0)
    with pytest.raises(ConfigError, match="horizon=1"):
        Agreement(1)
    with pytest.raises(ConfigError, match="prior"):
        BetaPrior(0.0, 1.0)
    with pytest.raises(ConfigError, match="prior"):
        BetaPrior.fit([3], [2])
    with pytest.raises(ConfigError, match="same id"):
        Live(make_backend(), [PROBLEMS[0], PROBLEMS[0]], PARAMS, KeyedBy(ToyTask().answer))
