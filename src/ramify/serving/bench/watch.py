"""The server's own metrics while it is loaded. What it says is kept as bytes, and read after the run."""

from __future__ import annotations

from dataclasses import dataclass, field

from ramify.serving.bench.address import Address
from ramify.serving.bench.connection import Exchange

_GAUGES = {
    "vllm:kv_cache_usage_perc": "kv_usage",
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """What the server's metrics said at a time, in seconds after the start; sums over its models."""

    at_s: float
    kv_usage: float = 0.0
    running: float = 0.0
    waiting: float = 0.0


@dataclass(slots=True)
class Watch:
    """Looks at a server's metrics again and again; one without them is looked at once.

    Attributes:
        address: of the server.
        interval_s: between two looks; a server takes some milliseconds to tell, in which it does nothing else.
        first_s: when the first is, after the start, with whose requests it is not to collide.
    """

    address: Address
    interval_s: float = 2.0
    first_s: float = 0.1
    _taken: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def request(self) -> bytes:
        """What is sent at each look."""
        return self.address.request("/metrics")

    def take(self, exchange: Exchange, started_s: float) -> bool:
        """Keep an answer; says whether to look again."""
        if exchange.error is not None or exchange.status != 200 or not exchange.pieces:
            return False
        self._taken.append((exchange.pieces[0][0] - started_s, b"".join(data for _, data in exchange.pieces)))
        return True

    def moments(self) -> list[Moment]:
        """What was said."""
        from prometheus_client.parser import text_string_to_metric_families

        found = []
        for at_s, text in self._taken:
            values: dict[str, float] = {}
            for family in text_string_to_metric_families(text.decode()):
                if name := _GAUGES.get(family.name):
                    values[name] = sum(sample.value for sample in family.samples)
            if values:
                found.append(Moment(at_s, **values))
        return found
