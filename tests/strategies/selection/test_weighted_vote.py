"""Weighted and confidence votes: whose votes count how much, on no scale and in no order."""

import asyncio
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.backends.toy import ToyBackend
from ramify.errors import CapabilityError, ConfigError
from ramify.scoring import MeanLogprob, Problem, RuleCheck
from ramify.scoring.confidence import DeepConf, SelfCertainty, self_certainty
from ramify.strategies import Sample, SelfConsistency, parse_strategy, solve
from ramify.strategies.selection.confidence_vote import ConfidenceVote
from ramify.strategies.selection.weighted_vote import WeightedVote, weighted_vote
from ramify.strategies.testing import check_strategy
from ramify.strategies.votes import tally
from tests.strategies.laws import SMALL, run_many
from tests.strategies.selection.ballot_cases import ballot, permuted

TRANSFORMS = st.sampled_from(["none", "share", "rank", "softmax"])


@settings(max_examples=60)
@given(permuted(with_scores=True), TRANSFORMS, st.sampled_from([0.3, 0.5, 1.0]))
def test_permuting_candidates_never_changes_the_vote_except_ties(case, transform, keep):
    ballots, order, scores = case
    winner, weights = weighted_vote(ballots, scores, transform, keep=keep)
    moved = [ballots[i] for i in order]
    other, moved_weights = weighted_vote(moved, [scores[i] for i in order], transform, keep=keep)
    np.testing.assert_array_equal(moved_weights, weights[list(order)])
    totals = tally([b.answer for b in ballots], weights)
    first, second = ballots[winner].answer, moved[other].answer
    if first is not None:
        assert totals[first] == totals[second] == max(totals.values())


@settings(max_examples=60)
@given(permuted(with_scores=True), TRANSFORMS)
def test_the_winner_has_the_largest_sum_of_weights_by_brute_force(case, transform):
    ballots, _, scores = case
    winner, weights = weighted_vote(ballots, scores, transform)
    sums = Counter()
    for one, weight in zip(ballots, weights, strict=True):
        if one.answer is not None:
            sums[one.answer] += weight
    if ballots[winner].answer is not None:
        assert sums[ballots[winner].answer] == pytest.approx(max(sums.values()))


@settings(max_examples=60)
@given(permuted(with_scores=True), st.sampled_from(["share", "rank", "softmax"]))
def test_the_unit_of_the_scores_never_changes_the_winner(case, transform):
    ballots, _, scores = case
    winner, _ = weighted_vote(ballots, scores, transform)
    scaled, _ = weighted_vote(ballots, [score * 4096 for score in scores], transform)
    assert ballots[scaled].answer == ballots[winner].answer


def test_duplicates_are_real_votes_of_independent_samples():
    same = [ballot("a"), ballot("a"), ballot("a"), ballot("b")]
    assert weighted_vote(same, [0.3, 0.3, 0.3, 0.8])[0] == 0


def test_unreadable_and_cut_answers_have_no_weight():
    winner, weights = weighted_vote(
        [ballot(None), ballot("a", finished=False), ballot("b"), ballot(None)], [0.9, 0.9, 0.1, 0.9]
    )
    assert winner == 2
    assert list(weights) == [0, 0, 0.1, 0]


def test_without_a_readable_answer_the_highest_score_is_chosen():
    assert weighted_vote([ballot(None), ballot(None)], [0.1, 0.9])[0] == 1
    assert weighted_vote([], [])[0] is None


def test_the_least_confident_share_does_not_vote():
    ballots = [ballot("a"), ballot("a"), ballot("a"), ballot("b")]
    scores = [1.0, 1.1, 1.2, 3.0]
    assert ballots[weighted_vote(ballots, scores, "share")[0]].answer == "a"
    assert ballots[weighted_vote(ballots, scores, "share", keep=0.25)[0]].answer == "b"


def test_equal_weights_are_self_consistency():
    by_count = [result.answer for result in run_many(SelfConsistency(n=7), 40)]
    constant = WeightedVote(n=7, scorer=RuleCheck(lambda text, problem: True))
    votes = run_many(constant, 40)
    counts = [Counter(c.answer for c in r.candidates if c.answer is not None) for r in votes]
    for mine, count, other in zip(votes, counts, by_count, strict=True):
        if count:
            assert count[mine.answer] == count[other] == max(count.values())


def test_a_perfect_scorer_wins_wherever_any_sample_is_right():
    right = SMALL.text(max(SMALL.law(0.8), key=SMALL.law(0.8).get))
    check = RuleCheck(lambda text, problem: text == right)
    for result in run_many(WeightedVote(n=4, scorer=check), 100):
        assert (result.text == right) == any(c.node.text == right for c in result.candidates)


@pytest.mark.parametrize(
    "spec",
    ["weighted-vote:n=1", "weighted-vote:n=1,scorer=self-certainty,transform=rank", "confidence-vote:n=1,keep=0.1"],
)
def test_one_answer_is_plain_samplings_answer_draw_for_draw(spec):
    sampled = [result.text for result in run_many(Sample(), 50)]
    assert [result.text for result in run_many(parse_strategy(spec), 50)] == sampled


def test_the_borda_count_over_self_certainty_is_the_papers():
    strategy = ConfidenceVote(n=5, scorer=SelfCertainty(), keep=1.0, transform="rank", power=0.5)
    for result in run_many(strategy, 30):
        readable = [c for c in result.candidates if c.answer is not None]
        order = sorted(readable, key=lambda c: self_certainty(c.node))
        borda = Counter()
        for place, candidate in enumerate(order, start=1):
            borda[candidate.answer] += place**0.5
        sure = {self_certainty(c.node) for c in readable}
        if len(sure) == len(readable) and readable:
            assert borda[result.answer] == pytest.approx(max(borda.values()))


def test_the_method_draws_with_what_its_scorer_reads():
    (result,) = run_many(parse_strategy("confidence-vote:n=3,top=3,window=2,measure=lowest"), 1)
    assert all(len(detail.top) == 3 for c in result.candidates for detail in c.node.details)
    assert all(c.score is not None and c.score > 0 for c in result.candidates)


def test_what_a_scorer_needs_the_backend_has_to_offer():
    class Silent(ToyBackend):
        capabilities = ToyBackend.capabilities - {"logprobs"}

    with pytest.raises(CapabilityError, match="logprobs"):
        asyncio.run(solve(parse_strategy("confidence-vote"), Problem("p", "xy"), Silent(SMALL)))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: WeightedVote(n=0), "n=0"),
        (lambda: WeightedVote(scorer=MeanLogprob()), "transform=none"),
        (lambda: WeightedVote(scorer=DeepConf()), "transform=none"),
        (lambda: WeightedVote(scorer=MeanLogprob(), transform="share"), "transform=share"),
        (lambda: WeightedVote(tau=0.0), "tau=0"),
        (lambda: WeightedVote(power=-1.0), "power=-1"),
        (lambda: ConfidenceVote(keep=0.0), "keep=0"),
        (lambda: ConfidenceVote(keep=1.5), "keep=1.5"),
        (lambda: ConfidenceVote(scorer=MeanLogprob()), "transform=share"),
    ],
)
def test_options_that_do_not_work_are_refused(make, named):
    with pytest.raises(ConfigError, match=named):
        make()


@pytest.mark.parametrize(
    "spec",
    [
        "weighted-vote:n=4,scorer=prm,agg=min",
        "confidence-vote:n=4,scorer=self-certainty,transform=rank,power=0.5",
    ],
)
def test_the_laws_of_every_strategy_hold(spec):
    check_strategy(parse_strategy(spec))
