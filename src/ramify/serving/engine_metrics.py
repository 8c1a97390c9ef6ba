"""The engines' own counters as Prometheus metrics, read when they are scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ramify.engine.stats import STEP_ROWS, EngineStats
from ramify.serving.admission import QueueState

_LABELS = ["model_name"]
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


@dataclass(frozen=True, slots=True)
class EngineView:
    """What a scrape sees of one model.

    Attributes:
        up: whether its engine runs; None for a model that is not loaded.
        stats: the engine's counters. They begin anew with a new engine, as Prometheus expects of a restart.
        restarts: engines that were started after a crash.
        queue: what waits in front of it.
    """

    up: bool | None = None
    stats: EngineStats = field(default_factory=EngineStats)
    restarts: int = 0
    queue: QueueState = field(default_factory=lambda: QueueState(0, None))


Views = Mapping[str, EngineView]
"""By public name."""


class EngineCollector(Collector):
    """Reads the engines at each scrape.

    Args:
        views: gives what there is to see.
    """

    def __init__(self, views: Callable[[], Views]) -> None:
        self._views = views

    def describe(self) -> list[Metric]:
        """The names, for the registry's check of duplicates."""
        return list(_families({}))

    def collect(self) -> Iterator[Metric]:
        """The numbers of now."""
        return _families(self._views())


def _families(views: Views) -> Iterator[Metric]:
    yield _gauge(
        "ramify:engine_up",
        "1 while a model's engine runs, 0 while it starts or has failed; a model that is not loaded has none.",
        {name: None if view.up is None else float(view.up) for name, view in views.items()},
    )
    loaded = {name: view for name, view in views.items() if view.up is not None}
    for name, attribute, text in _COUNTERS:
        yield _counter(name, text, {model: getattr(view.stats, attribute) for model, view in loaded.items()})
    yield _counter(
        "ramify:engine_restarts",
        "Engines started anew after a crash.",
        {name: view.restarts for name, view in views.items()},
    )
    yield from _gauges(loaded)
    yield _phases(loaded)
    yield _iteration_tokens(loaded)


def _gauges(views: Views) -> Iterator[Metric]:
    yield _gauge(
        "vllm:num_requests_running",
        "Sequences in the engine's batch.",
        {name: view.stats.running for name, view in views.items()},
    )
    yield _gauge(
        "vllm:num_requests_waiting",
        "Requests that wait for a slot, and sequences that wait for KV blocks.",
        {name: view.stats.waiting + view.queue.waiting for name, view in views.items()},
    )
    yield _gauge(
        "ramify:expected_wait_seconds",
        "What a new request would wait now, by the estimate that admission stands on.",
        {name: view.queue.expected_wait_s for name, view in views.items()},
    )
    yield _gauge(
        "vllm:kv_cache_usage_perc",
        "Share of the KV blocks that sequences hold, 0 to 1.",
        {name: view.stats.blocks_used / max(1, view.stats.blocks_total) for name, view in views.items()},
    )
    yield _gauge(
        "ramify:kv_blocks_used",
        "KV blocks that sequences hold.",
        {name: view.stats.blocks_used for name, view in views.items()},
    )
    yield _gauge(
        "ramify:kv_blocks", "KV blocks of the pool.", {name: view.stats.blocks_total for name, view in views.items()}
    )
    yield _gauge(
        "ramify:num_sequences_parked",
        "Branches that methods keep between two of their steps.",
        {name: view.stats.parked for name, view in views.items()},
    )


def _gauge(name: str, text: str, values: Mapping[str, float | None]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=_LABELS)
    for model, value in values.items():
        if value is not None:
            family.add_metric([model], value)
    return family


def _counter(name: str, text: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=_LABELS)
    for model, value in values.items():
        family.add_metric([model], value)
    return family


def _phases(views: Views) -> Metric:
    family = CounterMetricFamily(
        "ramify:step_phase_seconds",
        "Time of the engine's steps by phase: schedule, build, forward, sample, commit.",
        labels=[*_LABELS, "phase"],
    )
    for name, view in views.items():
        for phase, seconds in view.stats.timings_s.items():
            family.add_metric([name, phase], seconds)
    return family


def _iteration_tokens(views: Views) -> Metric:
    family = HistogramMetricFamily(
        "vllm:iteration_tokens_total", "Rows of a step's batch: prompt tokens and drawn ones.", labels=_LABELS
    )
    for name, view in views.items():
        below, buckets = 0, []
        for bound, count in zip(STEP_ROWS, view.stats.steps_by_rows or [0] * len(STEP_ROWS), strict=True):
            below += count
            buckets.append((str(float(bound)), below))
        family.add_metric([name], [*buckets, ("+Inf", view.stats.steps)], view.stats.rows)
    return family
