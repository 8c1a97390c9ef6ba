"""Shared by the law tests: many seeded runs of one strategy on a toy model, and exact laws to hold them to."""

import asyncio
from collections import Counter

from scipy import stats

from ramify.backends.toy import ToyBackend, ToyModel
from ramify.scoring import KeyedBy, Problem
from ramify.strategies import solve_many

SMALL = ToyModel.random(3, texts=("", "a", "b\n"), depth=3)
"""Seven answers."""
PROMPT = "xy"
BY_TEXT = KeyedBy(lambda text, problem: text.strip() or None)


def problems(runs):
    """So many problems with the same law and independent draws."""
    return [Problem(str(i), PROMPT) for i in range(runs)]


def run_many(strategy, runs, reward=None, model=SMALL, equivalence=BY_TEXT, seed=0, **options):
    """Results of `runs` independent runs."""
    rewards = {"nano-prm": reward or (lambda tokens: 0.5)}
    backend = ToyBackend(model, rewards, max_model_len=24)
    return asyncio.run(
        solve_many(strategy, problems(runs), backend, seed=seed, equivalence=equivalence, concurrency=64, **options)
    )


def chi_square(counts, law, total):
    """p-value of observed counts under a law; outcomes expected less than five times are pooled."""
    assert set(counts) <= set(law), "an impossible outcome was seen"
    observed, expected, rest = [], [], [0, 0.0]
    for outcome, chance in law.items():
        if chance * total >= 5:
            observed.append(counts[outcome])
            expected.append(chance * total)
        else:
            rest[0] += counts[outcome]
            rest[1] += chance * total
    if rest[1] > 0:
        observed.append(rest[0])
        expected.append(rest[1])
    scale = sum(observed) / sum(expected)
    return float(stats.chisquare(observed, [value * scale for value in expected]).pvalue)


def assert_law(results, law):
    """The chosen answers follow `law` (a p-value under 0.001 would be a fault; seeds are fixed)."""
    counts = Counter(result.best.tokens for result in results)
    assert chi_square(counts, law, len(results)) > 1e-3
