"""`ramify doctor`: what this machine offers, what ramify would do with it, and what is missing and how to get it."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ramify.cli import common
from ramify.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from ramify.kv.sizing import KVBudget

_CPUINFO = Path("/proc/cpuinfo")
_CGROUP = Path("/sys/fs/cgroup")
_INSTRUCTION_SETS = {
    "avx2": "avx2", "fma": "fma", "avx512f": "avx512f", "avx512_vnni": "avx512_vnni", "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8", "amx_bf16": "amx_bf16", "asimd": "neon", "asimddp": "neon_dotprod", "i8mm": "neon_i8mm",
    "bf16": "neon_bf16",
}  # fmt: skip
_PACKAGES = {
    "torch": "pip install -c constraints.txt torch",
    "transformers": "pip install -c constraints.txt transformers",
    "tokenizers": "pip install -c constraints.txt tokenizers",
    "safetensors": "pip install -c constraints.txt safetensors",
    "matplotlib": "pip install -c constraints.txt matplotlib",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        ok: whether all is well.
        found: what is there.
        remedy: what to do if not.
    """

    name: str
    ok: bool
    found: str
    remedy: str = ""


def doctor(model: common.Model = "nano", engine: common.EngineOptions = None, json: common.Json = False) -> None:
    """Look at the machine, the installation and a model's KV pool. Exit code 1 if something needed is missing."""
    checks = [*machine(), *installation(), *kernels(), *models(), pool(model, common.engine_options(engine))]
    if json:
        common.print_json({"ok": all(check.ok for check in checks), "checks": [asdict(check) for check in checks]})
    else:
        _show(checks)
    if not all(check.ok for check in checks):
        raise typer.Exit(common.ExitCode.FAILED)


def machine() -> list[Check]:
    """Processor, cores, instruction sets, memory."""
    import psutil

    from ramify.kv.sizing import free_memory_bytes

    names, flags = cpu()
    total = psutil.virtual_memory().total
    memory = f"{free_memory_bytes() / 2**30:.1f} GiB free of {total / 2**30:.1f} GiB"
    limit = cgroup_memory_bytes()
    sets = [name for flag, name in _INSTRUCTION_SETS.items() if flag in flags]
    return [
        Check("system", True, f"{platform.system()} {platform.release()}, {platform.machine()}"),
        Check("processor", True, names),
        Check("cores", True, cores()),
        Check("instruction sets", True, ", ".join(sets) or "none that ramify knows"),
        Check("memory", True, memory + (f", limited to {limit / 2**30:.1f} GiB by the control group" if limit else "")),
    ]


def installation() -> list[Check]:
    """Python, ramify, packages, torch's build and devices."""
    checks = [Check("python", sys.version_info >= (3, 11), platform.python_version(), "use Python 3.11 or newer")]
    for package, remedy in {"ramify": "pip install -e .", **_PACKAGES}.items():
        try:
            checks.append(Check(package, True, version(package)))
        except PackageNotFoundError:
            checks.append(Check(package, False, "not installed", remedy))
    if all(check.ok for check in checks):
        import torch

        threads = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()} kernels"
        checks.append(Check("torch on CPU", True, threads))
        cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no CUDA device: ramify runs on the CPU"
        checks.append(Check("torch on CUDA", True, cuda))
    return checks


def kernels() -> list[Check]:
    """The path that each operator takes on the CPU, and why."""
    from ramify.kernels.paths import operator_paths

    return [Check(found.operator, True, f"{found.path} ({found.why})") for found in operator_paths()]


def models() -> list[Check]:
    """The bundled models."""
    from ramify.models.hub import BUNDLED, resolve_model

    checks = []
    for name in BUNDLED:
        try:
            folder = resolve_model(name)
        except ModelError as error:
            checks.append(
                Check(f"model {name}", False, str(error), "train it with `make models` or install ramify anew")
            )
        else:
            size = sum(file.stat().st_size for file in folder.iterdir())
            checks.append(Check(f"model {name}", True, f"{size / 2**20:.1f} MiB"))
    return checks


def pool(model: str, options: dict[str, Any]) -> Check:
    """The sum behind the KV pool that the engine would make for a model."""
    try:
        return Check(f"KV pool of {model}", True, str(kv_budget(model, options)).removeprefix("KV pool: "))
    except (ModelError, ConfigError) as error:
        return Check(f"KV pool of {model}", False, str(error), "give another --model or other --engine options")


def kv_budget(model: str, options: dict[str, Any]) -> KVBudget:
    """The same, without loading weights."""
    from ramify.config import EngineConfig
    from ramify.engine.loading import pick_device, pick_dtype, plan_pool
    from ramify.models.config import load_config
    from ramify.models.hub import resolve_model

    config = EngineConfig.from_options(options)
    shape = load_config(resolve_model(model, config.revision))
    device = pick_device(config)
    return plan_pool(config, shape, device, pick_dtype(config, shape, device))


def cpu() -> tuple[str, frozenset[str]]:
    """The processor's name and its flags (empty where the system does not list them)."""
    name, flags = platform.processor() or platform.machine(), frozenset[str]()
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = frozenset(value.split())
    return name, flags


def cores() -> str:
    """Cores of the machine, and how many of them this process may use."""
    text = f"{os.cpu_count()} in the machine"
    if hasattr(os, "sched_getaffinity"):
        text += f", {len(os.sched_getaffinity(0))} allowed by affinity"
    quota = cgroup_cores()
    return text + (f", {quota:g} by the control group" if quota is not None else "")


def cgroup_cores() -> float | None:
    """The control group's share of processor time, in cores; None without a limit."""
    file = _CGROUP / "cpu.max"
    if not file.exists():
        return None
    quota, period = file.read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def cgroup_memory_bytes() -> int | None:
    """The control group's memory limit; None without one."""
    file = _CGROUP / "memory.max"
    text = file.read_text().strip() if file.exists() else "max"
    return None if text == "max" else int(text)


def _show(checks: list[Check]) -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for check in checks:
        table.add_row("[green]ok[/]" if check.ok else "[red]missing[/]", check.name, check.found)
    console = common.output_console()
    console.print(table)
    for check in checks:
        if not check.ok:
            console.print(f"\n[bold]{check.name}[/]: {check.remedy}")
