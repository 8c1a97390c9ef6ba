"""`Pace`: how fast an engine works, learnt from its own counters; what the estimates of waiting times stand on.

A step costs a fixed part and a part a row. Both are fitted to the counters' differences, recent ones counting most, so
that an engine seen with one stream can be judged with sixty-four.
"""

from __future__ import annotations

from ramify.engine.stats import EngineStats

HALF_LIFE_STEPS = 512
"""Steps after which an observation counts half: a few seconds of an engine under load."""
HALF_LIFE_ANSWERS = 32
"""The same for the lengths of answers."""


class Pace:
    """Learns from snapshots of one engine and from the answers that ended."""

    def __init__(self) -> None:
        self.mean_answer: float | None = None
        self._last = EngineStats()
        self._backlog = 0
        self._weight = self._rows = self._rows_rows = self._seconds = self._rows_seconds = 0.0

    def observe(self, stats: EngineStats) -> None:
        """Take a snapshot. One with fewer steps than the last is of an engine that started anew."""
        steps = stats.steps - self._last.steps
        if steps > 0:
            rows = (stats.rows - self._last.rows) / steps
            seconds = (sum(stats.timings_s.values()) - sum(self._last.timings_s.values())) / steps
            keep = 0.5 ** (steps / HALF_LIFE_STEPS)
            self._weight = keep * self._weight + steps
            self._rows = keep * self._rows + steps * rows
            self._rows_rows = keep * self._rows_rows + steps * rows * rows
            self._seconds = keep * self._seconds + steps * seconds
            self._rows_seconds = keep * self._rows_seconds + steps * rows * seconds
        # Sequences wait for a moment before every step: only those that two snapshots saw are a backlog.
        self._backlog = min(stats.waiting, self._last.waiting)
        self._last = stats

    def ended(self, tokens: int) -> None:
        """A sequence of an answer ended with so many tokens."""
        if self.mean_answer is None:
            self.mean_answer = float(tokens)
        else:
            self.mean_answer += (tokens - self.mean_answer) * (1 - 0.5 ** (1 / HALF_LIFE_ANSWERS))

    @property
    def backlog(self) -> int:
        """Sequences that wait inside the engine for room in its KV pool."""
        return self._backlog

    @property
    def step_cost_s(self) -> tuple[float, float] | None:
        """Seconds of a step and seconds of each of its rows; None before the first step."""
        if self._weight == 0 or self._seconds <= 0:
            return None
        rows, seconds = self._rows / self._weight, self._seconds / self._weight
        variance = self._rows_rows / self._weight - rows * rows
        covariance = self._rows_seconds / self._weight - rows * seconds
        a_row = covariance / variance if variance > 1e-9 * rows * rows else 0.0
        a_row = min(max(a_row, 0.0), seconds / rows if rows > 0 else 0.0)
        return seconds - a_row * rows, a_row

    def wait_s(self, sequences: int, prompt_tokens: int, slots: int) -> float | None:
        """Seconds until so many sequences have ended and so many prompt tokens are read, all slots being in use.

        Returns:
            None while nothing is known: no step was seen yet, or no answer has ended.
        """
        cost = self.step_cost_s
        if sequences <= 0 and prompt_tokens <= 0:
            return 0.0
        if cost is None or self.mean_answer is None:
            return None
        a_step, a_row = cost
        at_once = max(1, min(slots, self._last.running) if self._backlog else slots)
        return sequences * self.mean_answer * (a_step + a_row * at_once) / at_once + prompt_tokens * a_row
