"""Accuracy against total tokens, one line a method with its band, and methods ranked: PNG or SVG, readable in colour,
in grey and with any colour vision.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ramify.errors import ConfigError
from ramify.evals.estimators import Interval
from ramify.evals.figures import COLOURS, DASHES, MARKERS, new_figure, save_figure, short_name, targets_of
from ramify.evals.replay import Replayed
from ramify.evals.report import Row, line_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRONT = "0.35"
"""The grey of the Pareto front: a broad line behind all others."""


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
        line = row.method if isinstance(row, Replayed) else line_of(row.strategy)
        found.append(Point(line, row.tokens, row.accuracy))
    return found


def plot(drawn: Sequence[Point], paths: Sequence[str | os.PathLike[str]], title: str = "", front: bool = False) -> None:
    """Draw points to files, in the format of each name's ending (.png or .svg).

    `front` adds the Pareto front: the best accuracy that is to be had for at most so many tokens.

    Raises:
        ConfigError: there is no point, or a name has another ending.
    """
    targets = targets_of(paths)
    if not drawn:
        raise ConfigError("there is nothing to plot: evaluate at least one strategy")
    from matplotlib import ticker

    figure = new_figure(7.5, 4.8)
    axes = figure.add_subplot()
    lines: dict[str, list[Point]] = {}
    for point in drawn:
        lines.setdefault(point.line, []).append(point)
    if front:
        _draw_front(axes, drawn)
    for place, (name, members) in enumerate(lines.items()):
        _draw_line(axes, name, sorted(members, key=lambda point: point.tokens), place)
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
    save_figure(figure, targets)


def plot_ranking(
    ranked: Sequence[tuple[str, Interval]], paths: Sequence[str | os.PathLike[str]], mark: float, label: str
) -> None:
    """Draw named numbers with their intervals one under the other, the first at the top, in points.

    Args:
        ranked: names and shares.
        paths: files, by their endings .png or .svg.
        mark: where the vertical line of comparison stands.
        label: of the axis.

    Raises:
        ConfigError: there is nothing to draw, or a name has another ending.
    """
    targets = targets_of(paths)
    if not ranked:
        raise ConfigError("there is nothing to plot: evaluate at least one strategy")
    figure = new_figure(7.5, 1.2 + 0.22 * len(ranked))
    axes = figure.add_subplot()
    axes.axvline(100 * mark, color=FRONT, linewidth=1)
    for place, (_, interval) in enumerate(ranked):
        clear = interval.low > mark or interval.high < mark  # the whole interval lies on one side
        axes.hlines(place, 100 * interval.low, 100 * interval.high, colors=COLOURS[0], linewidth=1.5)
        axes.plot(100 * interval.mean, place, "o", color=COLOURS[0], markerfacecolor=COLOURS[0] if clear else "white")
    axes.set_yticks(range(len(ranked)), [short_name(name) for name, _ in ranked])
    axes.set_ylim(len(ranked) - 0.5, -0.5)
    axes.grid(alpha=0.3, axis="x", linewidth=0.5)
    axes.set_xlabel(label)
    save_figure(figure, targets)


def front_of(drawn: Sequence[Point]) -> list[Point]:
    """The points that no other equals or passes in accuracy with fewer tokens, by tokens."""
    found: list[Point] = []
    for point in sorted(drawn, key=lambda point: (point.tokens, -point.accuracy.mean)):
        if not found or point.accuracy.mean > found[-1].accuracy.mean:
            found.append(point)
    return found


def _draw_front(axes: Axes, drawn: Sequence[Point]) -> None:
    best = front_of(drawn)
    tokens = [point.tokens for point in best] + [max(point.tokens for point in drawn)]
    accuracies = [100 * point.accuracy.mean for point in best] + [100 * best[-1].accuracy.mean]
    axes.step(
        tokens, accuracies, where="post", color=FRONT, alpha=0.35, linewidth=6, label="Pareto front", zorder=1
    )  # fmt: skip


def _draw_line(axes: Axes, name: str, members: Sequence[Point], place: int) -> None:
    """One method. Its colour, marker, dashes and filling together are those of no other of the first 98."""
    tokens = [point.tokens for point in members]
    turn, colour = place // len(COLOURS), COLOURS[place % len(COLOURS)]
    axes.plot(
        tokens,
        [100 * point.accuracy.mean for point in members],
        label=short_name(name),
        marker=MARKERS[place % len(MARKERS)],
        markerfacecolor="white" if turn % 2 else colour,
        linestyle=DASHES[(place + turn) % len(DASHES)],
        color=colour,
    )
    low = [100 * point.accuracy.low for point in members]
    high = [100 * point.accuracy.high for point in members]
    if len(members) > 1:
        axes.fill_between(tokens, low, high, alpha=0.12, linewidth=0, color=colour)
    else:
        axes.vlines(tokens, low, high, alpha=0.5, colors=colour)
