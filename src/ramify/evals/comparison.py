"""Methods side by side at equal tokens: paired differences against a baseline, and the Pareto front.

A difference is taken problem by problem at one budget, so that what makes a problem hard for both cancels out: its
interval is that of the mean difference, by a bootstrap over problems.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ramify.errors import ConfigError
from ramify.evals.estimators import Interval, bootstrap_interval
from ramify.evals.report import (
    MIN_STRATEGY,
    NO_BUDGET,
    Row,
    accuracy_text,
    difference_text,
    groups_of,
    label,
    number,
    to_json,
    without_nan,
)
from ramify.evals.runner import Evaluation, Run
from ramify.evals.sizing import Fit

PREFERRED_BASELINE = "best-of-n"
FRONT_MARK = "*"


@dataclass(frozen=True, slots=True)
class Difference:
    """How much more often a method is right than the baseline on the same problems under the same budget.

    Attributes:
        method, baseline: their names over all budgets.
        budget: as given.
        accuracy: mean difference, with its interval.
        better, worse: problems that only the method, only the baseline got right.
        problems: problems that both have results of.
    """

    method: str
    baseline: str
    budget: str
    accuracy: Interval
    better: int
    worse: int
    problems: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """An evaluation, compared.

    Attributes:
        rows: one a method and budget.
        baseline: the method that the others are compared with; None where there is no budget or nothing to compare.
        differences: one for each other method and budget.
        front: for each row, whether none is at least as accurate for fewer tokens, or more accurate for as many.
        fits: the sizes that were fitted.
    """

    rows: list[Row]
    baseline: str | None
    differences: list[Difference]
    front: list[bool]
    fits: list[Fit]

    def difference(self, row: Row) -> Difference | None:
        """The difference of a row's method at its budget."""
        named = (one for one in self.differences if (one.method, one.budget) == (row.method, row.budget))
        return next(named, None)


def compare(found: Evaluation, baseline: str | None = None, seed: int = 0) -> Comparison:
    """Compare what an evaluation found.

    Args:
        found: the evaluation.
        baseline: a method of it; by default best-of-n if it is there, else the first. Without a budget nothing is at
            equal tokens, and differences are given only for a baseline that was asked for.
        seed: of the intervals.

    Raises:
        ConfigError: the evaluation has no method of that name.
    """
    methods = list(dict.fromkeys(run.method for run in found.runs))
    budgeted = any(run.budget != NO_BUDGET for run in found.runs)
    chosen = choose_baseline(methods, baseline) if baseline is not None or (budgeted and len(methods) > 1) else None
    measured = differences(found.runs, chosen, found.groups, seed) if chosen is not None else []
    return Comparison(found.rows, chosen, measured, pareto_front(found.rows), found.fits)


def choose_baseline(methods: Sequence[str], wanted: str | None = None) -> str:
    """The method that was asked for, else best-of-n, else the first.

    Raises:
        ConfigError: there is none of the name asked for.
    """
    if wanted is not None:
        named = [method for method in methods if wanted in (method, label(method))]
        if not named:
            raise ConfigError(f"the baseline {wanted!r} is not evaluated: choose from {', '.join(methods)}")
        return named[0]
    usual = [method for method in methods if method.partition(":")[0] == PREFERRED_BASELINE]
    return min(usual, key=len) if usual else methods[0]


def differences(
    runs: Sequence[Run], baseline: str, contents: Mapping[str, Hashable] | None = None, seed: int = 0
) -> list[Difference]:
    """The paired difference of every other method at every budget that the baseline was run under."""
    bases = {run.budget: run for run in runs if run.method == baseline}
    pairs = [(run, bases[run.budget]) for run in runs if run.method != baseline and run.budget in bases]
    return [difference(run, base, contents, seed) for run, base in pairs]


def difference(run: Run, base: Run, contents: Mapping[str, Hashable] | None = None, seed: int = 0) -> Difference:
    """The paired difference of two runs over the problems that both have."""
    right = {record["problem"]: bool(record["correct"]) for record in base.records}
    records = [record for record in run.records if record["problem"] in right]
    steps = [int(record["correct"]) - right[record["problem"]] for record in records]
    accuracy = bootstrap_interval([float(step) for step in steps], seed=seed, groups=groups_of(records, contents))
    return Difference(run.method, base.method, run.budget, accuracy, steps.count(1), steps.count(-1), len(steps))


def pareto_front(rows: Sequence[Row]) -> list[bool]:
    """For each row, whether no other has at least its accuracy for at most its tokens, and is better in one of them."""

    def beats(other: Row, row: Row) -> bool:
        no_worse = other.accuracy.mean >= row.accuracy.mean and other.tokens <= row.tokens
        return no_worse and (other.accuracy.mean > row.accuracy.mean or other.tokens < row.tokens)

    return [not any(beats(other, row) for other in rows) for row in rows]


def comparison_json(compared: Comparison) -> dict[str, Any]:
    """Rows with their differences and their place on the front, and the fitted sizes, as plain data without times."""
    rows = to_json(compared.rows)
    for data, row, on_front in zip(rows, compared.rows, compared.front, strict=True):
        measured = compared.difference(row)
        data["difference"] = None if measured is None else without_nan(asdict(measured))
        data["pareto"] = on_front
    return {"baseline": compared.baseline, "rows": rows, "fits": [asdict(fitted) for fitted in compared.fits]}


def comparison_table(compared: Comparison, title: str = "") -> Table:
    """The rows with their differences as a table for the terminal; a star marks the Pareto front."""
    caption = f"95% intervals; tokens and seconds are means a problem; {FRONT_MARK} is the Pareto front"
    found = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, padding=0, caption=caption)
    found.add_column("strategy", overflow="fold", min_width=MIN_STRATEGY)
    for name in ("budget", "accuracy", "tokens", f"vs {compared.baseline}", "s", ""):
        found.add_column(name, justify="right", no_wrap=not name.startswith("vs"))
    for row, on_front in zip(compared.rows, compared.front, strict=True):
        measured = compared.difference(row)
        shown = "" if measured is None else difference_text(measured.accuracy)
        cells = [label(row.strategy), row.budget, accuracy_text(row.accuracy), number(row.tokens), shown]
        found.add_row(*cells, f"{row.wall_s:.2f}", FRONT_MARK if on_front else "")
    return found
