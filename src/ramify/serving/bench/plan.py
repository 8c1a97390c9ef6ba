"""What is sent and when: arrivals by a law or from a recording, and the prompts of each kind of workload.

A plan is made before the first request, from a seed, and does not look at the server: that is what makes the load open.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ramify.errors import ConfigError

_WORDS = (
    "river", "stone", "garden", "window", "paper", "silver", "morning", "engine", "market", "bridge", "forest",
    "letter", "summer", "winter", "yellow", "orange", "simple", "quiet", "narrow", "gentle", "hidden", "broken",
    "golden", "frozen", "distant", "careful", "travel", "carry", "follow", "measure", "gather", "answer",
    "compare", "collect", "repeat", "deliver", "number", "village", "captain", "doctor", "farmer", "teacher",
    "painter", "station", "harbour", "mountain", "island", "valley", "meadow", "kitchen", "library", "theatre",
    "hospital", "factory", "castle", "tunnel", "ladder", "basket", "bottle", "blanket", "mirror", "hammer",
    "needle", "pencil", "ticket", "wallet", "jacket", "button", "candle", "pillow", "carpet", "cotton",
    "copper", "marble", "leather", "timber", "gravel",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a session.

    Attributes:
        text: what the user says.
        max_tokens: length of the answer that is asked for.
        think_s: seconds between the end of the turn before and this one; nothing for a first turn.
    """

    text: str
    max_tokens: int
    think_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation that starts at a time of its own.

    Attributes:
        at_s: seconds after the start of the run.
        turns: one or more; each later one waits for the answer before it and is sent with the whole conversation.
    """

    at_s: float
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Workload:
    """What the sessions say. Lengths are in tokens; `tokens_per_word` turns them into words.

    Attributes:
        input_len, output_len: mean lengths of a turn's own text and of its answer.
        range_ratio: lengths are uniform in [mean * (1 - ratio), mean * (1 + ratio)].
        prefix_len: tokens that all sessions of a group begin with.
        num_prefixes: groups; each session draws its own.
        turns: of a session.
        think_time: mean seconds between turns, exponential.
        tokens_per_word: as measured on the server.
    """

    input_len: int = 128
    output_len: int = 128
    range_ratio: float = 0.0
    prefix_len: int = 0
    num_prefixes: int = 1
    turns: int = 1
    think_time: float = 1.0
    tokens_per_word: float = 1.0

    def __post_init__(self) -> None:
        for name in ("input_len", "output_len", "num_prefixes", "turns"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} does not work: it must be 1 or more")
        if not 0 <= self.range_ratio < 1:
            raise ConfigError(f"range_ratio={self.range_ratio} does not work: it must be in [0, 1)")
        if self.prefix_len < 0 or self.think_time < 0:
            raise ConfigError("prefix_len and think_time cannot be negative")

    def sessions(self, arrivals: Sequence[Arrival], seed: int) -> list[Session]:
        """A session for each arrival; lengths that a recording gives count instead of the means."""
        draws = np.random.default_rng([seed, 1])
        prefixes = [self._words(draws, self.prefix_len) for _ in range(self.num_prefixes)]
        return [self._session(arrival, prefixes, draws) for arrival in arrivals]

    def _session(self, arrival: Arrival, prefixes: Sequence[str], draws: np.random.Generator) -> Session:
        prefix = prefixes[int(draws.integers(len(prefixes)))]
        turns = []
        for number in range(self.turns):
            own = self._words(draws, arrival.input_len or self._length(draws, self.input_len))
            text = f"{prefix} {own}".strip() if number == 0 else own
            wait_s = float(draws.exponential(self.think_time)) if number else 0.0
            turns.append(Turn(text, arrival.output_len or self._length(draws, self.output_len), wait_s))
        return Session(arrival.at_s, tuple(turns))

    def _length(self, draws: np.random.Generator, mean: int) -> int:
        spread = int(mean * self.range_ratio)
        return int(draws.integers(mean - spread, mean + spread + 1))

    def _words(self, draws: np.random.Generator, tokens: int) -> str:
        count = max(1, round(tokens / self.tokens_per_word)) if tokens else 0
        return " ".join(_WORDS[i] for i in draws.integers(len(_WORDS), size=count))


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a session starts, in seconds after the start; lengths where a recording has them."""

    at_s: float
    input_len: int | None = None
    output_len: int | None = None


def poisson_arrivals(rate: float, count: int, seed: int, burstiness: float = 1.0) -> list[Arrival]:
    """Arrivals with gamma-distributed gaps.

    Args:
        rate: mean sessions a second; infinity sends all at once.
        burstiness: shape of the gamma law: 1 is a Poisson process, less is burstier, more is steadier.

    Raises:
        ConfigError: the rate or the burstiness is not positive.
    """
    if not rate > 0 or not burstiness > 0:
        raise ConfigError(f"request_rate={rate}, burstiness={burstiness} do not work: both must be positive")
    if np.isinf(rate):
        return [Arrival(0.0) for _ in range(count)]
    gaps = np.random.default_rng([seed, 0]).gamma(burstiness, 1 / (rate * burstiness), size=count)
    return [Arrival(float(at_s)) for at_s in np.cumsum(gaps) - gaps[0]]


def trace_arrivals(path: Path, count: int | None = None, speed: float = 1.0) -> list[Arrival]:
    """Arrivals of a recording.

    It is JSONL with ``timestamp`` in milliseconds, ``input_length`` and ``output_length`` (Mooncake's form), or CSV
    with ``TIMESTAMP``, ``ContextTokens`` and ``GeneratedTokens`` (Azure's).

    Args:
        count: the first so many.
        speed: 2 replays it twice as fast.

    Raises:
        ConfigError: it cannot be read, a line lacks a field, or there is none.
    """
    rows = _csv_rows(path) if path.suffix == ".csv" else _jsonl_rows(path)
    found: list[Arrival] = []
    for number, row in enumerate(rows, start=1):
        if count is not None and len(found) == count:
            break
        try:
            found.append(_arrival(row))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}, record {number} is no arrival ({type(error).__name__}: {error})") from error
    if not found:
        raise ConfigError(f"{path} holds no arrivals")
    found.sort(key=lambda arrival: arrival.at_s)
    first_s = found[0].at_s
    return [Arrival((each.at_s - first_s) / speed, each.input_len, each.output_len) for each in found]


def _arrival(row: dict[str, Any]) -> Arrival:
    if "TIMESTAMP" in row:
        at_s = datetime.fromisoformat(row["TIMESTAMP"]).timestamp()
        return Arrival(at_s, int(row["ContextTokens"]), int(row["GeneratedTokens"]))
    return Arrival(float(row["timestamp"]) / 1000, int(row["input_length"]), int(row["output_length"]))


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with _opened(path) as file:
        yield from csv.DictReader(file)


def _jsonl_rows(path: Path) -> Iterator[dict[str, Any]]:
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ConfigError(f"{path}, line {number} is no JSON: {error}") from error


def _opened(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
