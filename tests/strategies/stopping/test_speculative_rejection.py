"""Speculative rejection: what stays, how much memory it holds, and what it is with enough of it."""

import asyncio
import itertools
import math
from typing import ClassVar

import pytest
from scipy import stats

from ramify.backends.toy import ToyBackend
from ramify.errors import ConfigError
from ramify.scoring import Problem, RuleCheck
from ramify.strategies import BestOfN, parse_strategy, solve
from ramify.strategies.stopping.speculative_rejection import FROM_THE_POOL, SpeculativeRejection
from ramify.strategies.testing import BY_TEXT, check_strategy, rising_reward, toy_backend
from tests.strategies.laws import SMALL, assert_law, run_many

WARM = SMALL.law(temperature=0.8)


def test_the_best_stay_and_of_equals_the_first():
    assert SpeculativeRejection(alpha=0.5).best([0.1, 0.9, 0.5, 0.9]) == [1, 3]
    assert SpeculativeRejection(alpha=0.5).best([0.5, 0.5, 0.5, 0.5]) == [0, 1]
    assert SpeculativeRejection(alpha=0.25).best([0.1, 0.2, 0.3, 0.4]) == [1, 2, 3]


@pytest.mark.parametrize("alpha", [0.01, 0.5, 0.99])
def test_at_least_one_goes_and_one_stays(alpha):
    assert 1 <= len(SpeculativeRejection(alpha=alpha).best([0.2, 0.1])) < 2


@pytest.mark.parametrize("n", [1, 5])
def test_with_memory_for_all_it_is_best_of_n_draw_for_draw(n):
    plain = run_many(BestOfN(n=n), 40, reward=rising_reward)
    for result, wanted in zip(
        run_many(SpeculativeRejection(n=n, memory=1000), 40, reward=rising_reward), plain, strict=True
    ):
        assert [c.node.tokens for c in result.candidates] == [c.node.tokens for c in wanted.candidates]
        assert result.best.tokens == wanted.best.tokens


@pytest.mark.parametrize("memory", [1, 5])
def test_a_constant_scorer_leaves_the_law_unchanged(memory):
    assert_law(run_many(SpeculativeRejection(n=4, memory=memory), 200), WARM)


def test_a_perfect_scorer_that_rejects_nothing_succeeds_when_any_answer_does():
    right = SMALL.text(max(WARM, key=WARM.get))
    results = run_many(
        SpeculativeRejection(n=3, memory=100, scorer=RuleCheck(lambda text, problem: text == right)), 200
    )
    chance = 1 - (1 - sum(p for tokens, p in WARM.items() if SMALL.text(tokens) == right)) ** 3
    assert stats.binomtest(sum(result.text == right for result in results), 200, chance).pvalue > 1e-3


class Recorded(SpeculativeRejection):
    """Notes how many answers were there and what the unfinished ones held."""

    seen: ClassVar[list] = []

    async def _report(self, context, answers):
        held = [answer.num_tokens for answer in answers if answer.open]
        self.seen.append((len(answers), len(held), sum(held)))
        return await super()._report(context, answers)


@pytest.mark.parametrize("memory", [6, 9])
def test_unfinished_answers_never_hold_more_than_memory_and_rejection_leaves_its_share(memory):
    for seed in range(8):
        Recorded.seen.clear()
        backend = ToyBackend(toy_backend(seed).model, {"nano-prm": rising_reward}, max_model_len=24)
        strategy = Recorded(n=6, memory=memory, alpha=0.5)
        result = asyncio.run(solve(strategy, Problem("p", "xy"), backend, equivalence=BY_TEXT))
        sizes = [size for size, _, _ in Recorded.seen]
        assert all(held <= memory for _, unfinished, held in Recorded.seen if unfinished > 1)
        for before, after in itertools.pairwise(sizes):
            assert after in (before, math.ceil(before / 2))
        if len(result.candidates) < 6:
            assert result.ledger.discarded > 0


def test_without_n_it_starts_as_many_as_free_memory_allows_and_says_so():
    backend = ToyBackend(toy_backend().model, {"nano-prm": rising_reward}, max_model_len=24, memory=42)
    result = asyncio.run(solve(SpeculativeRejection(first=8), Problem("p", "xy"), backend, equivalence=BY_TEXT))
    drawn = [node for node in result.trace.tree() if node.parent == 0]
    assert len(drawn) == (42 - 2) // 8  # the prompt has two tokens
    assert FROM_THE_POOL in result.notes


def test_a_backend_that_does_not_say_how_much_is_free_needs_a_number():
    with pytest.raises(ConfigError, match="memory=4096"):
        asyncio.run(solve(SpeculativeRejection(n=4), Problem("p", "xy"), toy_backend()))


def test_given_n_and_memory_there_is_nothing_to_note():
    assert all(not result.notes for result in run_many(SpeculativeRejection(n=2, memory=8), 3))


@pytest.mark.parametrize("options", [{"n": 0}, {"alpha": 0}, {"alpha": 1}, {"memory": 0}, {"first": 0}, {"most": 0}])
def test_settings_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError):
        SpeculativeRejection(**options)


@pytest.mark.parametrize(
    "spec", ["speculative-rejection:n=6,memory=6", "speculative-rejection:n=5,memory=12,alpha=0.3,agg=min"]
)
def test_it_keeps_the_laws_of_all_strategies(spec):
    check_strategy(parse_strategy(spec))
