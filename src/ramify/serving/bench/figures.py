"""Pictures of a run: latency percentiles, latency and load over time, KV memory over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ramify.evals.figures import COLOURS, DASHES, MARKERS, new_figure, save_figure, targets_of
from ramify.serving.bench.drive import Load
from ramify.serving.bench.summary import MEASURES
from ramify.serving.bench.watch import Moment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ramify.serving.bench.client import Measured

_WORDS = {"ttft": "time to first token", "tpot": "time per further token", "e2el": "whole request"}


def draw_load(load: Load, folder: Path) -> list[Path]:
    """Draw all pictures that a run has data for, each as SVG and PNG.

    Returns:
        The files.
    """
    figures = {"latency": _percentiles(load), "over-time": _over_time(load)}
    if load.moments:
        figures["server"] = _server(load.moments)
    paths = []
    for name, figure in figures.items():
        targets = targets_of([folder / f"{name}.svg", folder / f"{name}.png"])
        save_figure(figure, targets)
        paths += targets
    return paths


def _percentiles(load: Load) -> Figure:
    """Each latency against the share of requests that is slower, on axes that give the tail its room."""
    figure = new_figure(7.5, 4.5)
    axes = figure.add_subplot()
    for place, (name, measure) in enumerate(MEASURES.items()):
        values = sorted(1000 * value for value in map(measure, _good(load)) if value is not None)
        if not values:
            continue
        slower = 1 - np.arange(len(values)) / len(values)
        axes.plot(
            values, 100 * slower, label=_WORDS[name], color=COLOURS[place], linestyle=DASHES[place],
            marker=MARKERS[place], markevery=max(1, len(values) // 8),
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_yticks([100, 50, 10, 5, 1], ["all", "half", "10%", "5%", "1%"])
    axes.set_xlabel("milliseconds, from the intended time of sending")
    axes.set_ylabel("requests that took longer")
    _finish(axes)
    return figure


def _over_time(load: Load) -> Figure:
    figure = new_figure(7.5, 4.5)
    axes = figure.add_subplot()
    for place, name in enumerate(("ttft", "e2el")):
        measured = [(each.intended_s - load.started_s, MEASURES[name](each)) for each in _good(load)]
        pairs = [(at_s, 1000 * value) for at_s, value in measured if value is not None]
        axes.plot(
            [at_s for at_s, _ in pairs], [value for _, value in pairs], MARKERS[place],
            markersize=3, color=COLOURS[place], markerfacecolor="none" if place else COLOURS[place], label=_WORDS[name],
        )  # fmt: skip
    failed = [each.intended_s - load.started_s for each in load.requests if not each.ok]
    if failed:
        axes.plot(failed, [1.0] * len(failed), "x", color=COLOURS[-1], label="failed")
    axes.set_yscale("log")
    axes.set_xlabel("seconds after the start, by the intended time of sending")
    axes.set_ylabel("milliseconds")
    _finish(axes)
    return figure


def _server(moments: Sequence[Moment]) -> Figure:
    figure = new_figure(7.5, 4.5)
    above, below = figure.subplots(2, 1, sharex=True)
    at_s = [moment.at_s for moment in moments]
    above.fill_between(at_s, [100 * moment.kv_usage for moment in moments], color=COLOURS[0], alpha=0.25, linewidth=0)
    above.plot(at_s, [100 * moment.kv_usage for moment in moments], color=COLOURS[0])
    above.set_ylabel("KV memory in use, %")
    above.grid(alpha=0.3, linewidth=0.5)
    for place, name in enumerate(("running", "waiting")):
        below.step(
            at_s, [getattr(moment, name) for moment in moments], where="post", label=name, color=COLOURS[place],
            linestyle=DASHES[place],
        )  # fmt: skip
    below.set_xlabel("seconds after the start")
    below.set_ylabel("requests in the engine")
    _finish(below)
    return figure


def _good(load: Load) -> list[Measured]:
    return [request for request in load.requests if request.ok]


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    axes.legend(frameon=False)
