"""OpenTelemetry traces: a span a request, below it what its generations and its methods did. Never a prompt's text.

Names and attributes follow the semantic conventions for HTTP and for generative AI. The library is an extra
(``pip install ramify[otel]``) and is imported only where traces are on.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ramify.errors import ConfigError
from ramify.sampling import SamplingParams
from ramify.serving.records import RequestRecord

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

    from ramify.serving.metrics import Answered
    from ramify.strategies.kernel.result import Result

_ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_OPERATIONS = {"/v1/completions": "text_completion", "/v1/embeddings": "embeddings"}
_PROVIDER = "ramify"
_log = logging.getLogger(__name__)
Attributes = dict[str, Any]


def traces_wanted(endpoint: str | None) -> bool:
    """Whether an option or the standard variables ask for traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return False
    return endpoint is not None or any(os.environ.get(name) for name in _ENDPOINT_VARIABLES)


class Tracing:
    """The traces of one server; without an exporter it does nothing.

    Args:
        exporter: where spans go; None is nowhere.
    """

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None
        if exporter is not None:
            self._provider = _provider(exporter)
            self._tracer = self._provider.get_tracer("ramify.serving")

    @classmethod
    def to(cls, endpoint: str | None) -> Tracing:
        """Traces by OTLP over HTTP to `endpoint`, or to where the ``OTEL_`` variables say; none if neither is set.

        Raises:
            ConfigError: they are wanted, and the extra is not installed.
        """
        if not traces_wanted(endpoint):
            return cls()
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError as error:
            raise ConfigError(
                "traces are asked for (otlp_endpoint or OTEL_EXPORTER_OTLP_ENDPOINT), and OpenTelemetry is not "
                "installed: pip install 'ramify[otel]', or set OTEL_SDK_DISABLED=true"
            ) from error
        return cls(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces") if endpoint else OTLPSpanExporter())

    def close(self) -> None:
        """Send what is left. Blocks for seconds where nobody listens: call it on a thread."""
        if self._provider is not None:
            self._provider.shutdown()

    @contextmanager
    def request(self, record: RequestRecord, headers: Mapping[str, str]) -> Iterator[None]:
        """The span of an HTTP request; it continues the caller's trace where `headers` have a ``traceparent``."""
        if self._tracer is None:
            yield
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract(headers)
        with self._tracer.start_as_current_span(
            record.method,
            parent,
            SpanKind.SERVER,
            {"http.request.method": record.method},
            start_time=_unix_ns(record.arrived_s),
        ) as span:
            try:
                yield
            finally:
                span.update_name(f"{record.method} {record.route}")
                span.set_attributes(
                    {
                        "http.route": record.route,
                        "http.response.status_code": record.status,
                        "ramify.request_id": record.request_id,
                        "ramify.key": record.caller,
                    }
                )
                if record.status >= 500:
                    span.set_attribute("error.type", record.code or str(record.status))
                    span.set_status(Status(StatusCode.ERROR))

    def answered(self, answer: Answered, params: SamplingParams, cached_tokens: int, record: RequestRecord) -> None:
        """The spans of a generation that ended: itself, and in it queue, prefill and decode."""
        if self._tracer is None:
            return
        operation = _OPERATIONS.get(record.route, "chat")
        attributes: Attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": _PROVIDER,
            "gen_ai.request.model": answer.model,
            "gen_ai.response.model": answer.model,
            "gen_ai.response.id": record.request_id,
            "gen_ai.response.finish_reasons": [answer.finished_reason],
            "gen_ai.usage.input_tokens": answer.prompt_tokens,
            "gen_ai.usage.output_tokens": answer.generated_tokens,
            "gen_ai.usage.cache_read.input_tokens": cached_tokens,
            **_request_attributes(params),
        }
        times = answer.token_times_s
        if answer.finished_reason == "error":
            attributes["error.type"] = "engine_error"
        parent = self._span(f"{operation} {answer.model}", answer.arrived_s, answer.ended_s, attributes)
        self._span("queue", answer.arrived_s, answer.started_s, {}, parent)
        if times:
            self._span("prefill", answer.started_s, times[0], {}, parent)
            self._span("decode", times[0], times[-1], {}, parent)

    def ran(self, model: str, strategy: str, result: Result, started_s: float, ended_s: float) -> None:
        """The span of a method's run that ended, with its ledger."""
        if self._tracer is None:
            return
        attributes: Attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": _PROVIDER,
            "gen_ai.request.model": model,
            "ramify.strategy": strategy,
            "ramify.stop_reason": result.stop_reason,
            "ramify.candidates": len(result.candidates),
            "gen_ai.usage.input_tokens": result.ledger.prompt,
            "gen_ai.usage.output_tokens": result.ledger.generated + result.ledger.program,
        }
        attributes |= {f"ramify.ledger.{name}": value for name, value in result.ledger.to_dict().items()}
        self._span(f"strategy {strategy}", started_s, ended_s, attributes)

    def _span(
        self, name: str, start_s: float, end_s: float, attributes: Attributes, parent: Context | None = None
    ) -> Context:
        """A span of known times (of `time.perf_counter`) below `parent`, or below the current one."""
        from opentelemetry.trace import set_span_in_context

        assert self._tracer is not None
        span = self._tracer.start_span(name, parent, attributes=attributes, start_time=_unix_ns(start_s))
        span.end(_unix_ns(max(start_s, end_s)))
        return set_span_in_context(span, parent)


def _unix_ns(moment_s: float) -> int:
    """Of a moment of `time.perf_counter`."""
    return int(moment_s * 1e9) + time.time_ns() - time.perf_counter_ns()


def _request_attributes(params: SamplingParams) -> Attributes:
    """Numbers only: stop strings are words of the client."""
    wanted = {
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "seed": params.seed,
        "choice.count": params.n,
    }
    return {f"gen_ai.request.{name}": value for name, value in wanted.items() if value is not None}


def _provider(exporter: SpanExporter) -> TracerProvider:
    """A provider of this server's own (not the process's), by the standard variables."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create({} if named else {"service.name": _PROVIDER}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
