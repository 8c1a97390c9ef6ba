"""Engines that take turns: each in a pinned process of its own, stopped (SIGSTOP) while it is not its turn.

A stopped process can neither spin nor tidy up, so that whoever runs has the cores alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.lab.engines.base import MissingError
from benchmarks.lab.engines.catalog import Kind

ROOT = Path(__file__).resolve().parents[2]


class BrokenEngineError(Exception):
    """An engine broke; the text says how."""


class Worker:
    """An engine's process.

    Args:
        kind: which engine.
        folder: of the model.
        threads: it may use, one pinned to each of `cores`.
        cores: numbers of the cores.
        log: file for what it prints.
    """

    def __init__(self, kind: Kind, folder: Path, threads: int, cores: Sequence[int], log: Path) -> None:
        self.kind = kind
        self._log = log.open("a")
        command = [sys.executable, "-m", "benchmarks.lab.worker", kind.name, str(folder), str(threads)]
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [*command, ",".join(map(str, cores))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment(threads),
            cwd=Path.cwd(),
        )
        self.started_at = started
        self._stopped = False

    def ask(self, **job: Any) -> dict[str, Any]:
        """Let it do a job, and stop it again.

        Raises:
            MissingError: it cannot do such a job.
            BrokenEngineError: it failed or died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._stopped:
            self._process.send_signal(signal.SIGCONT)
        self._stopped = False
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BrokenEngineError(f"its process ended with code {self._process.wait()}; its log is {self._log.name}")
        self._process.send_signal(signal.SIGSTOP)
        self._stopped = True
        answer: dict[str, Any] = json.loads(line)
        if "missing" in answer:
            raise MissingError(answer["missing"])
        if "fault" in answer:
            raise BrokenEngineError(answer["fault"])
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._log.close()


def environment(threads: int) -> dict[str, str]:
    """The environment of an engine's process: this repository's modules, and as many threads as asked for."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
