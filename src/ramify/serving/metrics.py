"""Prometheus metrics of one server: in a registry of its own, with vLLM's names where the meaning is the same.

What engines count is read from their own counters at each scrape and never counted twice; what only the server sees
(times, endings, methods, HTTP) is counted here. Labels take values that the server chose, never a client's words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from ramify.engine.outputs import RequestOutput
from ramify.serving.engine_metrics import EngineCollector, Views

if TYPE_CHECKING:
    from ramify.strategies.kernel.result import Result

TIMES_S = tuple(digit * 10.0**power for power in range(-3, 4) for digit in (1, 2, 5))[:-1]
"""From a millisecond to 2,000 seconds, in the steps 1, 2, 5."""
TOKEN_TIMES_S = tuple(digit * 10.0**power for power in range(-4, 2) for digit in (1, 2, 5))
TOKENS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))
PURSES = ("generated", "verifier", "probe", "program", "discarded")
NO_STRATEGY = "none"
"""Label of what was drawn without a method."""
HTTP_METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"))


@dataclass(frozen=True, slots=True)
class Answered:
    """One generation that ended, in numbers.

    Attributes:
        model: its public name.
        finished_reason: "stop", "length", "abort" or "error".
        prompt_tokens, generated_tokens: generated is the sum of all continuations.
        arrived_s, started_s, ended_s: when the request came, when the engine took it, when it ended (one clock).
        token_times_s: when the tokens of the first continuation came.
        sequences: how many continuations.
        max_tokens: that were asked for; None for no limit.
    """

    model: str
    finished_reason: str
    prompt_tokens: int
    generated_tokens: int
    arrived_s: float
    started_s: float
    ended_s: float
    token_times_s: tuple[float, ...] = ()
    sequences: int = 1
    max_tokens: int | None = None

    @classmethod
    def of(
        cls, model: str, output: RequestOutput, arrived_s: float, ended_s: float, ending: str, max_tokens: int | None
    ) -> Answered:
        """From what the engine's front gathered; `ending` is the reason of one that did not end by itself."""
        return cls(
            model,
            output.outputs[0].finish_reason or ending,
            len(output.prompt_token_ids),
            sum(len(completion.token_ids) for completion in output.outputs),
            arrived_s,
            output.metrics.arrival_time_s,
            ended_s,
            tuple(output.metrics.token_times_s),
            len(output.outputs),
            max_tokens,
        )


class Metrics:
    """All metrics of a server.

    Args:
        engines: gives what there is to see of each model, by public name; called at each scrape.
    """

    def __init__(self, engines: Callable[[], Views]) -> None:
        self._engines = engines
        self._own = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self._own)
        counter = partial(Counter, registry=self._own)
        gauge = partial(Gauge, registry=self._own)
        histogram = partial(Histogram, registry=self._own)
        model = ("model_name",)

        self.success = counter("vllm:request_success", "Generations that ended, by why.", (*model, "finished_reason"))
        self.ttft = histogram(
            "vllm:time_to_first_token_seconds", "From a request's arrival to its first token.", model, buckets=TIMES_S
        )
        self.itl = histogram(
            "vllm:inter_token_latency_seconds", "Between two tokens of an answer.", model, buckets=TOKEN_TIMES_S
        )
        self.tpot = histogram(
            "vllm:request_time_per_output_token_seconds",
            "Mean time of a token after the first, by request.",
            model,
            buckets=TOKEN_TIMES_S,
        )
        self.e2e = histogram(
            "vllm:e2e_request_latency_seconds", "From a request's arrival to its end.", model, buckets=TIMES_S
        )
        self.queue = histogram(
            "vllm:request_queue_time_seconds", "From arrival until the engine took it.", model, buckets=TIMES_S
        )
        self.prefill = histogram(
            "vllm:request_prefill_time_seconds", "From there to the first token.", model, buckets=TIMES_S
        )
        self.decode = histogram(
            "vllm:request_decode_time_seconds", "From the first token to the last.", model, buckets=TIMES_S
        )
        self.inference = histogram(
            "vllm:request_inference_time_seconds", "Prefill and decode together.", model, buckets=TIMES_S
        )
        self.prompt_tokens = histogram(
            "vllm:request_prompt_tokens", "Prompt tokens of a request.", model, buckets=TOKENS
        )
        self.generation_tokens = histogram(
            "vllm:request_generation_tokens", "Tokens drawn for a request, over all continuations.", model,
            buckets=TOKENS,
        )  # fmt: skip
        self.params_n = histogram("vllm:request_params_n", "Continuations asked for.", model, buckets=TOKENS[:12])
        self.params_max_tokens = histogram(
            "vllm:request_params_max_tokens", "max_tokens, where a request gave one.", model, buckets=TOKENS
        )
        self.rejections = counter(
            "vllm:admission_rejections",
            "Requests sent away with 429, by what was full: requests, tokens, share (one key's), wait (the deadline).",
            (*model, "reason"),
        )
        self.missed = counter(
            "ramify:deadlines_missed",
            "Requests cut at their deadline, by whose it was: the client's or the server's.",
            (*model, "deadline"),
        )
        self.runs = counter(
            "ramify:strategy_runs", "Runs of methods, by why they stopped.", (*model, "strategy", "stop_reason")
        )
        self.purse = counter(
            "ramify:strategy_tokens",
            'Tokens by method ("none" without one) and purse. Discarded ones are a part of the generated ones.',
            (*model, "strategy", "purse"),
        )
        self.saved = counter(
            "ramify:strategy_saved_tokens", "Tokens that stopping early saved (an estimate).", (*model, "strategy")
        )
        self.shared = counter(
            "ramify:strategy_shared_tokens", "Tokens that candidates shared instead of drawing them again.",
            (*model, "strategy"),
        )  # fmt: skip
        self.batch_lines = counter("ramify:batch_lines", "Lines of batches that ended, by how.", ("outcome",))
        self.storage = histogram(
            "ramify:storage_seconds",
            "Transactions of the storage, waiting included: read or write.",
            ("operation",),
            buckets=TOKEN_TIMES_S,
        )
        self.http = counter("ramify:http_requests", "HTTP requests.", ("method", "route", "status"))
        self.http_seconds = histogram(
            "ramify:http_request_seconds", "From a request's head to the end of its answer.", ("route",),
            buckets=TIMES_S,
        )  # fmt: skip
        self.in_flight = gauge("ramify:http_requests_in_flight", "HTTP requests that are being answered.")
        self.draining = gauge("ramify:draining", "1 while the server ends: it takes no new requests.")
        self.startup = gauge("ramify:startup_seconds", "What the start took, by part.", ("part",))

    def answered(self, answer: Answered) -> None:
        """Count a generation that ended."""
        model, times = answer.model, answer.token_times_s
        self.success.labels(model, answer.finished_reason).inc()
        self.purse.labels(model, NO_STRATEGY, "generated").inc(answer.generated_tokens)
        self.prompt_tokens.labels(model).observe(answer.prompt_tokens)
        self.generation_tokens.labels(model).observe(answer.generated_tokens)
        self.params_n.labels(model).observe(answer.sequences)
        if answer.max_tokens is not None:
            self.params_max_tokens.labels(model).observe(answer.max_tokens)
        self.e2e.labels(model).observe(answer.ended_s - answer.arrived_s)
        self.queue.labels(model).observe(max(0.0, answer.started_s - answer.arrived_s))
        if not times:
            return
        self.ttft.labels(model).observe(times[0] - answer.arrived_s)
        self.prefill.labels(model).observe(max(0.0, times[0] - answer.started_s))
        self.decode.labels(model).observe(times[-1] - times[0])
        self.inference.labels(model).observe(max(0.0, times[-1] - answer.started_s))
        latency = self.itl.labels(model)
        for earlier, later in pairwise(times):
            latency.observe(later - earlier)
        if len(times) > 1:
            self.tpot.labels(model).observe((times[-1] - times[0]) / (len(times) - 1))

    def ran(self, model: str, strategy: str, result: Result) -> None:
        """Count a run of a method by its ledger.

        Args:
            strategy: its registered name, without parameters.
        """
        ledger = result.ledger
        self.runs.labels(model, strategy, result.stop_reason).inc()
        for purse in PURSES:
            self.purse.labels(model, strategy, purse).inc(getattr(ledger, purse))
        self.saved.labels(model, strategy).inc(max(0, ledger.saved))
        self.shared.labels(model, strategy).inc(ledger.shared)

    def http_ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an HTTP request."""
        self.http.labels(method if method in HTTP_METHODS else "other", route, str(status)).inc()
        self.http_seconds.labels(route).observe(seconds)

    @property
    def registry(self) -> CollectorRegistry:
        """Everything, with the engines as they are now."""
        views = self._engines()
        everything = CollectorRegistry()
        everything.register(EngineCollector(lambda: views))
        everything.register(self._own)
        return everything

    async def scrape(self, accept: str = "") -> tuple[bytes, str]:
        """Everything as text, and its content type: OpenMetrics for who asks for it, else Prometheus's own.

        The engines are looked at here, on the event loop, whose state they are; the writing takes a thread.
        """
        encode, content_type = choose_encoder(accept)
        return await asyncio.to_thread(encode, self.registry), content_type


def metric_names(registry: CollectorRegistry) -> Iterable[tuple[str, str, str]]:
    """(name, type, help) of all metrics, as a scrape shows them."""
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield name, family.type, family.documentation
