"""The run beside the server's log: the same requests, found by their ids, counted twice; the command that shows it."""

from __future__ import annotations

import json
import logging
from asyncio import to_thread
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ramify.cli.main import app
from ramify.errors import ConfigError
from ramify.serving.bench.client import Measured
from ramify.serving.bench.server_log import compare
from ramify.serving.logs import JsonFormatter
from tests.serving.bench.test_drive import Clockwork, clockwork
from tests.serving.in_process import serving_in_process


def measured(number: int) -> Measured:
    return Measured(
        float(number), sent_s=number + 0.001, token_times_s=[number + 0.1, number + 0.3, number + 0.5],
        ended_s=number + 0.6, output_tokens=3, status=200, request_id=f"r-{number}",
    )  # fmt: skip


def line(number: int, **more: object) -> str:
    at = 1000.0 + number
    fields = {
        "request_id": f"r-{number}", "arrived_at": at, "first_token_at": at + 0.1, "last_token_at": at + 0.5,
        "ttft_s": 0.08, "duration_s": 0.5, "generated_tokens": 3,
    }  # fmt: skip
    return json.dumps(fields | more)


def test_each_latency_is_counted_from_the_fields_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    others = ["not json", "[1]", json.dumps({"message": "started"}), line(77)]
    log.write_text("\n".join([*others, *(line(number) for number in range(4))]))
    found = compare([*map(measured, range(4)), Measured(9.0, error="HTTP 500")], log)
    assert (found.matched, found.missing) == (4, 0)
    here, there = ({name: getattr(both, side).mean for name, both in found.rows.items()} for side in ("here", "log"))
    assert here == pytest.approx({"ttft": 100, "tpot": 200, "e2el": 600})
    assert there == pytest.approx({"ttft": 80, "tpot": 200, "e2el": 500})
    assert found.rows["ttft"].differences == pytest.approx({50.0: 0.25, 90.0: 0.25, 95.0: 0.25, 99.0: 0.25})
    assert json.loads(json.dumps(found.to_dict()))["matched"] == 4


def test_an_answer_of_one_token_has_no_time_per_further_token(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(line(0, generated_tokens=1) + "\n" + line(1, first_token_at=1001.5))
    found = compare([measured(0), measured(1)], log)
    assert found.rows["tpot"].log.count == 1
    assert found.rows["tpot"].differences[50.0] != found.rows["tpot"].differences[50.0]  # a share of nothing


def test_requests_that_a_log_lacks_are_said_to_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramify.serving.bench.server_log.WAIT_S", 0.05)
    log = tmp_path / "server.log"
    log.write_text(line(0))
    found = compare([measured(0), measured(1)], log)
    assert (found.matched, found.missing) == (1, 1)
    with pytest.raises(ConfigError, match="holds none of these requests"):
        compare([measured(5)], log)
    with pytest.raises(ConfigError, match="cannot be read"):
        compare([measured(5)], tmp_path / "nowhere")


async def test_the_command_shows_what_both_counted(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    handler = logging.FileHandler(log)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("ramify.request")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    asked = ["--num-prompts", "6", "--request-rate", "50", "--input-len", "8", "--output-len", "4", "--prefix-len", "4"]
    try:
        async with serving_in_process({"nano": "nano"}) as (url, _):
            given = ["bench", "serve", "--base-url", f"{url}/v1", *asked, "--server-log", str(log)]
            shown = await to_thread(CliRunner().invoke, app, [*given, "--turns", "2", "--think-time", "0"])
            told = await to_thread(CliRunner().invoke, app, [*given, "-o", str(tmp_path / "out"), "--json"])
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert shown.exit_code == told.exit_code == 0, shown.output + told.output
    assert "server's log" in shown.stdout
    assert all(f" {name} " in shown.stdout for name in ("TTFT", "TPOT", "E2EL", "p50", "p99"))
    assert "12 requests found in the log" in shown.stdout
    report = json.loads(told.stdout)
    assert report["completed"] == report["server_log"]["matched"] == 6
    assert report["total_output_tokens"] == 24
    for name in ("ttft", "tpot", "e2el"):
        assert report["server_log"][name]["log"]["count"] == 6
    assert report == json.loads((tmp_path / "out" / "summary.json").read_text())
    rows = [json.loads(row) for row in (tmp_path / "out" / "requests.jsonl").read_text().splitlines()]
    assert {row["request_id"] for row in rows} <= {
        json.loads(each)["request_id"] for each in log.read_text().splitlines()
    }
    assert rows[0]["intended_s"] == pytest.approx(0.0)


async def test_the_command_says_what_failed_and_refuses_what_cannot_be() -> None:
    async with clockwork(Clockwork(fail_every=1)) as address:
        given = ["bench", "serve", "--base-url", str(address), "--tokens-per-word", "1", "--num-prompts", "2"]
        failed = await to_thread(CliRunner().invoke, app, [*given, "--request-rate", "inf"])
        assert failed.exit_code != 0
        assert "HTTP 503" in str(failed.exception) + failed.output
        wrong = (("--base-url", "nowhere"), ("--max-concurrency", "0"), ("--server-log", "/nowhere/x"))
        for option in wrong:
            assert (await to_thread(CliRunner().invoke, app, [*given, *option])).exit_code != 0, option


async def test_a_log_of_something_else_is_told_when_the_run_is_saved(tmp_path: Path) -> None:
    other = tmp_path / "other.log"
    other.write_text("nothing of this run\n")
    out = tmp_path / "out"
    async with clockwork(Clockwork()) as address:
        given = ["bench", "serve", "--base-url", str(address), "--tokens-per-word", "1", "--num-prompts", "2"]
        given += ["--request-rate", "inf", "--server-log", str(other), "-o", str(out)]
        told = await to_thread(CliRunner().invoke, app, given)
    assert told.exit_code != 0
    assert "holds none of these requests" in str(told.exception) + told.output
    assert json.loads((out / "summary.json").read_text())["completed"] == 2
    assert len((out / "requests.jsonl").read_text().splitlines()) == 2
