"""Tables and the plot: what each engine reached, and how many times the best peer's number ramify's is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lab.engines.catalog import KINDS
from benchmarks.lab.records import Records
from benchmarks.lab.tournament import COLD, MEMORY


@dataclass(frozen=True, slots=True)
class Ratio:
    """ramify beside a peer in the rounds both ran; more than 1 is better for ramify, for seconds and bytes too."""

    ours: str
    peer: str
    median: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> str:
        """The range over the rounds, if there were several."""
        return f" ({self.low:.2f}-{self.high:.2f})" if self.rounds > 1 else ""

    def __str__(self) -> str:
        return f"{self.median:.2f}{self.spread}"


def best_ratio(records: Records, workload: str, threads: int, bits: int | None = None) -> Ratio | None:
    """The better ramify by its median beside the best peer by its; with `bits`, among engines of such weights.

    Returns:
        None if one of the two sides has no number.
    """
    fewer_is_better = workload in (COLD, MEMORY)
    values = {
        name: rounds
        for name, rounds in records.values(workload, threads).items()
        if bits is None or KINDS[name].bits == bits
    }

    def best(ours: bool) -> str | None:
        medians = {
            name: statistics.median(rounds.values()) for name, rounds in values.items() if KINDS[name].ours == ours
        }
        return (min if fewer_is_better else max)(medians, key=medians.__getitem__, default=None)

    mine, theirs = best(True), best(False)
    if mine is None or theirs is None:
        return None
    common = sorted(values[mine].keys() & values[theirs].keys())
    ratios = [values[mine][number] / values[theirs][number] for number in common]
    if fewer_is_better:
        ratios = [1 / ratio for ratio in ratios]
    if not ratios:
        return None
    return Ratio(mine, theirs, statistics.median(ratios), min(ratios), max(ratios), len(ratios))


def markdown(records: Records, titles: dict[str, str], threads: Sequence[int]) -> str:
    """All tables of one model."""
    parts = [_ratios_table(records, titles, number) for number in threads]
    parts += [_rates_table(records, titles, number) for number in threads]
    parts.append(_memory_table(records))
    parts.append(_divergence_table(records))
    parts.append(_operators_table(records))
    notes = _notes(records, titles, threads)
    if notes:
        parts.append("Not measured:\n\n" + "\n".join(notes))
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(records: Records, titles: dict[str, str], threads: Sequence[int]) -> dict[str, Any]:
    """The same as data."""
    found: dict[str, Any] = {}
    for workload in titles:
        for number in threads:
            values = records.values(workload, number)
            if not values:
                continue
            entry: dict[str, Any] = {
                name: {"median": statistics.median(rounds.values()), "rounds": list(rounds.values())}
                for name, rounds in values.items()
            }
            ratios = {"all": best_ratio(records, workload, number)}
            ratios |= {f"{bits} bits": best_ratio(records, workload, number, bits) for bits in (4, 8, 16)}
            entry["ratios"] = {
                name: None if ratio is None else {key: getattr(ratio, key) for key in Ratio.__slots__}
                for name, ratio in ratios.items()
            }
            found.setdefault(workload, {})[f"{number} threads"] = entry
    return found


def _ratios_table(records: Records, titles: dict[str, str], threads: int) -> str:
    """Best against best, then like against like; a column that nothing stands in is left out."""
    columns: dict[str, dict[str, str]] = {title: {} for title in ("best of each", *_BITS.values(), "whose")}
    for workload, title in titles.items():
        whole = best_ratio(records, workload, threads)
        if whole is None:
            continue
        columns["best of each"][title] = f"**{whole.median:.2f}**{whole.spread}"
        columns["whose"][title] = f"{KINDS[whole.ours].label}, {KINDS[whole.peer].label}"
        each = {column: best_ratio(records, workload, threads, bits) for bits, column in _BITS.items()}
        for column, ratio in each.items():
            if ratio is not None:
                columns[column][title] = str(ratio)
    shown = {name: cells for name, cells in columns.items() if cells}
    rows = [[title, *(cells.get(title, "") for cells in shown.values())] for title in columns["best of each"]]
    if not rows:
        return ""
    lead = f"{_threads(threads)}: how many times the best peer's number ramify's is, median (range over the rounds)."
    return lead + "\n\n" + _table(["workload", *shown], rows)


_BITS = {4: "4 bits", 8: "8 bits", 16: "16 bits"}


def _threads(number: int) -> str:
    return f"{number} thread" + "s" * (number > 1)


def _rates_table(records: Records, titles: dict[str, str], threads: int) -> str:
    names = [name for name in KINDS if any(name in records.values(workload, threads) for workload in titles)]
    if not names:
        return ""
    rows = []
    for workload, title in titles.items():
        values = records.values(workload, threads)
        if values:
            rows.append(
                [title, *(_spread(list(values[name].values()), workload) if name in values else "" for name in names)]
            )
    lead = f"{_threads(threads)}, the numbers themselves: tokens per second; seconds of a cold start; MB of memory."
    return lead + "\n\n" + _table(["workload", *(KINDS[name].label for name in names)], rows)


def _memory_table(records: Records) -> str:
    rows = [
        [KINDS[record.engine].label, *(_megabytes(size) for size in (record.value, *map(record.more.get, _SIZES)))]
        for record in records.more(MEMORY)
        if record.value is not None
    ]
    head = ["MB", "above the weights", "most resident", "weights", "of it before the engine was loaded"]
    return _table(head, rows) if rows else ""


_SIZES = ("peak", "weights", "libraries")


def _divergence_table(records: Records) -> str:
    found = [record for record in records.more("kl") if record.value is not None]
    if not found:
        return ""
    lead = "How far the weights move the next token's distribution, on the bundled policy and tasks:"
    rows = [
        [KINDS[each.engine].label, f"{each.value:.5f} ± {each.more['kl_error']:.5f}", f"{each.more['agreement']:.1%}"]
        for each in found
    ]
    return lead + "\n\n" + _table(["engine", "KL divergence from float32, nats", "same most likely token"], rows)


def _operators_table(records: Records) -> str:
    cells: dict[str, dict[int, str]] = {}
    for record in records.more("operator"):
        if record.value is not None:
            reached = f"{record.value:,.1f} {record.unit}, {record.more['share']:.0%}"
            cells.setdefault(record.engine, {})[record.threads] = reached
    limits = {record.threads: record.more for record in records.more("limits")}
    threads = sorted({number for row in cells.values() for number in row})
    if not threads:
        return ""
    known = [
        f"{_threads(number)}: " + ", ".join(f"{name.replace('_', ' ')} {size:,.0f}" for name, size in sizes.items())
        for number, sizes in limits.items()
    ]
    lead = "What each of ramify's operators reaches, and its share of the machine's limit."
    rows = [[name, *(row.get(number, "") for number in threads)] for name, row in cells.items()]
    table = _table(["operator", *map(_threads, threads)], rows)
    return f"{lead} Limits measured in the same run: {'; '.join(known)}.\n\n{table}"


def _notes(records: Records, titles: dict[str, str], threads: Sequence[int]) -> list[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for workload in ("engines", *titles):
        for number in (0, *threads):
            for name, note in records.notes(workload, number).items():
                label = KINDS[name].label if name in KINDS else name
                where = reasons.setdefault((label, note), [])
                title = titles.get(workload, "everything")
                if title not in where:
                    where.append(title)
    return [f"- {label}, {', '.join(where)}: {note}" for (label, note), where in reasons.items()]


def plot(records: Records, titles: dict[str, str], threads: Sequence[int], targets: Sequence[Path], title: str) -> None:
    """Bars of every engine's numbers relative to the best peer's, a panel a number of threads."""
    from ramify.evals.figures import COLOURS, new_figure, save_figure

    shown = [name for name in titles if name != MEMORY and any(records.values(name, number) for number in threads)]
    names = [
        name for name in KINDS if any(name in records.values(work, number) for work in shown for number in threads)
    ]
    if not shown or not names:
        return
    figure = new_figure(10, 1.2 + 0.5 * len(shown))
    panels = figure.subplots(1, len(threads), sharey=True, squeeze=False)[0]
    hatches = {True: "", False: "////"}
    for axes, number in zip(panels, threads, strict=True):
        for place, name in enumerate(names):
            heights = [_relative(records, work, number, name) for work in shown]
            offsets = [row + 0.8 * (place - len(names) / 2) / len(names) for row in range(len(shown))]
            axes.barh(
                offsets,
                heights,
                0.8 / len(names),
                color=COLOURS[place % len(COLOURS)],
                hatch=hatches[KINDS[name].ours],
                edgecolor="white",
                label=KINDS[name].label,
            )
        axes.axvline(1, color="#000000", linewidth=0.8)
        axes.set_title(f"{number} thread" + "s" * (number > 1))
        axes.set_xlabel("times the best peer")
        axes.set_yticks(range(len(shown)), [titles[work] for work in shown])
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title)
    save_figure(figure, targets)


def _relative(records: Records, workload: str, threads: int, name: str) -> float:
    values = records.values(workload, threads)
    fewer_is_better = workload == COLD
    medians = {engine: statistics.median(rounds.values()) for engine, rounds in values.items()}
    peers = [value for engine, value in medians.items() if not KINDS[engine].ours]
    if name not in medians or not peers:
        return 0.0
    return min(peers) / medians[name] if fewer_is_better else medians[name] / max(peers)


def _spread(values: Sequence[float], workload: str) -> str:
    if workload == MEMORY:
        return _megabytes(values[-1])
    digits = 2 if workload == COLD else (1 if max(values) < 100 else 0)
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def _megabytes(size: float | None) -> str:
    return "" if size is None else f"{size / 1e6:,.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
