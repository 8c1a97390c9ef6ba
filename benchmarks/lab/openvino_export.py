"""A checkpoint in OpenVINO's form, compressed by optimum-intel with its own defaults.

optimum-intel holds transformers at an older version than ramify needs, so it lives in an environment of its own, made
when it is first wanted, from the pins of `export-requirements.txt`. OpenVINO GenAI itself needs none of it to run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.lab.engines.base import MissingError

REQUIREMENTS = Path(__file__).with_name("export-requirements.txt")
ENVIRONMENT = Path("runs/bench/openvino-export")
_GROUP = 128


def export(checkpoint: Path, target: Path, form: str) -> None:
    """Write the "int8" or "int4" model, unless it is there.

    Raises:
        MissingError: it could not be made; says why and where the log is.
    """
    if target.exists():
        return
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    program = _program()
    command = [str(program), "export", "openvino", "--model", str(checkpoint)]
    command += ["--task", "text-generation-with-past", "--weight-format", form, *_group(checkpoint, form), str(part)]
    log = target.with_name(target.name + ".log")
    _run(command, log)
    os.replace(part, target)


def _group(checkpoint: Path, form: str) -> list[str]:
    """int4's groups of 128, or the most that divides every row where 128 does not."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    heads = config["num_attention_heads"]
    rows = (
        config["hidden_size"],
        config["intermediate_size"],
        heads * (config.get("head_dim") or config["hidden_size"] // heads),
    )
    group = next(size for size in (_GROUP, 64, 32, 16, 1) if all(row % size == 0 for row in rows))
    return ["--group-size", str(group)] if form == "int4" and group != _GROUP else []


def _program() -> Path:
    """optimum-intel's command, installed if it is not there."""
    named = os.environ.get("OPTIMUM_CLI")
    if named:
        return Path(named)
    program = ENVIRONMENT.resolve() / "bin" / "optimum-cli"
    done = ENVIRONMENT / "complete"
    if done.exists():
        return program
    print(f"making {ENVIRONMENT} for optimum-intel ...", file=sys.stderr, flush=True)
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    pip = [str(ENVIRONMENT.resolve() / "bin" / "python"), "-m", "pip", "install", "-q", "-r", str(REQUIREMENTS)]
    _run(pip, ENVIRONMENT / "install.log")
    done.touch()
    return program


def _run(command: list[str], log: Path) -> None:
    with log.open("w") as file:
        try:
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        except OSError as error:
            raise MissingError(f"{command[0]} cannot be started: {error}") from error
    if code != 0:
        last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
        raise MissingError(f"{Path(command[0]).name} failed ({''.join(last)[:200]}); its log is {log}")
