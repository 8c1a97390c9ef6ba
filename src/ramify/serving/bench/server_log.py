"""The server's own count of a run: the lines of its JSON log, request by request, beside what was measured here.

Of a line count `request_id`, `ttft_s`, `duration_s`, `first_token_at`, `last_token_at` and `generated_tokens`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ramify.errors import ConfigError
from ramify.serving.bench.client import Measured
from ramify.serving.bench.summary import MEASURES, Distribution

Line = dict[str, Any]
WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Both:
    """One latency of the same requests, counted here and there.

    Attributes:
        here: by this generator.
        log: by the server.
    """

    here: Distribution
    log: Distribution

    @property
    def differences(self) -> Mapping[float, float]:
        """By percentile: how much more is measured here, as a share of what the server counted; NaN of nothing."""
        return {
            number: self.here.percentiles[number] / logged - 1 if logged else float("nan")
            for number, logged in self.log.percentiles.items()
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run and its log.

    Attributes:
        matched, missing: requests that went well, by whether the log has them.
        rows: by latency: ttft, tpot, e2el.
    """

    matched: int
    missing: int
    rows: Mapping[str, Both]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        rows = {name: asdict(both) | {"differences": both.differences} for name, both in self.rows.items()}
        return {"matched": self.matched, "missing": self.missing, **rows}


def compare(requests: Sequence[Measured], path: Path) -> Comparison:
    """Find the requests that went well in a log.

    Raises:
        ConfigError: the log cannot be read, or holds none of them.
    """
    good = [request for request in requests if request.ok]
    lines = read_log(path)
    until_s = time.monotonic() + WAIT_S
    while time.monotonic() < until_s and not all(request.request_id in lines for request in good):
        time.sleep(WAIT_S / 10)  # a line is written when its answer is out already
        lines = read_log(path)
    pairs = [(request, lines[request.request_id]) for request in good if request.request_id in lines]
    if good and not pairs:
        raise ConfigError(f"{path} holds none of these requests: give the log of `ramify serve --log-format json`")
    rows = {
        name: Both(
            Distribution.of(MEASURES[name](request) for request, _ in pairs),
            Distribution.of(count(line) for _, line in pairs),
        )
        for name, count in _COUNTS.items()
    }
    return Comparison(len(pairs), len(good) - len(pairs), rows)


def read_log(path: Path) -> dict[str, Line]:
    """The lines of requests by their id; a log also holds lines of other things.

    Raises:
        ConfigError: it cannot be read.
    """
    found: dict[str, Line] = {}
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for text in file:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue  # what another program wrote to the same place
                if isinstance(line, dict) and "duration_s" in line and "request_id" in line:
                    found[line["request_id"]] = line
    except OSError as error:
        raise ConfigError(f"server_log={str(path)!r} cannot be read: {error}") from error
    return found


def _logged_tpot_s(line: Line) -> float | None:
    tokens = line.get("generated_tokens", 0)
    if tokens < 2 or "last_token_at" not in line:
        return None
    return float((line["last_token_at"] - line["first_token_at"]) / (tokens - 1))


def _logged_ttft_s(line: Line) -> float | None:
    return line.get("ttft_s")


def _logged_e2e_s(line: Line) -> float | None:
    return line.get("duration_s")


_COUNTS: Mapping[str, Callable[[Line], float | None]] = {
    "ttft": _logged_ttft_s,
    "tpot": _logged_tpot_s,
    "e2el": _logged_e2e_s,
}
