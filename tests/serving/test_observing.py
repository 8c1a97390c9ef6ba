"""What is seen of every HTTP request: its id, its line in the log, its counts, its deadline, its trace."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from ramify.errors import ConfigError
from ramify.serving.app import create_app
from ramify.serving.config import ServerConfig
from ramify.serving.logs import JsonFormatter, RequestLog, TextFormatter, line_of, request_id
from ramify.serving.records import RequestRecord
from ramify.serving.server import Server
from ramify.serving.tracing import Tracing
from tests.serving.conftest import serving_app
from tests.serving.in_process import launch_in_process

QUESTION = "Use the numbers 3, 7 and 4 to make 25. Use every number exactly once."
SECRET = "xylophone"
CHAT = {"model": "nano", "messages": [{"role": "user", "content": f"{QUESTION} {SECRET}"}], "max_tokens": 24, "seed": 3}
ENDLESS = {"model": "nano", "prompt": QUESTION, "max_tokens": 400, "ignore_eos": True}


@contextmanager
def log_lines() -> Iterator[list[dict[str, Any]]]:
    """The lines that requests write meanwhile, in JSON's form."""
    lines: list[dict[str, Any]] = []
    stream = SimpleNamespace(write=lambda text: text.strip() and lines.append(json.loads(text)), flush=lambda: None)
    handler = logging.StreamHandler(stream)  # type: ignore[type-var]
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("ramify.request")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_server_shows_what_it_does_in_log_metrics_and_traces_and_never_what_was_said() -> None:
    server = Server(ServerConfig({"nano": "nano"}, storage_url=":memory:", engine={"max_model_len": 512}))
    server.models._loader.launch = launch_in_process
    spans = InMemorySpanExporter()
    server.tracing = Tracing(spans)
    with log_lines() as lines:
        async with serving_app(create_app(server)) as url, httpx2.AsyncClient(base_url=url, timeout=60) as http:
            trace = "0af7651916cd43dd8448eb211c80319c"
            headers = {"X-Request-Id": "mine-1", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
            whole = await http.post("/v1/chat/completions", json=CHAT, headers=headers)
            assert whole.headers["x-request-id"] == "mine-1"
            streamed = await http.post("/v1/chat/completions", json={**CHAT, "stream": True})
            assert re.fullmatch(r"req-[0-9a-f]{32}", streamed.headers["x-request-id"])
            cut = await http.post("/v1/completions", json=ENDLESS, headers={"X-Request-Timeout-Ms": "40"})
            assert cut.status_code == 408
            assert cut.json()["error"]["code"] == "deadline_exceeded"
            late = await http.post("/v1/completions", json={**ENDLESS, "stream": True, "timeout": 0.2})
            assert late.status_code in (200, 408)
            assert "deadline_exceeded" in late.text
            for wrong in ("0", "-5", "soon", "1e3", "9" * 30):
                refused = await http.post("/v1/completions", json=ENDLESS, headers={"X-Request-Timeout-Ms": wrong})
                assert refused.status_code == 400
            headers = {"X-Request-Id": "voted"}
            voted = await http.post(
                "/v1/chat/completions", json={**CHAT, "model": "nano@self-consistency:n=2"}, headers=headers
            )
            assert voted.status_code == 200, voted.text
            missing = await http.get("/v1/nothing")
            assert missing.status_code == 404
            for _ in range(200):
                stats = server.models.stats()["nano"]
                if not stats.running:
                    break
                await asyncio.sleep(0.01)
            assert stats.running == stats.blocks_used == 0
            seen = samples((await http.get("/metrics")).text)
            await asyncio.to_thread(server.tracing._provider.force_flush)  # type: ignore[union-attr]
    lines.sort(key=lambda each: each["arrived_at"])  # a stream's line comes after the client has it all
    usage = whole.json()["usage"]
    reason = whole.json()["choices"][0]["finish_reason"]
    told, line = "".join(map(json.dumps, lines)), lines[0]
    assert SECRET not in told
    assert whole.json()["choices"][0]["message"]["content"][:20] not in told
    assert (line["request_id"], line["route"], line["status"]) == ("mine-1", "/v1/chat/completions", 200)
    assert (line["model"], line["key"], line["finish"]) == ("nano", "anonymous", reason)
    assert (line["prompt_tokens"], line["generated_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert line["arrived_at"] < line["first_token_at"] <= line["last_token_at"] <= line["ended_at"]
    assert line["ttft_s"] == pytest.approx(line["first_token_at"] - line["arrived_at"], abs=1e-5)
    assert [each["status"] for each in lines] == [200, 200, 408, late.status_code, *[400] * 5, 200, 404]
    assert [each.get("code") for each in lines[2:4]] == ["deadline_exceeded"] * 2
    assert all(each["route"] != "/metrics" for each in lines)

    nano = ("model_name", "nano")
    drawn = seen["vllm:generation_tokens_total", (nano,)]
    assert drawn == stats.generation_tokens >= seen["vllm:request_generation_tokens_sum", (nano,)]
    assert seen["vllm:time_to_first_token_seconds_count", (nano,)] >= 2
    chat = (("method", "POST"), ("route", "/v1/chat/completions"), ("status", "200"))
    assert seen["ramify:http_requests_total", chat] == 3
    assert seen["ramify:http_requests_total", (("method", "GET"), ("route", "unmatched"), ("status", "404"))] == 1
    assert seen["ramify:deadlines_missed_total", (("deadline", "client"), nano)] == 2
    assert seen["ramify:http_requests_in_flight", ()] == 1  # the scrape itself

    ledger, run = voted.json()["ramify"]["ledger"], lines[-2]
    assert (run["request_id"], run["strategy"], run["finish"]) == ("voted", "self-consistency", "finished")
    assert (run["prompt_tokens"], run["generated_tokens"]) == (ledger["prompt"], ledger["generated"])
    vote = (nano, ("purse", "generated"), ("strategy", "self-consistency"))
    plain = (nano, ("purse", "generated"), ("strategy", "none"))
    assert seen["ramify:strategy_tokens_total", vote] == ledger["generated"] > 0
    assert seen["ramify:strategy_tokens_total", plain] == seen["vllm:request_generation_tokens_sum", (nano,)]
    stopped = (nano, ("stop_reason", "finished"), ("strategy", "self-consistency"))
    assert seen["ramify:strategy_runs_total", stopped] == 1

    finished = spans.get_finished_spans()
    (strategy,) = (span for span in finished if span.name == "strategy self-consistency")
    (parent,) = (span for span in finished if span.attributes.get("ramify.request_id") == "voted")
    assert strategy.parent.span_id == parent.context.span_id
    assert strategy.attributes["ramify.ledger.generated"] == ledger["generated"]
    (request,) = (span for span in finished if span.attributes.get("ramify.request_id") == "mine-1")
    assert format(request.context.trace_id, "032x") == trace
    assert request.parent is not None
    assert format(request.parent.span_id, "016x") == "b7ad6b7169203331"
    assert request.name == "POST /v1/chat/completions"
    assert request.attributes["http.response.status_code"] == 200
    below = {span.name: span for span in finished if format(span.context.trace_id, "032x") == trace}
    answer = below["chat nano"]
    assert answer.parent.span_id == request.context.span_id
    assert answer.attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert answer.attributes["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert answer.attributes["gen_ai.request.max_tokens"] == 24
    for name in ("queue", "prefill", "decode"):
        assert below[name].parent.span_id == answer.context.span_id
        assert request.start_time - 10**6 <= below[name].start_time <= below[name].end_time <= request.end_time
    assert SECRET not in "".join(span.to_json() for span in finished)


@pytest.mark.parametrize("given", ["", "a b", "x\ny", "ä", "-x", "a" * 129, None, "<script>"])
def test_an_id_that_is_not_safe_to_repeat_is_replaced(given: str | None) -> None:
    assert request_id(given).startswith("req-")
    assert request_id("chatcmpl-1:2.3_4") == "chatcmpl-1:2.3_4"


def record_with_everything() -> RequestRecord:
    record = RequestRecord("r-1", "POST", "/v1/completions", arrived_s=10.0, arrived_unix_s=1000.0)
    record.model, record.status, record.finish = "nano", 200, ["stop", "length", "stop"]
    record.prompt_tokens, record.generated_tokens = 5, 7
    record.saw_tokens([10.5, 11.5])
    record.saw_tokens([10.25, 10.75])
    return record


def test_a_line_holds_what_times_are_counted_from() -> None:
    line = line_of(record_with_everything(), ended_s=12.0)
    assert (line["arrived_at"], line["first_token_at"], line["last_token_at"]) == (1000.0, 1000.25, 1001.5)
    assert (line["ended_at"], line["ttft_s"], line["duration_s"]) == (1002.0, 0.25, 2.0)
    assert (line["finish"], line["generated_tokens"]) == ("stop,length", 7)
    assert not {"code", "strategy", "background"} & line.keys()


def test_the_tokens_of_a_stream_count_when_their_text_was_sent() -> None:
    record = record_with_everything()
    record.sent_text(10.375)
    record.sent_text(11.75)
    line = line_of(record, ended_s=12.0)
    assert (line["ttft_s"], line["first_token_at"], line["last_token_at"]) == (0.375, 1000.375, 1001.75)
    record = RequestRecord("r-2", "POST", "/v1/completions", arrived_s=10.0, arrived_unix_s=1000.0)
    record.saw_tokens([10.5])  # all of it was held back
    line = line_of(record, ended_s=12.0)
    assert line["first_token_at"] == line["last_token_at"] == 1000.5


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_a_log_line_is_one_line_whatever_a_client_sent(formatter: logging.Formatter) -> None:
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.info("hello %s", "a\nforged line\x1b[31m", extra={"fields": {"name": "x\r\ny", "n": 1}})
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    if isinstance(formatter, JsonFormatter):
        assert json.loads(line)["name"] == "x\r\ny"
    else:
        assert "n=1" in line


def test_texts_are_in_the_log_only_where_the_operator_wants_them_and_this_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = record_with_everything()
    record.prompts, record.answers = ["what?"], ["that"]
    with log_lines() as lines:
        RequestLog().write(record)
        assert not caplog.messages or "prompts" not in caplog.messages[0]
        RequestLog(with_text=True).write(record)
    assert "what?" not in json.dumps(lines[0])
    assert (lines[1]["prompts"], lines[1]["answers"]) == (["what?"], ["that"])
    assert any("prompts and answers are written to the log" in message for message in caplog.messages)


def test_traces_are_off_unless_asked_for_and_a_wish_that_cannot_be_met_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Tracing.to(None)._tracer is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    wanted = Tracing.to(None)
    assert wanted._tracer is not None
    wanted.close()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert Tracing.to("http://127.0.0.1:1")._tracer is None
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"ramify\[otel\]"):
        Tracing.to(None)
