"""The engines' own counters as Prometheus metrics, read when they are scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ramify.engine.stats import STEP_ROWS, EngineStats
from ramify.serving.admission import QueueState

_COUNTERS: tuple[tuple[str, str, str], ...] = (
    ("vllm:prompt_tokens", "prompt_tokens", "Prompt tokens that were read, cached ones included."),
    ("vllm:generation_tokens", "generation_tokens", "Tokens drawn."),
    ("vllm:prefix_cache_queries", "prefix_query_tokens", "Prompt tokens looked up in the prefix cache."),
    ("vllm:prefix_cache_hits", "prefix_hit_tokens", "Of these, the tokens found there."),
    ("vllm:num_preemptions", "preemptions", "Sequences that lost their KV blocks to another."),
    ("ramify:prompt_tokens_cached", "cached_tokens", "Prompt tokens whose KV was there, by the cache or by a fork."),
    ("ramify:appended_tokens", "appended_tokens", "Known tokens that methods put behind a branch."),
    ("ramify:recomputed_tokens", "recomputed_tokens", "Tokens run a second time after a preemption."),
    ("ramify:engine_steps", "steps", "Forward passes."),
)


class EngineCollector(Collector):
    """Reads `EngineStats` at each scrape.

    Args:
        engines: gives the counters of each engine by public name.
        queues: gives what waits in front of each.
    """

    def __init__(
        self, engines: Callable[[], Mapping[str, EngineStats]], queues: Callable[[], Mapping[str, QueueState]]
    ) -> None:
        self._engines = engines
        self._queues = queues

    def describe(self) -> list[Metric]:
        """The names, for the registry's check of duplicates."""
        return list(self._families({}, {}))

    def collect(self) -> Iterator[Metric]:
        """The numbers of now."""
        return self._families(self._engines(), self._queues())

    def _families(self, engines: Mapping[str, EngineStats], queues: Mapping[str, QueueState]) -> Iterator[Metric]:
        for name, field, text in _COUNTERS:
            counter = CounterMetricFamily(name, text, labels=["model_name"])
            for model, stats in engines.items():
                counter.add_metric([model], getattr(stats, field))
            yield counter
        yield from _gauges(engines, queues)
        phases = CounterMetricFamily(
            "ramify:step_phase_seconds",
            "Time of the engine's steps by phase: schedule, build, forward, sample, commit.",
            labels=["model_name", "phase"],
        )
        for model, stats in engines.items():
            for phase, seconds in stats.timings_s.items():
                phases.add_metric([model, phase], seconds)
        yield phases
        yield _iteration_tokens(engines)


def _gauges(engines: Mapping[str, EngineStats], queues: Mapping[str, QueueState]) -> Iterator[Metric]:
    def gauge(name: str, text: str, values: Mapping[str, float]) -> Metric:
        family = GaugeMetricFamily(name, text, labels=["model_name"])
        for model, value in values.items():
            family.add_metric([model], value)
        return family

    yield gauge(
        "vllm:num_requests_running",
        "Sequences in the engine's batch.",
        {model: stats.running for model, stats in engines.items()},
    )
    yield gauge(
        "vllm:num_requests_waiting",
        "Requests that wait for a slot, and sequences that wait for KV blocks.",
        {model: stats.waiting + (queues[model].waiting if model in queues else 0) for model, stats in engines.items()},
    )
    yield gauge(
        "ramify:expected_wait_seconds",
        "What a new request would wait now, by the estimate that admission stands on.",
        {model: queue.expected_wait_s for model, queue in queues.items() if queue.expected_wait_s is not None},
    )
    yield gauge(
        "vllm:kv_cache_usage_perc",
        "Share of the KV blocks that sequences hold, 0 to 1.",
        {model: stats.blocks_used / max(1, stats.blocks_total) for model, stats in engines.items()},
    )
    yield gauge(
        "ramify:kv_blocks_used",
        "KV blocks that sequences hold.",
        {model: stats.blocks_used for model, stats in engines.items()},
    )
    yield gauge(
        "ramify:kv_blocks", "KV blocks of the pool.", {model: stats.blocks_total for model, stats in engines.items()}
    )
    yield gauge(
        "ramify:num_sequences_parked",
        "Branches that methods keep between two of their steps.",
        {model: stats.parked for model, stats in engines.items()},
    )


def _iteration_tokens(engines: Mapping[str, EngineStats]) -> Metric:
    family = HistogramMetricFamily(
        "vllm:iteration_tokens_total", "Rows of a step's batch: prompt tokens and drawn ones.", labels=["model_name"]
    )
    for model, stats in engines.items():
        below, buckets = 0, []
        for bound, count in zip(STEP_ROWS, stats.steps_by_rows, strict=False):
            below += count
            buckets.append((str(float(bound)), below))
        family.add_metric([model], [*buckets, ("+Inf", stats.steps)], stats.rows)
    return family
