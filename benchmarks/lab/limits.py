"""What the machine can do: measured by a small program that is compiled here, on the same pinned threads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from benchmarks.lab.engines.base import MissingError

_SOURCE = Path(__file__).with_name("limits.cpp")


@cache
def _program() -> Path:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise MissingError("there is no C++ compiler to build limits.cpp with")
    program = Path(tempfile.mkdtemp(prefix="ramify-limits-")) / "limits"
    command = [compiler, "-std=c++20", "-O3", "-march=native", "-pthread", str(_SOURCE), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise MissingError(f"limits.cpp does not compile here: {built.stderr.strip().splitlines()[-1:]}")
    return program


def measure_limits(threads: int, cores: Sequence[int]) -> dict[str, float]:
    """Billions of int8, bfloat16 (where there is an instruction for it) and float32 operations, and of bytes, a second.

    Raises:
        MissingError: the program cannot be built here.
    """
    program = _program()
    output = subprocess.run(
        [str(program), str(threads)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    ).stdout
    found: dict[str, float] = json.loads(output)
    return found
