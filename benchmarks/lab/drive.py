"""Runs requests on an engine against the clock, and reads rates from when each token came."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.lab.engines.base import Engine, Request


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that comes `at_s` seconds after the start."""

    at_s: float
    request: Request


@dataclass(frozen=True, slots=True)
class Timeline:
    """When the tokens came.

    Attributes:
        arrived_s: of each sequence, when its request came.
        times_s: of each sequence, when each of its tokens came; seconds since the start.
    """

    arrived_s: tuple[float, ...]
    times_s: tuple[tuple[float, ...], ...]

    @property
    def seconds(self) -> float:
        """Until the last token."""
        return max(times[-1] for times in self.times_s)

    @property
    def tokens(self) -> int:
        """Drawn in all."""
        return sum(map(len, self.times_s))

    @property
    def first_token_s(self) -> list[float]:
        """Of each sequence, the wait for its first token."""
        return [times[0] - at for at, times in zip(self.arrived_s, self.times_s, strict=True)]

    @property
    def full_batch_rate(self) -> float:
        """Tokens per second while all sequences were drawing: from the last one's first token to the first one's last.

        Raises:
            ValueError: there was no such time.
        """
        start = max(times[0] for times in self.times_s)
        end = min(times[-1] for times in self.times_s)
        if end <= start:
            raise ValueError("the sequences never ran all together: draw more tokens")
        return sum(start < moment <= end for times in self.times_s for moment in times) / (end - start)


def drive(engine: Engine, arrivals: Sequence[Arrival]) -> Timeline:
    """Run requests to their ends, each added when it is due."""
    waiting = sorted(arrivals, key=lambda arrival: arrival.at_s)
    arrived: list[float] = []
    times: dict[int, list[float]] = {}
    first: int | None = None
    place = 0
    started = time.perf_counter()
    while place < len(waiting) or engine.busy():
        now = time.perf_counter() - started
        while place < len(waiting) and waiting[place].at_s <= now:
            numbers = engine.add(waiting[place].request)
            first = numbers[0] if first is None else first
            arrived += [waiting[place].at_s] * len(numbers)
            times.update((number, []) for number in numbers)
            place += 1
        if not engine.busy():
            time.sleep(max(0.0, waiting[place].at_s - (time.perf_counter() - started)))
            continue
        came = engine.step()
        now = time.perf_counter() - started
        for token in came:
            times[token.sequence] += [now] * len(token.tokens)
    return Timeline(tuple(arrived), tuple(tuple(times[number]) for number in sorted(times)))


def to_json(timeline: Timeline) -> dict[str, Any]:
    """A timeline as plain data."""
    return {"arrived_s": timeline.arrived_s, "times_s": timeline.times_s}


def from_json(data: dict[str, Any]) -> Timeline:
    """What `to_json` wrote."""
    return Timeline(tuple(data["arrived_s"]), tuple(map(tuple, data["times_s"])))
