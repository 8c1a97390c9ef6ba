"""The performance laboratory runs, names what is missing, and goes on where it was stopped. No time is asserted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.lab import operators, tournament
from benchmarks.lab.drive import Arrival, Timeline, drive
from benchmarks.lab.engines import catalog
from benchmarks.lab.engines.base import Capacity, Engine, MissingError, Request
from benchmarks.lab.engines.catalog import KINDS, Kind
from benchmarks.lab.engines.hf_engine import HFEngine
from benchmarks.lab.engines.ramify_engine import RamifyEngine
from benchmarks.lab.main import main
from benchmarks.lab.records import Record, Records
from benchmarks.lab.report import best_ratio
from benchmarks.lab.shapes import SHAPES, make_checkpoint
from benchmarks.lab.turns import BrokenEngineError, Worker
from benchmarks.lab.worker import _JOBS, _memory


class WorkerHere:
    """A worker without a process of its own, which would import torch again."""

    def __init__(self, kind: Kind, folder: Path, threads: int, cores: Sequence[int], log: Path) -> None:
        self.engine = kind.make(folder, threads)

    def ask(self, **job: Any) -> dict[str, Any]:
        answer = _JOBS[job["do"]](self.engine, json.loads(json.dumps(job)))
        return {**json.loads(json.dumps(answer)), "memory": {"libraries": 0, **_memory()}}

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_checkpoint(SHAPES["tiny"], folder / "checkpoint")
    return folder


def test_the_laboratory_runs_the_engines_in_turn_and_writes_its_tables(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tournament, "Worker", WorkerHere)
    home = folder.parent
    (home / "tiny").symlink_to(folder)
    arguments = ["--home", str(home), "--shape", "tiny", "--smoke", "--threads", "1"]
    arguments += ["--engines", "ramify-bf16,transformers", "--parts", "rates,search,cold-start,memory"]

    tables = main(arguments)

    text = tables.read_text()
    for row in ("prefill, 32 tokens", "decode, batch 4", "4 mixed arrivals", "4 samples", "beam search", "cold start"):
        assert row in text
    assert "transformers BF16, beam search" in text, "what was not measured is named"
    assert tables.with_suffix(".svg").exists()
    data = json.loads(tables.with_suffix(".json").read_text())
    assert data["results"]["decode-4"]["1 threads"]["ratios"]["16 bits"]["rounds"] == 1
    before = tables.with_suffix(".jsonl").read_text().count("tokens/s")
    main(arguments)
    assert tables.with_suffix(".jsonl").read_text().count("tokens/s") == before, "nothing is measured twice"


def test_both_engines_continue_a_prompt_alike_and_give_the_same_logits(folder: Path) -> None:
    request = Request(tuple(range(40, 90)), 6)
    engines: list[Engine] = [RamifyEngine(folder, 1, "bfloat16"), HFEngine(folder, 1, "bfloat16")]
    seen = []
    for engine in engines:
        engine.prepare(Capacity(3, 60))
        timeline = drive(engine, [Arrival(0.0, request), Arrival(0.0, replace(request, samples=2))])
        assert [len(times) for times in timeline.times_s] == [6, 6, 6]
        seen.append(engine.logits(request.prompt))
    assert seen[0].shape == (50, 512)
    assert abs(seen[0] - seen[1]).max() < 0.05


def test_an_engine_that_is_not_installed_is_named(folder: Path) -> None:
    kind = replace(KINDS["llamacpp-q8_0"], package="no_such_package")
    with pytest.raises(MissingError, match="no_such_package is not installed"):
        kind.check(folder)


def test_a_process_that_cannot_start_its_engine_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llama_cpp", None)
    kind = KINDS["llamacpp-q8_0"]
    worker = Worker(kind, folder / "nowhere", 1, [0], folder / "log.txt")
    try:
        with pytest.raises(BrokenEngineError):
            worker.ask(do="prepare", capacity={"sequences": 1, "tokens": 8})
    finally:
        worker.close()


def test_a_name_that_is_no_engine_is_refused() -> None:
    assert [kind.name for kind in catalog.pick("openvino")] == ["openvino-int8", "openvino-int4"]
    with pytest.raises(SystemExit, match="vllm"):
        catalog.pick("vllm")


def test_the_rate_of_a_full_batch_counts_only_what_is_drawn_while_all_draw() -> None:
    timeline = Timeline((0.0, 0.0), ((1.0, 2.0, 3.0, 4.0), (2.0, 3.0, 4.0, 5.0)))
    assert timeline.full_batch_rate == pytest.approx(4 / 2)
    assert timeline.first_token_s == [1.0, 2.0]


def test_records_survive_a_run_that_was_killed_while_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    records = Records(path)
    for number, value in enumerate((10.0, 30.0, 20.0)):
        records.add(Record("decode-1", 1, number, "ramify-w4a8", value, "tokens/s"))
        records.add(Record("decode-1", 1, number, "llamacpp-q4_0", 10.0, "tokens/s"))
    with path.open("a") as file:
        file.write('{"workload": "deco')

    again = Records(path)

    assert again.rounds_done("decode-1", 1, ["ramify-w4a8", "llamacpp-q4_0"]) == {0, 1, 2}
    assert not again.rounds_done("decode-1", 1, ["ramify-w4a8", "openvino-int4"])
    ratio = best_ratio(again, "decode-1", 1)
    assert ratio is not None
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 1.0, 3.0)


def test_fewer_seconds_make_a_better_ratio(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.jsonl")
    records.add(Record(tournament.COLD, 1, 0, "ramify-w8a8", 1.0, "s"))
    records.add(Record(tournament.COLD, 1, 0, "openvino-int8", 2.0, "s"))
    records.add(Record(tournament.COLD, 1, 0, "openvino-int4", 3.0, "s"))
    ratio = best_ratio(records, tournament.COLD, 1)
    assert ratio is not None
    assert (ratio.peer, ratio.median) == ("openvino-int8", 2.0)


def test_the_tables_of_a_shape_take_the_place_between_its_marks(tmp_path: Path) -> None:
    records = Records(tmp_path / "tiny" / "smoke.jsonl")
    machine = {"processor": "a processor", "cores": 2, "kernels": "avx2"}
    records.add(Record("machine", 0, 0, "", None, "", more=machine))
    for threads in (1, 2):
        records.add(Record("decode-4", threads, 0, "ramify-w4a8", 30.0 * threads**2, "tokens/s"))
        records.add(Record("decode-4", threads, 0, "llamacpp-q4_0", 10.0, "tokens/s"))
        records.add(Record("operator", threads, 0, "norm", 5.0, "GB/s", more={"share": 0.5}))
    page = tmp_path / "page.md"
    rest = "<!-- other begin -->\nkept\n<!-- other end -->\n"
    page.write_text(f"before\n<!-- tiny begin -->\nstale\n<!-- tiny end -->\n{rest}")
    (tmp_path / "assets").mkdir()
    arguments = ["--home", str(tmp_path), "--shape", "tiny", "--smoke", "--report", "--docs", str(page)]

    main(arguments)

    text = page.read_text()
    assert "ramify's kernels: avx2" in text
    assert "| decode, batch 4 | **3.00** | 3.00 | ramify W4A8, llama.cpp Q4_0 |" in text
    assert "| decode, batch 4 | **12.00** | 12.00 | ramify W4A8, llama.cpp Q4_0 |" in text
    assert "| norm | 5.0 GB/s, 50% | 5.0 GB/s, 50% |" in text
    assert "stale" not in text
    assert text.startswith("before\n")
    assert text.endswith(rest)
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="tiny begin"):
        main(arguments)


def test_operators_that_are_torchs_are_not_held_against_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operators, "extension", lambda: None)
    monkeypatch.setattr(operators, "why_not", lambda: "there is no compiler")
    records = Records(tmp_path / "records.jsonl")
    operators.measure_operators(tournament.Field(tmp_path, [], [0], 1, records), {"read_gb_s": 1.0})
    assert "there is no compiler" in capsys.readouterr().out
    assert not list(records)
