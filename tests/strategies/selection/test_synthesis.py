"""Synthesis: what is shown, what counts, and what happens when the fused answer is no answer."""

import pytest

from ramify.errors import ConfigError
from ramify.scoring import KeyedBy, MeanLogprob, RuleCheck
from ramify.strategies import Budget, Sample, parse_strategy
from ramify.strategies.selection.self_consistency import SelfConsistency
from ramify.strategies.selection.synthesis import Synthesis
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import run_many

NOTHING = KeyedBy(lambda text, problem: None)


def short(**options):
    """With a prompt that the toy model's context holds."""
    return Synthesis(template="{answers}", item="{answer}", **{"n": 3, **options})


def own(result):
    """Candidates of the problem's tree and fused ones."""
    root = next(c.node for c in result.candidates)
    meter = root.usage
    return [c for c in result.candidates if c.node.usage is meter], [
        c for c in result.candidates if c.node.usage is not meter
    ]


def crowd(result):
    return len({c.node.text.strip() for c in own(result)[0]}) > 1


def test_the_fused_answers_are_candidates_and_the_programs_purse_pays_for_them():
    seen = 0
    for result in run_many(short(m=2), 40):
        drawn, fused = own(result)
        assert len(drawn) == 3
        assert len(fused) in (0, 2)
        assert result.ledger.program == sum(c.node.num_tokens for c in fused)
        assert result.ledger.generated == sum(c.node.num_tokens for c in drawn)
        seen += len(fused)
    assert seen > 20


def test_a_fused_answer_that_can_be_read_is_the_final_one():
    for result in run_many(short(final="first"), 60):
        drawn, fused = own(result)
        good = [c for c in fused if c.answer is not None and c.node.finish_reason == "stop"]
        assert result.best.key in {c.node.key for c in (good or drawn)}


def test_unreadable_fused_answers_fall_back_to_the_vote_of_the_candidates():
    voted = run_many(SelfConsistency(n=3), 40, equivalence=NOTHING)
    for result, vote in zip(run_many(short(m=2), 40, equivalence=NOTHING), voted, strict=True):
        assert result.best.tokens == vote.best.tokens
        if own(result)[1]:
            assert any("does not count" in note for note in result.notes)


def test_a_cut_fused_answer_does_not_count():
    strategy = parse_strategy("synthesis:n=3,max_tokens=1,template={answers},item={answer}")
    for result in run_many(strategy, 30):
        _, fused = own(result)
        assert all(c.node.finish_reason == "length" or not c.node.text for c in fused)
        assert result.best.key not in {c.node.key for c in fused if c.node.finish_reason == "length"}


def test_one_candidate_or_equal_ones_leave_nothing_to_fuse():
    for result in run_many(short(), 60):
        assert bool(own(result)[1]) == crowd(result)
    sampled = [result.text for result in run_many(Sample(), 50)]
    assert [result.text for result in run_many(short(n=1), 50)] == sampled


def test_candidates_that_the_context_does_not_hold_are_left_out_and_noted():
    long = Synthesis(n=6, template="{answers}" + "." * 8, item="{answer}")
    tight = [r for r in run_many(long, 60) if any("the context holds only" in note for note in r.notes)]
    assert tight
    huge = run_many(Synthesis(n=4), 20)  # the usual prompt is longer than the toy's context
    assert all(not own(result)[1] for result in huge)
    assert all(result.ledger.program == 0 for result in huge)


def test_the_best_scored_answer_of_all_wins_by_score():
    favourite = RuleCheck(lambda text, problem: text.startswith("b"))
    for result in run_many(short(final="score", among="all", scorer=favourite, m=2), 60):
        fused_good = [c for c in own(result)[1] if c.answer is not None and c.node.finish_reason == "stop"]
        if fused_good and any(c.node.text.startswith("b") for c in [*own(result)[0], *fused_good]):
            assert result.text.startswith("b")


def test_a_fused_answer_is_scored_behind_the_problems_own_prompt():
    lengths = set()

    def reward(tokens):
        lengths.add(len(tokens))
        return 0.5

    results = run_many(short(final="score", m=1), 20, reward=reward)
    assert max(lengths) <= 4
    assert any(result.ledger.verifier > 0 for result in results)


def test_a_budget_that_ends_before_the_fusion_leaves_the_candidates_vote():
    for result in run_many(short(n=4, m=3), 30, budget=Budget(tokens=10)):
        assert result.ledger.total_tokens <= 10
        assert result.candidates


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Synthesis(n=0), "n=0"),
        (lambda: Synthesis(m=0), "m=0"),
        (lambda: Synthesis(template="write"), "answers"),
        (lambda: Synthesis(item="an attempt"), "answer"),
        (lambda: Synthesis(final="score", scorer=MeanLogprob()), "final=score"),
    ],
)
def test_options_that_do_not_work_are_refused(make, named):
    with pytest.raises(ConfigError, match=named):
        make()


def test_a_reward_is_needed_only_where_it_is_used():
    assert not Synthesis().requires
    assert "reward" in Synthesis(final="score").requires


@pytest.mark.parametrize(
    "strategy", [short(n=4, m=2, among="all"), short(m=2, final="score"), Synthesis(n=3)], ids=["vote", "score", "long"]
)
def test_the_laws_of_every_strategy_hold(strategy):
    check_strategy(strategy)
