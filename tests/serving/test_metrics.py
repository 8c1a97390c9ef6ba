"""The metrics as a whole: their names, their labels, and the page that lists them."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

from ramify.engine.stats import STEP_ROWS, EngineStats
from ramify.serving.admission import QueueState
from ramify.serving.engine_metrics import EngineView
from ramify.serving.metrics import Answered, Metrics, metric_names
from ramify.strategies.kernel.ledger import Ledger

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "operations.md"
OF_VLLM = (
    "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prefix_cache_queries_total",
    "prefix_cache_hits_total", "prompt_tokens_total", "generation_tokens_total", "num_preemptions_total",
    "request_success_total", "time_to_first_token_seconds", "inter_token_latency_seconds",
    "request_time_per_output_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds",
    "request_prefill_time_seconds", "request_decode_time_seconds", "request_prompt_tokens",
    "request_generation_tokens", "iteration_tokens_total",
)  # fmt: skip


def test_the_page_lists_every_metric_as_it_is() -> None:
    rows = [f"| `{name}` | {kind} | {text} |" for name, kind, text in metric_names(Metrics(dict).registry)]
    found = re.search(
        r"<!-- metrics -->\n\| metric [^\n]*\n\|---[^\n]*\n(.*?)<!-- /metrics -->", PAGE.read_text(), re.DOTALL
    )
    assert found is not None
    assert found[1].splitlines() == rows


def test_what_dashboards_for_vllm_read_is_there() -> None:
    names = {name for name, _, _ in metric_names(Metrics(dict).registry)}
    assert {f"vllm:{name}" for name in OF_VLLM} <= names
    assert all(name.startswith(("vllm:", "ramify:", "process_")) for name in names)


def test_an_engine_that_is_away_shows_as_down_and_one_that_is_not_loaded_not_at_all() -> None:
    stats = EngineStats(running=3, waiting=2, blocks_used=5, blocks_total=20, steps=7, rows=30, preemptions=4,
                        steps_by_rows=(2, 1, *[0] * (len(STEP_ROWS) - 3), 3))  # fmt: skip
    views = {
        "well": EngineView(True, stats, 1, QueueState(6, 2.5)),
        "dead": EngineView(False, restarts=4),
        "idle": EngineView(None),
    }
    registry = Metrics(lambda: views).registry

    def value(name: str, model: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"model_name": model, **labels})

    assert [value("ramify:engine_up", name) for name in views] == [1, 0, None]
    assert [value("ramify:engine_restarts_total", name) for name in views] == [1, 4, 0]
    assert [value("vllm:num_requests_waiting", name) for name in views] == [2 + 6, 0, None]
    assert value("vllm:kv_cache_usage_perc", "well") == 0.25
    assert value("ramify:expected_wait_seconds", "well") == 2.5
    buckets = [value("vllm:iteration_tokens_total_bucket", "well", le=str(float(rows))) for rows in STEP_ROWS]
    assert buckets == [2, *[3] * (len(STEP_ROWS) - 2), 6]
    assert value("vllm:iteration_tokens_total_bucket", "well", le="+Inf") == 7


def test_times_of_an_answer_are_split_where_they_belong() -> None:
    metrics = Metrics(dict)
    metrics.answered(Answered("m", "stop", 10, 4, arrived_s=1, started_s=2, ended_s=8, token_times_s=(4, 5, 7)))
    metrics.answered(Answered("m", "abort", 10, 0, arrived_s=1, started_s=2, ended_s=3))
    expected = {
        "vllm:request_queue_time_seconds": 1 + 1,
        "vllm:request_prefill_time_seconds": 2,
        "vllm:request_decode_time_seconds": 3,
        "vllm:request_inference_time_seconds": 5,
        "vllm:time_to_first_token_seconds": 3,
        "vllm:inter_token_latency_seconds": 1 + 2,
        "vllm:request_time_per_output_token_seconds": 1.5,
        "vllm:e2e_request_latency_seconds": 7 + 2,
    }
    for name, total in expected.items():
        assert metrics.registry.get_sample_value(f"{name}_sum", {"model_name": "m"}) == total, name


def test_a_run_of_a_method_is_counted_by_its_ledger() -> None:
    metrics = Metrics(dict)
    ledger = Ledger(generated=100, verifier=40, probe=3, program=7, discarded=25, shared=60, saved=-5)
    result = SimpleNamespace(ledger=ledger, stop_reason="budget")
    metrics.ran("m", "best-of-n", result)  # type: ignore[arg-type]
    metrics.ran("m", "best-of-n", result)  # type: ignore[arg-type]

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"model_name": "m", "strategy": "best-of-n", **labels})

    for purse in ("generated", "verifier", "probe", "program", "discarded"):
        assert value("ramify:strategy_tokens_total", purse=purse) == 2 * getattr(ledger, purse)
    assert value("ramify:strategy_runs_total", stop_reason="budget") == 2
    assert (value("ramify:strategy_shared_tokens_total"), value("ramify:strategy_saved_tokens_total")) == (120, 0)


def test_no_word_of_a_client_becomes_a_label() -> None:
    metrics = Metrics(dict)
    for number in range(50):
        metrics.http_ended(f"BREW{number}", "unmatched", 404, 0.1)
    series = [
        sample
        for family in metrics.registry.collect()
        for sample in family.samples
        if "http_requests_total" in sample.name
    ]
    assert len(series) == 1
