"""Saturation: it stops where an independent estimate of the curve has flattened."""

from collections import Counter

import pytest

from ramify.errors import ConfigError
from ramify.strategies import Sample, SelfConsistency, parse_strategy
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import run_many

RUNS = 40


def stopping_point(answers, epsilon, ceiling):
    """The first N with F(N + 1) - F(N) < epsilon, the curve at the estimate of that moment."""
    for n in range(1, len(answers) + 1):
        top = max(Counter(a for a in answers[:n] if a is not None).values(), default=0)
        fails = 1 - (top + 1) / (n + 2)
        if ceiling * (1 - fails ** (n + 1)) - ceiling * (1 - fails**n) < epsilon:
            return n
    return len(answers)


@pytest.mark.parametrize(("epsilon", "ceiling"), [(0.01, 1.0), (0.03, 1.0), (0.03, 0.5)])
@pytest.mark.parametrize("window", [0, 12])
def test_it_is_the_rule_applied_to_self_consistencys_answers_in_launch_order(epsilon, ceiling, window):
    full = run_many(SelfConsistency(n=12), RUNS)
    spec = f"saturation:n=12,epsilon={epsilon},ceiling={ceiling},window={window}"
    lengths = set()
    for whole, part in zip(full, run_many(parse_strategy(spec), RUNS), strict=True):
        expected = stopping_point([c.answer for c in whole.candidates], epsilon, ceiling)
        assert [c.node.key for c in part.candidates] == [c.node.key for c in whole.candidates[:expected]]
        lengths.add(expected)
    assert len(lengths) >= 3


def test_the_better_they_agree_the_fewer_are_drawn():
    by_agreement = {True: [], False: []}
    for result in run_many(parse_strategy("saturation:n=20"), RUNS):
        answers = [candidate.answer for candidate in result.candidates]
        by_agreement[answers[0] is not None and answers[0] == answers[1]].append(len(answers))
    means = {agree: sum(counts) / len(counts) for agree, counts in by_agreement.items()}
    assert means[True] < means[False]


def test_one_answer_is_plain_samplings():
    sampled = [result.text for result in run_many(Sample(), 40)]
    assert [result.text for result in run_many(parse_strategy("saturation:n=1"), 40)] == sampled


@pytest.mark.parametrize("spec", ["saturation:n=8,epsilon=0.05,window=4"])
def test_it_keeps_the_laws(spec):
    check_strategy(parse_strategy(spec))


@pytest.mark.parametrize("options", ["n=0", "epsilon=0", "epsilon=1", "ceiling=0", "ceiling=1.5", "window=-1"])
def test_options_that_do_not_work_are_refused(options):
    with pytest.raises(ConfigError, match=options.partition("=")[0]):
        parse_strategy(f"saturation:{options}")
