"""Allocations beside the best single setting, on problems that nothing was fitted to or chosen by."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ramify.evals.advice import groups_of, mean_tokens, outcomes_of, right_answers, stored
from ramify.evals.estimators import Interval, bootstrap_interval
from ramify.evals.pools import Pool
from ramify.evals.report import without_nan
from ramify.planning.osca import allocate, best_single, pass_at
from ramify.planning.per_prompt import Gain, spend
from ramify.randomness import FloatArray
from ramify.scoring.problem import Problem

ORDERS = 10
"""Orders of the samples that a replayed allocation is averaged over."""


def compare_osca(
    train: Sequence[Pool], validation: Sequence[Pool], test: Sequence[Pool], budgets: Sequence[float],
    problems: Sequence[Problem], seed: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """OSCA and the best single setting at each budget, as plain data: counts, and the share of test problems solved.

    Args:
        train: one pool a setting; they also say what a sample of the setting costs.
        validation: the same settings on problems that restarts are chosen by.
        test: the same settings on problems that both are judged on, without bias.
        budgets: tokens a problem.
        problems: those of the test pools.
        seed: of the restarts and intervals.
    """
    costs = [mean_tokens(pool) for pool in train]
    fitted, chosen, judged = outcomes_of(train), outcomes_of(validation), outcomes_of(test)
    groups = groups_of(problems)
    rows = []
    for budget in budgets:
        mixed = allocate(fitted, costs, budget, chosen, seed=seed)
        single = best_single(fitted, costs, budget)
        by_mix, by_single = pass_at(judged, mixed.counts), pass_at(judged, single.counts)
        intervals = {
            "solved": bootstrap_interval(by_mix, seed=seed, groups=groups),
            "single_solved": bootstrap_interval(by_single, seed=seed, groups=groups),
            "difference": bootstrap_interval(by_mix - by_single, seed=seed, groups=groups),
        }
        row = {
            "budget": float(budget), "counts": list(mixed.counts), "cost": mixed.cost, "expected": mixed.expected,
            "validated": mixed.validated, "single": list(single.counts), "single_cost": single.cost,
        }  # fmt: skip
        rows.append(without_nan({**row, **{name: asdict(interval) for name, interval in intervals.items()}}))
    return rows


def replay_shared(pool: Pool, rule: Gain, budget: int, checked: bool, orders: int = ORDERS) -> tuple[FloatArray, float]:
    """A budget over all problems of a pool: how often each is answered rightly, [problems], and tokens a problem.

    Args:
        pool: where the samples are.
        rule: what another sample is worth.
        budget: tokens of all problems together.
        checked: whether the rule may know which samples are right; else the most frequent answer counts.
        orders: of the samples, that it is averaged over.
    """
    right = right_answers(pool)
    found = np.zeros((orders, len(right)))
    tokens = []
    for order in range(orders):
        spent = asyncio.run(spend(stored(pool, checked, order), rule, budget))
        found[order] = [progress.answer in keys for progress, keys in zip(spent.progress, right, strict=True)]
        tokens.append(spent.tokens / len(right))
    return found.mean(axis=0), float(np.mean(tokens))


def paired(first: FloatArray, second: FloatArray, problems: Sequence[Problem], seed: int = 0) -> Interval:
    """The mean difference over problems with its interval."""
    return bootstrap_interval(first - second, seed=seed, groups=groups_of(problems))
