"""A kill, a full disk or a torn line costs the work in flight: the next run's report is that of an undisturbed one."""

import errno
import json
import os
import signal
import time
from pathlib import Path

import pytest

from ramify.backends.toy import ToyBackend
from ramify.errors import ConfigError
from ramify.evals.comparison import compare, comparison_json
from ramify.evals.jsonl import Journal, read_journal
from ramify.evals.runner import Evaluation, evaluate
from ramify.evals.sizing import opened
from ramify.strategies import parse_strategy
from tests.evals.toy_task import PROBLEMS, ToyTask, make_backend
from tests.warm_python import Program

COMMAND = (
    "eval", "-t", "countdown", "-p", "6", "--budgets", "60,120", "-s", "sample:temperature=0", "-s", "best-of-n",
    "-s", "self-consistency", "-e", "num_threads=1", "--concurrency", "4",
)  # fmt: skip
RECORDS = 6 * 6
"""Evaluated ones; those of the pilot problems come on top."""
TIMEOUT_S = 240


def start(python: str, folder: Path) -> Program:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with open(os.devnull, "r+b") as nothing:
        return Program(python, ["ramify", *COMMAND, "-o", str(folder)], environment, [nothing.fileno()] * 3)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_after(python: str, folder: Path, records: int) -> None:
    """Start a run and kill it, without warning, once its journal has grown by so many records."""
    journal = folder / "results.jsonl"
    wanted = lines(journal) + records
    process = start(python, folder)
    deadline = time.monotonic() + TIMEOUT_S
    while lines(journal) < wanted:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait(TIMEOUT_S) == -signal.SIGKILL


def test_a_run_killed_twice_ends_in_the_report_of_an_undisturbed_one(tmp_path: Path, warm_python: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(warm_python, whole).wait(TIMEOUT_S) == 0
    kill_after(warm_python, killed, 12)  # while sizes are fitted
    kill_after(warm_python, killed, 40)  # while problems are evaluated
    assert not (killed / "report.json").exists()
    before = (killed / "results.jsonl").read_bytes()
    assert start(warm_python, killed).wait(TIMEOUT_S) == 0
    for name in ("report.json", "plot.svg", "plot.png"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    data = (killed / "results.jsonl").read_bytes()
    assert data.startswith(before[: before.rindex(b"\n") + 1])  # what was recorded stays
    places = [(r["strategy"], r["budget"], r["problem"]) for r in read_journal(killed / "results.jsonl")[1]]
    assert len(places) == len(set(places)) > RECORDS  # and nothing was done twice
    assert {"wall_s"} < set(json.loads((killed / "timings.json").read_text())["rows"][0])


SPECS = ["self-consistency", "best-of-n:model=toy-prm"]


async def run(path: Path, backend: ToyBackend | None = None, seed: int = 0) -> Evaluation:
    strategies = [opened(parse_strategy(spec), spec) for spec in SPECS]
    return await evaluate(
        strategies, ToyTask(), PROBLEMS, backend or make_backend(),
        path=path, model="toy", budgets=["20", "40"], seed=seed, concurrency=2,
    )  # fmt: skip


def report(found: Evaluation) -> str:
    return json.dumps(comparison_json(compare(found)), allow_nan=False)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
async def test_a_journal_torn_anywhere_gives_the_same_sizes_and_report(tmp_path: Path, share: float) -> None:
    whole = report(await run(tmp_path / "whole.jsonl"))
    data = (tmp_path / "whole.jsonl").read_bytes()
    (tmp_path / "torn.jsonl").write_bytes(data[: int(len(data) * share)])
    assert report(await run(tmp_path / "torn.jsonl")) == whole


@pytest.mark.parametrize("after", [1, 20])
async def test_a_disk_that_fills_up_stops_the_run_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    whole = report(await run(tmp_path / "whole.jsonl"))
    path = tmp_path / "full.jsonl"
    opening = Journal.__init__

    class FullDisk:
        """The journal's file, on a disk with room for half a record more than `after`."""

        def __init__(self, file: object) -> None:
            self.file = file
            self.left = after

        def write(self, data: bytes) -> int:
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.left -= 1
            return int(self.file.write(data if self.left >= 0 else data[: len(data) // 2]))  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    def open_on_full_disk(self: Journal, *arguments: object) -> None:
        opening(self, *arguments)  # type: ignore[arg-type]
        self._file = FullDisk(self._file)  # type: ignore[assignment]

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "__init__", open_on_full_disk)
        with pytest.raises(OSError, match="No space left"):
            await run(path)
    assert path.read_bytes().endswith(b"\n")  # the half record is gone
    assert len(read_journal(path)[1]) == after
    assert report(await run(path)) == whole


async def test_a_journal_of_other_settings_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    await run(path)
    before = path.read_bytes()
    backend = make_backend()
    with pytest.raises(ConfigError, match="seed was 0 and is now 1"):
        await run(path, backend, seed=1)
    assert path.read_bytes() == before
    assert backend.usage.calls == 0
