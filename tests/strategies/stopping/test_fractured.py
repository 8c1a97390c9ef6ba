"""Fractured sampling: how many answers, what they share, and how one is chosen."""

from collections import Counter

import pytest

from ramify.errors import ConfigError
from ramify.strategies import BestOfN, SelfConsistency, StepSplitter, parse_strategy
from ramify.strategies.stopping.fractured import Fractured
from ramify.strategies.testing import check_strategy, rising_reward
from tests.strategies.laws import run_many
from tests.strategies.stopping.scripted import ASK, X, Y, run_script

EVERY_TOKEN = StepSplitter(max_tokens=1)


def fractured(**options):
    return Fractured(**{"suffix": ASK, "until": EVERY_TOKEN, **options})


def drawn(results):
    return [[candidate.node.tokens for candidate in result.candidates] for result in results]


def test_with_one_depth_it_votes_over_the_draws_of_self_consistency():
    results = run_many(Fractured(n=5, depths=1), 20)
    assert drawn(results) == drawn(run_many(SelfConsistency(n=5), 20))
    for result in results:
        votes = Counter(candidate.answer for candidate in result.candidates if candidate.answer is not None)
        assert not votes or votes[result.answer] == max(votes.values())


def test_with_one_depth_and_scores_it_is_best_of_n_draw_for_draw():
    results, plain = (
        run_many(s, 20, reward=rising_reward) for s in (Fractured(n=5, depths=1, select="score"), BestOfN(n=5))
    )
    assert drawn(results) == drawn(plain)
    assert [result.best.tokens for result in results] == [result.best.tokens for result in plain]


@pytest.mark.parametrize(("n", "m", "depths"), [(1, 1, 2), (2, 3, 4), (3, 2, 3)])
def test_there_are_m_answers_from_each_cut_and_the_chains_own(n, m, depths):
    result = run_script(fractured(n=n, m=m, depths=depths), [X, Y, X, Y, X])
    lengths = Counter(candidate.node.text for candidate in result.candidates)
    cuts = {"t" * (i + 1) + ASK + "xy"[i % 2]: n * m for i in range(depths - 1)}
    assert lengths == cuts | {"tttttx": n}


def test_where_thinking_ends_apart_each_depth_has_m_answers():
    result = run_script(fractured(n=2, m=3, depths=3, think_end="y"), [X, X, X, X], last=Y)
    assert Counter(candidate.node.text for candidate in result.candidates) == {"t?x": 6, "tt?x": 6, "tttty": 6}


def test_cuts_share_the_chain_above_them():
    result = run_script(fractured(n=1, m=2, depths=3), [X, Y, X, Y])
    chain, answers = 6, 2 * 2 * 2  # four thoughts, the answer and the end; two cuts, two answers of two tokens
    assert result.ledger.generated == chain + answers
    assert result.ledger.discarded == 0
    assert result.ledger.shared > 0


def test_the_majority_of_all_depths_wins():
    assert run_script(fractured(n=1, depths=4), [Y, Y, X, X, X], last=X).answer == "y"
    assert run_script(fractured(n=1, depths=5), [Y, Y, X, X, X], last=X).answer == "x"


def test_the_highest_score_of_all_depths_wins():
    def likes_early_cuts(tokens):
        return 1 / (1 + len(tokens))

    result = run_script(fractured(n=2, depths=4, select="score"), [Y, X, X, X, X], reward=likes_early_cuts)
    assert result.text == "t?y"
    assert max(c.score for c in result.candidates) == next(
        c.score for c in result.candidates if c.node.key == result.best.key
    )


def test_scores_of_one_answer_add_up_when_they_weigh():
    def likes_the_end(tokens):
        return 0.9 if tokens[-1] == 0 and len(tokens) > 6 else 0.4

    script = [Y, Y, Y, Y, Y]
    assert run_script(fractured(n=1, depths=4, select="score"), script, reward=likes_the_end).answer == "x"
    assert run_script(fractured(n=1, depths=4, select="weighted"), script, reward=likes_the_end).answer == "y"


def test_the_reward_model_is_needed_only_where_it_chooses():
    assert "reward" not in Fractured().requires
    assert "reward" in Fractured(select="score").requires


@pytest.mark.parametrize("options", [{"n": 0}, {"m": 0}, {"depths": 0}, {"suffix": " "}, {"answer_tokens": 0}])
def test_settings_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError):
        Fractured(**options)


def test_scores_that_may_be_negative_cannot_weigh():
    with pytest.raises(ConfigError, match="weighted"):
        parse_strategy("fractured:select=weighted,scorer=logprob")


@pytest.mark.parametrize(
    "spec",
    [
        "fractured:until=1,suffix=a,n=2,m=2,depths=3",
        "fractured:until=1,suffix=a,n=2,depths=3,select=score",
        "fractured:until=2,suffix=a,n=2,m=2,depths=2,think_end=b,select=weighted",
    ],
)
def test_it_keeps_the_laws_of_all_strategies(spec):
    check_strategy(parse_strategy(spec))
