"""One engine in a process of its own, pinned before anything is imported; jobs and answers are JSON lines.

    python -m benchmarks.lab.worker ENGINE FOLDER THREADS CORES

Everything that an engine prints goes to the standard error, which the laboratory keeps in a file.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.lab.engines.base import Capacity, Engine, MissingError, Request


def main(name: str, folder: str, threads: int, cores: list[int]) -> None:
    """Answer jobs until the standard input ends."""
    os.sched_setaffinity(0, cores)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from benchmarks.lab.engines.catalog import KINDS

    libraries = _resident()
    engine: Engine | None = None
    for line in sys.stdin:
        job = json.loads(line)
        answer: dict[str, Any]
        try:
            if engine is None:
                engine = KINDS[name].make(Path(folder), threads)
            answer = _JOBS[job["do"]](engine, job)
        except MissingError as reason:
            answer = {"missing": str(reason)}
        except Exception as fault:
            traceback.print_exc()
            answer = {"fault": f"{type(fault).__name__}: {fault}"}
        answer["memory"] = {"libraries": libraries, **_memory()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _prepare(engine: Engine, job: dict[str, Any]) -> dict[str, Any]:
    engine.prepare(Capacity(**job["capacity"]))
    return {"about": engine.about(), "weights": engine.weights_bytes()}


def _run(engine: Engine, job: dict[str, Any]) -> dict[str, Any]:
    from benchmarks.lab.drive import Arrival, drive, to_json

    arrivals = [
        Arrival(each["at_s"], Request(**{**each["request"], "prompt": tuple(each["request"]["prompt"])}))
        for each in job["arrivals"]
    ]
    return to_json(drive(engine, arrivals))


def _search(engine: Engine, job: dict[str, Any]) -> dict[str, Any]:
    from benchmarks.lab.search import search

    return search(engine, job)


_JOBS: dict[str, Callable[[Engine, dict[str, Any]], dict[str, Any]]] = {
    "prepare": _prepare,
    "run": _run,
    "search": _search,
}


def _resident() -> int:
    return _memory()["now"]


def _memory() -> dict[str, int]:
    """Resident bytes now and at most so far."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in status.splitlines() if line.endswith(" kB")}
    return {"now": sizes["VmRSS"], "peak": sizes["VmHWM"]}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), [int(core) for core in sys.argv[4].split(",")])
