"""What a run says: latencies with percentiles, throughput, and goodput, the requests within their objectives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ramify.errors import ConfigError
from ramify.serving.bench.client import Measured
from ramify.serving.bench.drive import Load

PERCENTILES = (50.0, 90.0, 95.0, 99.0)


def ttft_s(request: Measured) -> float | None:
    """Time to the first token, from when the request was to be sent."""
    return request.token_times_s[0] - request.intended_s if request.token_times_s else None


def e2e_s(request: Measured) -> float | None:
    """Time to the whole answer, from when the request was to be sent."""
    return None if request.ended_s is None else request.ended_s - request.intended_s


def tpot_s(request: Measured) -> float | None:
    """Mean time of a token after the first; tokens that came in one piece took none."""
    tokens = max(request.output_tokens, len(request.token_times_s))
    if not request.token_times_s or tokens < 2:
        return None
    return (request.token_times_s[-1] - request.token_times_s[0]) / (tokens - 1)


def lag_s(request: Measured) -> float | None:
    """How late the generator itself was."""
    return None if request.sent_s is None else request.sent_s - request.intended_s


MEASURES: Mapping[str, Callable[[Measured], float | None]] = {"ttft": ttft_s, "tpot": tpot_s, "e2el": e2e_s}


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of one latency over the requests that went well, in milliseconds.

    Attributes:
        count: of values.
        mean, std: over them.
        percentiles: by number, linearly interpolated.
    """

    count: int
    mean: float
    std: float
    percentiles: Mapping[float, float]

    @classmethod
    def of(cls, seconds: Iterable[float | None], percentiles: Sequence[float] = PERCENTILES) -> Distribution:
        """Values that are None did not happen; without any, every number is NaN."""
        values = 1000 * np.array([value for value in seconds if value is not None], dtype=np.float64)
        if not len(values):
            return cls(0, float("nan"), float("nan"), dict.fromkeys(percentiles, float("nan")))
        found = np.percentile(values, percentiles)
        return cls(
            len(values), float(values.mean()), float(values.std()), dict(zip(percentiles, found.tolist(), strict=True))
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in numbers; names as in vLLM's benchmark. Latencies are in milliseconds and count from the intended time.

    Attributes:
        completed, failed: requests.
        errors: how often each happened, most frequent first.
        duration: seconds.
        request_throughput, output_throughput, total_token_throughput: a second, of requests that went well.
        total_input_tokens, total_cached_tokens, total_output_tokens: as the server counts.
        request_goodput: requests a second within all objectives; None without objectives.
        goodput_share: of all requests, failed ones included, those within all objectives.
        ttft, tpot, itl, e2el: distributions; `itl` over all gaps between pieces of text.
        send_lag: how late the generator was; where it is not small, the machine of the generator was the limit.
    """

    completed: int
    failed: int
    errors: Mapping[str, int]
    duration: float
    request_throughput: float
    output_throughput: float
    total_token_throughput: float
    total_input_tokens: int
    total_cached_tokens: int
    total_output_tokens: int
    request_goodput: float | None
    goodput_share: float | None
    ttft: Distribution
    tpot: Distribution
    itl: Distribution
    e2el: Distribution
    send_lag: Distribution

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def parse_goodput(given: Iterable[str]) -> dict[str, float]:
    """Objectives such as ``ttft:500 tpot:50``, in milliseconds.

    Raises:
        ConfigError: one cannot be read.
    """
    found = {}
    for text in given:
        match = re.fullmatch(r"(ttft|tpot|e2el):([0-9.]+)", text)
        if match is None:
            raise ConfigError(f"goodput {text!r} does not work: write ttft:500, tpot:50 or e2el:2000, in milliseconds")
        found[match[1]] = float(match[2])
    return found


def within(request: Measured, objectives: Mapping[str, float]) -> bool:
    """Whether a request went well and met all objectives; a latency that does not exist is met."""
    if not request.ok:
        return False
    measured = ((MEASURES[name](request), limit) for name, limit in objectives.items())
    return all(value is None or 1000 * value <= limit for value, limit in measured)


def summarise(load: Load, objectives: Mapping[str, float] | None = None) -> Summary:
    """The numbers of a run."""
    good = [request for request in load.requests if request.ok]
    seconds = max(load.duration_s, 1e-9)
    output = sum(request.output_tokens or len(request.token_times_s) for request in good)
    prompt = sum(request.prompt_tokens for request in good)
    met = sum(within(request, objectives) for request in load.requests) if objectives else None
    errors: dict[str, int] = {}
    for request in load.requests:
        if not request.ok:
            reason = request.error or "no answer"
            errors[reason] = errors.get(reason, 0) + 1
    return Summary(
        completed=len(good),
        failed=len(load.requests) - len(good),
        errors=dict(sorted(errors.items(), key=lambda pair: -pair[1])),
        duration=load.duration_s,
        request_throughput=len(good) / seconds,
        output_throughput=output / seconds,
        total_token_throughput=(prompt + output) / seconds,
        total_input_tokens=prompt,
        total_cached_tokens=sum(request.cached_tokens for request in good),
        total_output_tokens=output,
        request_goodput=None if met is None else met / seconds,
        goodput_share=None if met is None else met / max(1, len(load.requests)),
        ttft=Distribution.of(map(ttft_s, good)),
        tpot=Distribution.of(map(tpot_s, good)),
        itl=Distribution.of(gap for request in good for gap in np.diff(request.token_times_s).tolist()),
        e2el=Distribution.of(map(e2e_s, good)),
        send_lag=Distribution.of(map(lag_s, load.requests)),
    )
