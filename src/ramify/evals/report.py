"""What an evaluation found: one row a strategy and budget, as a rich table and as JSON (NaN as null)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ramify.evals.estimators import Interval, bootstrap_interval
from ramify.evals.jsonl import Record
from ramify.evals.replay import Replayed
from ramify.registry import parse_spec

NO_BUDGET = ""
MIN_STRATEGY = 22
"""Columns of the terminal that a strategy's name gets at least; longer ones fold."""
CAPTION = "accuracy (95% interval); means a problem: tokens in all, seconds"


@dataclass(frozen=True, slots=True)
class Row:
    """One strategy under one budget, over some problems. Token counts and seconds are means a problem.

    Attributes:
        strategy: its spec, e.g. ``"best-of-n:n=16"``.
        budget: as given, or empty for none.
        problems: how many.
        accuracy: share of right answers with its bootstrap interval over problems.
        tokens: total tokens, what a budget caps: generated, verifier, probe and program tokens.
        generated, verifier, probe, program: its parts.
        discarded: of the generated tokens, those on no candidate's path.
        prompt: prompt tokens, cached ones included.
        wall_s: seconds from a problem's start to its result, other problems running beside it.
    """

    strategy: str
    budget: str
    problems: int
    accuracy: Interval
    tokens: float
    generated: float
    verifier: float
    probe: float
    program: float
    discarded: float
    prompt: float
    wall_s: float


def summarise(records: Iterable[Record], seed: int = 0) -> list[Row]:
    """One row for each strategy and budget of an evaluation's records, in the order of their first record."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["strategy"], record["budget"]), []).append(record)
    return [_row(strategy, budget, group, seed) for (strategy, budget), group in groups.items()]


def table(rows: Sequence[Row], title: str = "") -> Table:
    """The rows as a table for the terminal."""
    found = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, padding=0, caption=CAPTION)
    found.add_column("strategy", overflow="fold", min_width=MIN_STRATEGY)
    if any(row.budget for row in rows):
        found.add_column("budget", justify="right")
    for name in ("accuracy", "tokens", "verifier", "discarded", "s"):
        found.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [label(row.strategy), *([row.budget] if any(r.budget for r in rows) else [])]
        cells += [accuracy_text(row.accuracy), number(row.tokens)]
        cells += [number(row.verifier + row.probe + row.program), number(row.discarded), f"{row.wall_s:.2f}"]
        found.add_row(*cells)
    return found


def replay_table(rows: Sequence[Replayed], title: str = "") -> Table:
    """A replayed pool as a table of percentages: one line a k, one column a method."""
    methods = list(dict.fromkeys(row.method for row in rows))
    by_place = {(row.method, row.k): row for row in rows}
    caption = "right answers in %, with 95% intervals"
    found = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, padding=0, caption=caption)
    found.add_column("k", justify="right")
    for method in methods:
        found.add_column(method, justify="right")
    for k in dict.fromkeys(row.k for row in rows):
        intervals = [by_place[method, k].accuracy for method in methods]
        found.add_row(str(k), *(accuracy_text(interval).replace("%", "") for interval in intervals))
    return found


def to_json(rows: Sequence[Row] | Sequence[Replayed]) -> list[dict[str, Any]]:
    """The rows as plain data, NaN as null."""
    return [_without_nan(asdict(row)) for row in rows]


def label(strategy: str) -> str:
    """A strategy's name for people: its spec, with plain sampling at temperature 0 under its own name."""
    name, options = parse_spec(strategy)
    return "greedy" if name == "sample" and float(options.get("temperature", 1)) == 0 else strategy


def percent(share: float) -> str:
    """A share as a percentage; a dash where it is undefined."""
    return "-" if math.isnan(share) else f"{share:.1%}"


def accuracy_text(accuracy: Interval) -> str:
    """A mean with its interval in percent; a dash for what is undefined."""
    interval = "-" if math.isnan(accuracy.low) else f"{100 * accuracy.low:.0f}-{100 * accuracy.high:.0f}"
    return f"{percent(accuracy.mean)} ({interval})"


def number(value: float) -> str:
    """A mean count, with thousands separators; a dash where it is undefined."""
    return "-" if math.isnan(value) else f"{value:,.0f}"


def _row(strategy: str, budget: str, records: Sequence[Record], seed: int) -> Row:
    def mean(name: str) -> float:
        return math.fsum(record["ledger"][name] for record in records) / len(records)

    return Row(
        strategy=strategy,
        budget=budget,
        problems=len(records),
        accuracy=bootstrap_interval([float(record["correct"]) for record in records], seed=seed),
        tokens=mean("total_tokens"),
        generated=mean("generated"),
        verifier=mean("verifier"),
        probe=mean("probe"),
        program=mean("program"),
        discarded=mean("discarded"),
        prompt=mean("prompt"),
        wall_s=mean("wall_s"),
    )


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
