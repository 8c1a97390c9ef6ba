"""First finish and short-m: who is first is told by tokens and launch order, never by the machine."""

import math
from collections import Counter

import pytest
from scipy import stats

from ramify.backends.toy import ToyModel
from ramify.errors import ConfigError
from ramify.scoring import KeyedBy
from ramify.strategies import Budget, parse_strategy
from ramify.strategies.kernel.trace import Dropped
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import SMALL, assert_law, run_many

RUNS = 50
WARM = SMALL.law(temperature=0.8)
MARKED = ToyModel((".", "a", "b\n"), SMALL.table)
"""The same law; the end is visible, so that every finished answer can be read."""
ONLY_B = KeyedBy(lambda text, problem: "b" if text.startswith("b") else None)


def finishing_order(result):
    """All finished candidates of a race in which nobody was dropped."""
    return sorted(result.candidates, key=lambda candidate: candidate.node.num_tokens)


@pytest.mark.parametrize("stride", [1, 2, 16])
def test_the_first_to_finish_is_the_one_with_the_fewest_tokens_then_the_first_launched(stride):
    everyone = run_many(parse_strategy(f"short-m:k=5,m=5,stride={stride}"), RUNS, model=MARKED)
    first = run_many(parse_strategy(f"first-finish:n=5,stride={stride}"), RUNS, model=MARKED)
    for whole, result in zip(everyone, first, strict=True):
        assert result.best.key == finishing_order(whole)[0].node.key
        assert len(result.candidates) == 1


@pytest.mark.parametrize("m", [1, 2, 3])
def test_short_m_votes_among_the_first_m_and_ties_go_to_the_shortest(m):
    everyone = run_many(parse_strategy("short-m:k=6,m=6,stride=2"), RUNS, model=MARKED)
    early = run_many(parse_strategy(f"short-m:k=6,m={m},stride=2"), RUNS, model=MARKED)
    for whole, result in zip(everyone, early, strict=True):
        voters = finishing_order(whole)[:m]
        counts = Counter(voter.answer for voter in voters)
        most = max(counts.values())
        expected = next(voter for voter in voters if counts[voter.answer] == most)
        assert result.best.key == expected.node.key
        assert {c.node.key for c in result.candidates} == {voter.node.key for voter in voters}


def test_short_one_is_first_finish():
    first = run_many(parse_strategy("first-finish:n=6,stride=2"), RUNS)
    short = run_many(parse_strategy("short-m:k=6,m=1,stride=2"), RUNS)
    assert [(r.best.key, r.ledger.generated) for r in first] == [(r.best.key, r.ledger.generated) for r in short]


def test_the_winners_length_has_the_law_of_the_least_of_n_lengths():
    n = 3
    lengths = Counter()
    for tokens, chance in WARM.items():
        lengths[len(tokens)] += chance
    results = run_many(parse_strategy(f"first-finish:n={n},stride=1"), 4 * RUNS, model=MARKED)
    found = Counter(result.best.num_tokens for result in results)
    for length in lengths:
        longer = sum(chance for other, chance in lengths.items() if other > length)
        law = (longer + lengths[length]) ** n - longer**n
        assert stats.binomtest(found[length], 4 * RUNS, min(1.0, law)).pvalue > 1e-3


@pytest.mark.parametrize("spec", ["first-finish:n=1", "first-finish:n=1,stride=1", "short-m:k=1,m=1,stride=1"])
def test_a_race_of_one_follows_the_models_law(spec):
    assert_law(run_many(parse_strategy(spec), 200), WARM)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_losers_are_dropped_and_run_at_most_a_stride_past_the_line(stride):
    dropped_any = False
    everyone = run_many(parse_strategy(f"short-m:k=5,m=5,stride={stride}"), RUNS, model=MARKED)
    first = run_many(parse_strategy(f"first-finish:n=5,stride={stride}"), RUNS, model=MARKED)
    for result, whole in zip(first, everyone, strict=True):
        dropped = [number for event in result.trace.events if isinstance(event, Dropped) for number in event.nodes]
        line = math.ceil(result.best.num_tokens / stride) * stride
        assert result.ledger.generated <= 5 * line
        assert result.ledger.discarded == result.ledger.generated - result.best.num_tokens
        assert (result.ledger.generated < whole.ledger.generated) == bool(dropped)
        dropped_any |= bool(dropped)
    assert dropped_any


@pytest.mark.parametrize("spec", ["first-finish:n=5,stride=1", "short-m:k=5,m=2,stride=1"])
def test_an_answer_that_cannot_be_read_does_not_win_while_another_may(spec):
    for result in run_many(parse_strategy(spec), RUNS, equivalence=ONLY_B):
        unread = [candidate for candidate in result.candidates if candidate.answer is None]
        if result.answer is None:
            assert len(unread) == 5
            assert result.best.num_tokens == min(candidate.node.num_tokens for candidate in unread)
        else:
            assert result.answer == "b"


def test_a_cut_answer_does_not_win_a_race_and_stands_where_none_finishes():
    for result in run_many(parse_strategy("first-finish:n=4,stride=1,max_tokens=2"), RUNS, model=MARKED):
        reasons = {candidate.node.finish_reason for candidate in result.candidates}
        if "stop" in reasons:
            assert result.best.finish_reason == "stop"
        else:
            readable = [c.node.key for c in result.candidates if c.answer is not None]
            assert len(result.candidates) == 4
            assert result.best.key == [*readable, result.candidates[0].node.key][0]


def test_short_m_votes_over_those_that_finished_when_fewer_than_m_do():
    for result in run_many(parse_strategy("short-m:k=5,m=4,stride=1,max_tokens=2"), RUNS, model=MARKED):
        finished = [c for c in finishing_order(result) if c.node.finish_reason == "stop"]
        if finished:
            top = Counter(candidate.answer for candidate in finished).most_common(1)[0][1]
            assert Counter(candidate.answer for candidate in finished)[result.answer] == top


def test_candidates_are_listed_in_launch_order():
    whole = run_many(parse_strategy("short-m:k=6,m=6,stride=16"), 40, model=MARKED)
    for everyone, result in zip(
        whole, run_many(parse_strategy("short-m:k=6,m=4,stride=16"), 40, model=MARKED), strict=True
    ):
        launched = [candidate.node.key for candidate in everyone.candidates]
        tree = everyone.trace.tree()
        assert [node.text for node in tree[1:]] == [candidate.node.text for candidate in everyone.candidates]
        places = [launched.index(candidate.node.key) for candidate in result.candidates]
        assert places == sorted(places)
        assert len(places) == 4


@pytest.mark.parametrize("tokens", [1, 3, 6, 11])
def test_a_race_that_the_budget_ends_still_has_an_answer_among_what_it_drew(tokens):
    for result in run_many(parse_strategy("short-m:k=4,m=3,stride=1"), 20, budget=Budget(tokens=tokens)):
        assert result.ledger.total_tokens <= tokens
        assert result.candidates
        assert result.best.key in {candidate.node.key for candidate in result.candidates}


@pytest.mark.parametrize(
    "spec",
    [
        "first-finish:n=5,stride=2",
        "first-finish",
        "short-m:k=4,m=4",
    ],
)
def test_races_keep_the_laws(spec):
    check_strategy(parse_strategy(spec))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("first-finish:n=0", "n=0"),
        ("first-finish:stride=0", "stride=0"),
        ("short-m:k=0", "n=0"),
        ("short-m:m=0", "m=0"),
        ("short-m:k=2,m=3", "k=2"),
        ("short-m:stride=0", "stride=0"),
    ],
)
def test_options_that_do_not_work_are_refused(spec, said):
    with pytest.raises(ConfigError, match=said):
        parse_strategy(spec)
