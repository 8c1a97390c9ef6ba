"""Adaptive consistency: the vote of the first answers, as many as an independent count of them takes."""

import asyncio
from collections import Counter

import pytest
from scipy import special

from ramify.backends.toy import ToyBackend
from ramify.errors import ConfigError
from ramify.scoring import KeyedBy
from ramify.strategies import Sample, SelfConsistency, parse_strategy, solve
from ramify.strategies.kernel.trace import Dropped
from ramify.strategies.stopping.adaptive_consistency import FAVOURS_SHORT
from ramify.strategies.testing import check_strategy
from ramify.strategies.votes import vote
from tests.strategies.laws import BY_TEXT, PROMPT, SMALL, problems, run_many

RUNS = 40


def stopping_point(answers, tau):
    """How many of the answers it takes, counted independently."""
    for n in range(1, len(answers) + 1):
        counts = [count for _, count in Counter(a for a in answers[:n] if a is not None).most_common(2)]
        first, second = [*counts, 0, 0][:2]
        if first and 1 - special.betainc(first + 1, second + 1, 0.5) >= tau:
            return n, True
    return len(answers), False


def keys(result):
    return [candidate.node.key for candidate in result.candidates]


@pytest.mark.parametrize("spec", ["", ",window=12", ",window=3"])
def test_it_is_the_rule_applied_to_self_consistencys_answers_in_launch_order(spec):
    tau = 0.87
    full = run_many(SelfConsistency(n=12), RUNS)
    early = run_many(parse_strategy(f"adaptive-consistency:n=12,tau={tau}{spec}"), RUNS)
    lengths = set()
    for whole, part in zip(full, early, strict=True):
        expected, certain = stopping_point([c.answer for c in whole.candidates], tau)
        seen = whole.candidates[:expected]
        assert keys(part) == keys(whole)[:expected]
        assert part.stop_reason == ("certain" if certain else "finished")
        winner = vote([c.answer for c in seen], merits=[c.node.cum_logprob / c.node.num_tokens for c in seen])
        assert part.best.key == seen[winner or 0].node.key
        lengths.add(expected)
    assert len(lengths) > 3


def test_one_answer_is_plain_samplings():
    assert [r.text for r in run_many(parse_strategy("adaptive-consistency:n=1"), 40)] == [
        r.text for r in run_many(Sample(), 40)
    ]


def test_without_a_window_nothing_is_drawn_in_vain():
    for result in run_many(parse_strategy("adaptive-consistency:n=12,tau=0.9"), RUNS):
        assert result.ledger.generated == sum(c.node.num_tokens for c in result.candidates)
        assert result.ledger.discarded == 0
        if len(result.candidates) < 12:
            mean = result.ledger.generated / len(result.candidates)
            assert result.ledger.saved == pytest.approx((12 - len(result.candidates)) * mean, abs=1)


def test_with_a_window_what_runs_is_cancelled_and_shows_as_saved():
    backend = ToyBackend(SMALL, pace=lambda key: 1 + key.low % 9)
    strategy = parse_strategy("adaptive-consistency:n=12,tau=0.8,window=12")
    results = [asyncio.run(solve(strategy, problem, backend, equivalence=BY_TEXT)) for problem in problems(10)]
    assert backend.cancelled > 0
    assert not backend.live
    assert any(result.ledger.saved > 0 for result in results)
    for result in results:
        lengths = [candidate.node.num_tokens for candidate in result.candidates]
        spared = (12 - len(lengths)) * sum(lengths) / len(lengths)
        assert result.ledger.saved == max(0, round(spared) - (result.ledger.generated - sum(lengths)))


def test_all_answers_at_once_or_a_few_the_result_is_the_same():
    def signature(result):
        return keys(result), result.best.key, result.stop_reason

    specs = ["adaptive-consistency:n=12", "adaptive-consistency:n=12,window=5", "adaptive-consistency:n=12,window=12"]
    found = [[signature(result) for result in run_many(parse_strategy(spec), RUNS)] for spec in specs]
    assert found[0] == found[1] == found[2]


def test_token_counts_without_a_window_do_not_depend_on_timing():
    strategy, counts = parse_strategy("adaptive-consistency:n=9,tau=0.9"), set()
    for salt in range(4):
        backend = ToyBackend(SMALL, pace=lambda key, salt=salt: 1 + (key.low >> 8 * salt) % 7, batch_size=1 + 2 * salt)
        ledger = asyncio.run(solve(strategy, problems(1)[0], backend, equivalence=BY_TEXT)).ledger
        counts.add((ledger.generated, ledger.discarded, ledger.saved, ledger.prompt))
    assert len(counts) == 1


def test_an_answer_that_cannot_be_read_does_not_count():
    only_b = KeyedBy(lambda text, problem: "b" if text.startswith("b") else None)
    for result in run_many(parse_strategy("adaptive-consistency:n=10,tau=0.9"), RUNS, equivalence=only_b):
        answers = [candidate.answer for candidate in result.candidates]
        assert answers.count("b") == 3 or len(answers) == 10  # 1 - 0.5^4 >= 0.9
        assert result.answer == ("b" if "b" in answers else None)


def test_counting_them_as_they_finish_favours_short_ones_and_says_so():
    means = {}
    for order in ("launch", "finish"):
        strategy = parse_strategy(f"adaptive-consistency:n=12,tau=0.8,order={order},stride=1")
        results = run_many(strategy, RUNS)
        assert all(result.notes == ((FAVOURS_SHORT,) if order == "finish" else ()) for result in results)
        lengths = [c.node.num_tokens for r in results if r.stop_reason == "certain" for c in r.candidates]
        means[order] = sum(lengths) / len(lengths)
    assert means["finish"] < means["launch"] - 0.1


def test_in_finish_order_the_rest_is_dropped_and_the_seen_are_the_shortest():
    for result in run_many(parse_strategy("adaptive-consistency:n=12,tau=0.8,order=finish,stride=1"), RUNS):
        lengths = [candidate.node.num_tokens for candidate in result.candidates]
        dropped = [number for event in result.trace.events if isinstance(event, Dropped) for number in event.nodes]
        depth = {node.id: node for node in result.trace.tree()}
        assert all(depth[number].status == "dropped" for number in dropped)
        assert len(lengths) + len(dropped) <= 12
        assert len(dropped) == 0 or result.stop_reason == "certain"
        _, certain = stopping_point(in_finish_order(result), 0.8)
        assert certain == (result.stop_reason == "certain")


def in_finish_order(result):
    """Candidates are listed by launch: the shortest first, equals as launched, is how they came in."""
    ordered = sorted(result.candidates, key=lambda candidate: candidate.node.num_tokens)
    return [candidate.answer for candidate in ordered]


@pytest.mark.parametrize(
    "spec",
    [
        "adaptive-consistency:n=8,tau=0.8,order=finish,stride=1",
        "adaptive-consistency:n=8,tau=0.6,rule=share",
        "adaptive-consistency:n=6,tau=0.7,rule=dirichlet,max_tokens=3",
    ],
)
def test_it_keeps_the_laws(spec):
    check_strategy(parse_strategy(spec))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("n=0", "n=0"),
        ("tau=1.5", "tau=1.5"),
        ("tau=0", "tau=0"),
        ("window=-1", "window=-1"),
        ("stride=0", "stride=0"),
        ("order=finish,window=2", "order=finish"),
        ("order=end", "launch, finish"),
        ("rule=median", "stop rule"),
    ],
)
def test_options_that_do_not_work_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        parse_strategy(f"adaptive-consistency:{options}")


def test_the_prompt_is_run_once_for_all_waves():
    for result in run_many(parse_strategy("adaptive-consistency:n=12"), 10):
        assert result.ledger.prompt - result.ledger.prompt_cached == len(PROMPT)
