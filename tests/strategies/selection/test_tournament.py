"""Tournaments: the fit, the pairing, and what a judge's verdicts do."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from ramify.errors import ConfigError
from ramify.scoring import RuleCheck
from ramify.strategies import BestOfN, Sample, parse_strategy
from ramify.strategies.selection.bradley_terry import Bracket, bradley_terry, ranking, swiss_pairs
from ramify.strategies.selection.judges import ModelJudge, beats, logistic
from ramify.strategies.selection.tournament import Tournament, score_tournament
from ramify.strategies.testing import check_strategy, rising_reward
from tests.strategies.laws import SMALL, run_many
from tests.strategies.selection.ballot_cases import permuted

WINS = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(st.floats(0, 3, width=16), min_size=n, max_size=n), min_size=n, max_size=n)
)
SHORT = "{first}|{second}"
"""A judge's question that the toy model's context holds."""


def loss(logs, wins, prior):
    """Minus the log-likelihood of games, with the virtual ones against a player of strength 1."""
    gaps = logs[:, None] - logs[None, :]
    virtual = prior / 2 * (np.logaddexp(0, -logs) + np.logaddexp(0, logs)).sum()
    return float((wins * np.logaddexp(0, -gaps)).sum() + virtual)


@settings(max_examples=60)
@given(WINS)
def test_the_fit_is_the_maximum_of_the_likelihood(rows):
    wins = np.array(rows)
    np.fill_diagonal(wins, 0)
    strengths = bradley_terry(wins, prior=1.0)
    best = optimize.minimize(loss, np.zeros(len(wins)), (wins, 1.0))
    assert loss(np.log(strengths), wins, 1.0) <= best.fun + 1e-6
    np.testing.assert_allclose(np.log(strengths), best.x, atol=2e-2)


@settings(max_examples=60)
@given(WINS)
def test_the_fit_is_a_fixed_point_of_minorisation_and_maximisation(rows):
    wins = np.array(rows)
    np.fill_diagonal(wins, 0)
    strengths = bradley_terry(wins, prior=0.5)
    played = ((wins + wins.T) / (strengths[:, None] + strengths[None, :])).sum(axis=1) + 0.5 / (strengths + 1)
    np.testing.assert_allclose((wins.sum(axis=1) + 0.25) / played, strengths, rtol=1e-7)


def test_the_fit_exists_where_somebody_won_everything_or_never_met():
    strengths = bradley_terry(np.array([[0, 5, 0], [0, 0, 0], [0, 0, 0]], dtype=float))
    assert np.isfinite(strengths).all()
    assert strengths[0] > strengths[2] > strengths[1]
    assert strengths[2] == pytest.approx(1)


def test_beating_the_strong_counts_for_more_than_beating_the_weak():
    wins = np.zeros((4, 4))
    wins[0, 1] = wins[1, 2] = wins[3, 2] = wins[1, 3] = 1  # 0 beat the strong 1, 3 beat the weak 2
    strengths = bradley_terry(wins)
    assert strengths[0] > strengths[3]


@settings(max_examples=60)
@given(WINS, st.randoms(use_true_random=False))
def test_numbering_the_players_otherwise_changes_nothing_but_ties(rows, random):
    wins = np.array(rows)
    order = list(range(len(wins)))
    random.shuffle(order)
    strengths, moved = bradley_terry(wins), bradley_terry(wins[np.ix_(order, order)])
    np.testing.assert_allclose(moved, strengths[order], rtol=1e-6)


def test_symmetric_results_are_ties_and_go_to_the_first_drawn():
    circle = np.zeros((3, 3))
    circle[0, 1] = circle[1, 2] = circle[2, 0] = 1
    assert ranking(bradley_terry(circle)) == [0, 1, 2]
    assert ranking(bradley_terry(np.zeros((4, 4)))) == [0, 1, 2, 3]


def test_swiss_pairs_like_with_like_and_nobody_twice():
    assert swiss_pairs([2, 0, 1, 3], set()) == [(2, 0), (1, 3)]
    assert swiss_pairs([2, 0, 1, 3], {frozenset((2, 0))}) == [(2, 1), (0, 3)]
    assert swiss_pairs([0, 1, 2], set()) == [(0, 1)]
    assert swiss_pairs([0, 1], {frozenset((0, 1))}) == []


@settings(max_examples=60)
@given(st.integers(2, 20), st.integers(1, 8))
def test_a_swiss_tournament_pairs_nobody_twice_and_costs_its_rounds(players, rounds):
    bracket = Bracket(players, limit=0, rounds=rounds)
    seen = []
    for pairs in bracket.rounds():
        assert len({player for pair in pairs for player in pair}) == 2 * len(pairs)
        for first, second in pairs:
            seen.append(frozenset((first, second)))
            bracket.record(first, second, 0.9 if first > second else 0.1)
    assert len(seen) == len(set(seen)) <= rounds * (players // 2)


def test_a_small_field_meets_completely_and_once():
    bracket = Bracket(5, limit=5)
    (pairs,) = bracket.rounds()
    assert pairs == list(itertools.combinations(range(5), 2))


def test_a_swiss_tournament_of_a_consistent_judge_finds_the_best():
    for best in range(16):
        bracket = Bracket(16, limit=0)
        for pairs in bracket.rounds():
            for first, second in pairs:
                bracket.record(first, second, 1.0 if first == best or (second != best and first < second) else 0.0)
        assert bracket.order[0] == best


@settings(max_examples=60)
@given(permuted(with_scores=True), st.sampled_from(["answers", "samples"]), st.sampled_from([0, 20]))
def test_permuting_candidates_never_changes_the_winner_except_ties(case, among, limit):
    ballots, order, scores = case
    moved, moved_scores = [ballots[i] for i in order], [scores[i] for i in order]
    winner, _ = score_tournament(ballots, scores, among=among, limit=limit)
    other, _ = score_tournament(moved, moved_scores, among=among, limit=limit)
    if limit:  # everybody met everybody: the highest score among those that can be read
        able = [i for i, b in enumerate(ballots) if b.finished] or list(range(len(ballots)))
        able = [i for i in able if ballots[i].answer is not None] or able
        best = max(scores[i] for i in able)
        assert scores[winner] == pytest.approx(best, abs=1e-7)
        assert moved_scores[other] == pytest.approx(best, abs=1e-7)


def test_by_scores_where_all_meet_it_is_best_of_n():
    scored = {"reward": rising_reward}
    best = run_many(BestOfN(n=5), 60, **scored)
    won = run_many(Tournament(n=5, among="samples"), 60, **scored)
    for one, other in zip(best, won, strict=True):
        top = {c.node.key: c.score for c in one.candidates}
        readable = [c.score for c in one.candidates if c.answer is not None and c.node.finish_reason == "stop"]
        if readable:
            assert top[other.best.key] == max(readable)


def test_a_perfect_judge_finds_the_right_answer_wherever_there_is_one():
    right = SMALL.text(max(SMALL.law(0.8), key=SMALL.law(0.8).get))
    check = RuleCheck(lambda text, problem: text == right)
    for spec in (Tournament(n=6, scorer=check), Tournament(n=6, scorer=check, limit=0, among="samples")):
        for result in run_many(spec, 60):
            assert (result.text == right) == any(c.node.text == right for c in result.candidates)


@dataclass(frozen=True)
class Scripted:
    """A judge that prefers one text, and does not answer about others."""

    favourite: str
    needs: frozenset = field(default_factory=frozenset)

    async def compare(self, first, second, problem, context):
        if self.favourite not in (first.text, second.text):
            return None
        return 1.0 if first.text == self.favourite else 0.0


def test_an_unreadable_verdict_is_no_win_for_anybody_and_is_noted():
    for result in run_many(Tournament(n=6, judge=Scripted("b\n")), 40):
        texts = {c.node.text for c in result.candidates if c.answer is not None}
        if "b\n" in texts:
            assert result.text == "b\n"
        if len(texts) > 2:
            assert any("could not be read" in note for note in result.notes)


def test_a_judge_that_never_answers_leaves_the_first_drawn():
    for result in run_many(Tournament(n=4, judge=Scripted("nothing"), among="samples"), 30):
        able = [c for c in result.candidates if c.answer is not None] or list(result.candidates)
        assert result.best.key == able[0].node.key


def asked(result):
    return [event for event in result.trace.events if type(event).__name__ == "Asked"]


def test_the_model_judges_both_orders_of_every_pair_and_the_verifiers_purse_pays():
    judge = ModelJudge(template=SHORT, letters=("a", "b\n"))
    for result in run_many(Tournament(n=4, judge=judge), 20):
        players = {c.answer for c in result.candidates if c.answer is not None}
        pairs = len(players) * (len(players) - 1) // 2
        assert len(asked(result)) == 2 * pairs
        assert all(event.purse == "verifier" for event in asked(result))
        assert result.ledger.verifier + result.ledger.probe >= 2 * pairs
        assert result.ledger.program == 0


def test_a_judge_that_favours_a_place_favours_nobody():
    # The toy model's letters have the same odds whatever it is shown, so both orders cancel: all players tie.
    judge = ModelJudge(template=SHORT, letters=("a", "b\n"))
    for result in run_many(Tournament(n=4, judge=judge), 30):
        weights = {round(c.weight, 9) for c in result.candidates if c.weight}
        assert len(weights) == 1


def test_a_verdict_from_text_is_the_first_letter_that_stands_alone():
    judge = ModelJudge("text")
    assert judge._read("B is better than A") == 0.0
    assert judge._read("Answer: A.") == 1.0
    assert judge._read("ABBA and Bob") is None


def test_pairs_that_the_context_does_not_hold_are_not_compared():
    results = run_many(Tournament(n=4, judge="letters"), 20)  # the usual question is longer than the toy's context
    for result in results:
        players = {c.answer for c in result.candidates if c.answer is not None}
        assert bool(result.notes) == (len(players) > 1)
        assert result.ledger.verifier == 0


def test_braces_in_an_answer_stay_as_they_are():
    from ramify.strategies.selection.prompts import fill

    assert fill("{first}|{second}", first="{second}", second="{x}") == "{second}|{x}"


@settings(max_examples=60)
@given(st.floats(-40, 40), st.floats(-40, 40), st.floats(0.01, 10))
def test_the_two_sides_of_a_comparison_sum_to_one(first, second, tau):
    assert beats(first, second, tau) + beats(second, first, tau) == pytest.approx(1, abs=1e-15)
    assert logistic(0.0) == 0.5


@pytest.mark.parametrize("spec", ["tournament:n=1", "tournament:n=1,judge=text"])
def test_one_answer_is_plain_samplings_answer_draw_for_draw(spec):
    sampled = [result.text for result in run_many(Sample(), 50)]
    assert [result.text for result in run_many(parse_strategy(spec), 50)] == sampled


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Tournament(n=0), "n=0"),
        (lambda: Tournament(tau=0.0), "tau=0"),
        (lambda: Tournament(prior=0.0), "prior=0"),
        (lambda: Tournament(rounds=0), "rounds=0"),
        (lambda: Tournament(limit=-1), "limit=-1"),
        (lambda: ModelJudge(template="which?"), "first"),
        (lambda: ModelJudge(letters=("A", "A")), "letters"),
        (lambda: parse_strategy("tournament:judge=coin"), "judge='coin'"),
    ],
)
def test_options_that_do_not_work_are_refused(make, named):
    with pytest.raises(ConfigError, match=named):
        make()


@pytest.mark.parametrize(
    "strategy",
    [
        parse_strategy("tournament:n=5"),
        parse_strategy("tournament:n=6,limit=2,among=samples"),
        Tournament(n=4, judge=ModelJudge(template=SHORT, letters=("a", "b\n"))),
        Tournament(n=3, judge=ModelJudge("text", SHORT, ("a", "b"))),
    ],
    ids=["scores", "swiss", "letters", "text"],
)
def test_the_laws_of_every_strategy_hold(strategy):
    check_strategy(strategy)
