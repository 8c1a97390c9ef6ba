"""What an evaluation found: one row a strategy and budget, as a rich table and as JSON (NaN as null).

The JSON rows hold what is a function of task, model, seed and spec; times, which are not, stand in `timings`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ramify import registry
from ramify.evals.estimators import Interval, bootstrap_interval
from ramify.evals.jsonl import Record
from ramify.evals.replay import Replayed
from ramify.evals.sizing import SIZES, size_name
from ramify.registry import parse_spec

NO_BUDGET = ""
GREEDY = "greedy"
MIN_STRATEGY = 22
"""Columns of the terminal that a strategy's name gets at least; longer ones fold."""
CAPTION = "accuracy (95% interval); means a problem: tokens in all, seconds"
TOKENS_CAPTION = "mean tokens a problem; discarded are part of generated, saved ones were never drawn"


@dataclass(frozen=True, slots=True)
class Row:
    """One method under one budget, over some problems. Token counts and seconds are means a problem.

    Attributes:
        method: its spec without its size where that was fitted to the budget; what is one line of a plot.
        strategy: its spec with its size, e.g. ``"best-of-n:n=16"``.
        budget: as given, or empty for none.
        problems: how many.
        distinct: of these, with different content; the interval is over these.
        accuracy: share of right answers with its bootstrap interval over problems.
        tokens: total tokens, what a budget caps: generated, verifier, probe and program tokens.
        generated, verifier, probe, program: its parts.
        discarded: of the generated tokens, those on no candidate's path.
        saved: tokens that stopping early spared (an estimate, see `Ledger.saved`).
        shared: tokens that candidates share through forks instead of drawing them again.
        prompt: prompt tokens, cached ones included.
        cut: share of the problems on which the budget refused or cut a branch.
        notes: what the method remarked, each once.
        wall_s: seconds from a problem's start to its result, other problems running beside it.
    """

    method: str
    strategy: str
    budget: str
    problems: int
    distinct: int
    accuracy: Interval
    tokens: float
    generated: float
    verifier: float
    probe: float
    program: float
    discarded: float
    saved: float
    shared: float
    prompt: float
    cut: float
    notes: tuple[str, ...]
    wall_s: float


def summarise(records: Iterable[Record], seed: int = 0, contents: Mapping[str, Hashable] | None = None) -> list[Row]:
    """One row for each strategy and budget of an evaluation's records, in the order of their first record.

    Args:
        records: as a journal holds them.
        seed: of the intervals.
        contents: problem id -> content; problems of equal content count as one in an interval.
    """
    found: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        found.setdefault((record["strategy"], record["budget"]), []).append(record)
    return [row_of(strategy, strategy, budget, group, contents, seed) for (strategy, budget), group in found.items()]


def row_of(
    method: str, strategy: str, budget: str, records: Sequence[Record],
    contents: Mapping[str, Hashable] | None = None, seed: int = 0,
) -> Row:  # fmt: skip
    """The row of some records, at least one; see `summarise`."""

    def spent(name: str) -> float:
        return mean(record["ledger"].get(name, 0) for record in records)

    groups = groups_of(records, contents)
    return Row(
        method=method,
        strategy=strategy,
        budget=budget,
        problems=len(records),
        distinct=len(set(groups)),
        accuracy=bootstrap_interval([float(record["correct"]) for record in records], seed=seed, groups=groups),
        tokens=spent("total_tokens"),
        generated=spent("generated"),
        verifier=spent("verifier"),
        probe=spent("probe"),
        program=spent("program"),
        discarded=spent("discarded"),
        saved=spent("saved"),
        shared=spent("shared"),
        prompt=spent("prompt"),
        cut=mean(record.get("stop_reason") == "budget" for record in records),
        notes=tuple(dict.fromkeys(note for record in records for note in record.get("notes", ()))),
        wall_s=spent("wall_s"),
    )


def groups_of(records: Sequence[Record], contents: Mapping[str, Hashable] | None) -> list[Hashable]:
    """What each record's problem asks; the problem's place among the records where that is not known."""
    known = contents or {}
    return [known.get(record["problem"], place) for place, record in enumerate(records)]


def mean(values: Iterable[float]) -> float:
    """The mean of some numbers, at least one, whatever their order."""
    listed = list(values)
    return math.fsum(listed) / len(listed)


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


def token_table(rows: Sequence[Row], title: str = "") -> Table:
    """Where the tokens of each row went, as a table for the terminal."""
    found = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, padding=0, caption=TOKENS_CAPTION)
    found.add_column("strategy", overflow="fold", min_width=MIN_STRATEGY)
    columns = ("generated", "verifier", "probe", "program", "discarded", "saved")
    for name in ("budget", *columns):
        found.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        found.add_row(label(row.strategy), row.budget, *(number(getattr(row, name)) for name in columns))
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
    """The rows as plain data without times, NaN as null."""
    return [without_nan({name: value for name, value in asdict(row).items() if name != "wall_s"}) for row in rows]


def timings(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What `to_json` leaves out, since it differs from run to run."""
    return [{"strategy": row.strategy, "budget": row.budget, "wall_s": row.wall_s} for row in rows]


def line_of(strategy: str) -> str:
    """The line of a plot that a spec belongs to: all sizes of one method are one line."""
    name, options = parse_spec(strategy)
    found = [entry.factory for entry in registry.techniques("strategy") if entry.name == name]
    size = size_name(found[0]) if found else SIZES[0]
    rest = ",".join(f"{key}={value}" for key, value in options.items() if key != size)
    return label(strategy) if label(strategy) == GREEDY else name + (f":{rest}" if rest else "")


def label(strategy: str) -> str:
    """A strategy's name for people: its spec, with plain sampling at temperature 0 under its own name."""
    name, options = parse_spec(strategy)
    return GREEDY if name == "sample" and float(options.get("temperature", 1)) == 0 else strategy


def percent(share: float) -> str:
    """A share as a percentage; a dash where it is undefined."""
    return "-" if math.isnan(share) else f"{share:.1%}"


def accuracy_text(accuracy: Interval) -> str:
    """A mean with its interval in percent; a dash for what is undefined."""
    interval = "-" if math.isnan(accuracy.low) else f"{100 * accuracy.low:.0f}-{100 * accuracy.high:.0f}"
    return f"{percent(accuracy.mean)} ({interval})"


def difference_text(difference: Interval) -> str:
    """A difference of two shares with its interval, in points; a dash for what is undefined."""
    if math.isnan(difference.mean):
        return "-"
    low, high = difference.low, difference.high
    interval = "-" if math.isnan(low) else f"{_points(low)} to {_points(high)}"
    return f"{100 * difference.mean + 0.0:+.1f} ({interval})"


def number(value: float) -> str:
    """A mean count, with thousands separators; a dash where it is undefined."""
    return "-" if math.isnan(value) else f"{value:,.0f}"


def without_nan(value: Any) -> Any:
    """Plain data with null for NaN."""
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _points(share: float) -> str:
    whole = round(100 * share)
    return f"{whole:+d}" if whole else "0"
