"""Accuracy against total tokens, one line a method with its band: PNG or SVG, readable in colour and in grey."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ramify.errors import ConfigError
from ramify.evals.estimators import Interval
from ramify.evals.replay import Replayed
from ramify.evals.report import Row, label

# Okabe and Ito's palette, told apart with any colour vision; markers and dashes tell the lines apart without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (7, 3)))
FORMATS = (".png", ".svg")


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a line: a method's accuracy at a mean number of tokens a problem."""

    line: str
    tokens: float
    accuracy: Interval


def points(rows: Sequence[Row] | Sequence[Replayed]) -> list[Point]:
    """The points of some rows: all sizes and budgets of one strategy are one line."""
    found = []
    for row in rows:
        line = row.method if isinstance(row, Replayed) else label(row.strategy).partition(":")[0]
        found.append(Point(line, row.tokens, row.accuracy))
    return found


def plot(drawn: Sequence[Point], paths: Sequence[str | os.PathLike[str]], title: str = "") -> None:
    """Draw points to files, in the format of each name's ending (.png or .svg).

    Raises:
        ConfigError: there is no point, or a name has another ending.
    """
    targets = [Path(path) for path in paths]
    for target in targets:
        if target.suffix not in FORMATS:
            raise ConfigError(f"{target}: a plot is written as {' or '.join(FORMATS)}; choose such a name")
    if not drawn:
        raise ConfigError("there is nothing to plot: evaluate at least one strategy")
    # Without pyplot there is no global figure and no window system: the canvas comes from the format.
    import matplotlib as mpl
    from matplotlib import ticker
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    lines: dict[str, list[Point]] = {}
    for point in drawn:
        lines.setdefault(point.line, []).append(point)
    for place, (name, members) in enumerate(lines.items()):
        members.sort(key=lambda point: point.tokens)
        tokens = [point.tokens for point in members]
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(
            tokens,
            [100 * point.accuracy.mean for point in members],
            label=name,
            marker=MARKERS[place % len(MARKERS)],
            linestyle=DASHES[place % len(DASHES)],
            color=colour,
        )
        low = [100 * point.accuracy.low for point in members]
        high = [100 * point.accuracy.high for point in members]
        if len(members) > 1:
            axes.fill_between(tokens, low, high, alpha=0.15, linewidth=0, color=colour)
        else:
            axes.vlines(tokens, low, high, alpha=0.5, colors=colour)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_xlabel("total tokens a problem (generated + verifier + probe)")
    axes.set_ylabel("right answers in %, with 95% interval")
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    axes.legend(frameon=False)
    if title:
        axes.set_title(title, loc="left")
    with mpl.rc_context({"svg.hashsalt": "ramify", "svg.fonttype": "none"}):
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
            # No date in the file: one evaluation gives one plot, byte for byte.
            figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else {"Software": "ramify"})
