"""How much of the machine's limit ramify's own operators reach, at the sizes of a model.

    python -m benchmarks.lab.operators FOLDER THREADS CORES

A matrix product is held against whichever of its two limits is nearer: reading the weights once from memory, or its
multiplications; attention likewise, with its keys and values. Weights rotate over copies that no cache holds. bfloat16
products are held against the processor's bfloat16 instruction where it has one, else against float32.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lab.records import Record
from benchmarks.lab.tournament import Field
from benchmarks.lab.turns import environment
from ramify.kernels.native import extension, why_not

_ROWS = (1, 8, 32, 512)
_BEYOND_CACHES = 160 * 2**20
_SHORTEST_S = 0.15
_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """An operator at a size.

    Attributes:
        name: with its size.
        seconds: of one call.
        operations: multiplications and additions.
        bytes: read and written at least.
        unit: of `operations`: the name of a limit.
    """

    name: str
    seconds: float
    operations: float
    bytes: float
    unit: str


def measure_operators(field: Field, limits: dict[str, float]) -> None:
    """Measure in a pinned process of its own, and keep each operator's share of the limits."""
    if not limits or any(record.threads == field.threads for record in field.records.more("operator")):
        return
    if extension() is None:
        print(f"operators are not measured, for they are torch's: {why_not()}", flush=True)
        return
    command = [sys.executable, "-m", "benchmarks.lab.operators", str(field.folder), str(field.threads)]
    command.append(",".join(map(str, field.cores)))
    with (field.folder / "operators.log").open("a") as log:
        ran = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=log, text=True, check=False, env=environment(field.threads)
        )
    if ran.returncode != 0:
        print(f"operators are not measured: code {ran.returncode}; the log is {log.name}", flush=True)
    for line in ran.stdout.splitlines():
        found = Measured(**json.loads(line))
        peak = limits.get(found.unit, limits["float32_gflops"])
        shortest = max(found.bytes / limits["read_gb_s"], found.operations / peak) / 1e9
        by_memory = found.bytes / limits["read_gb_s"] >= found.operations / peak
        value, unit = (found.bytes, "GB/s") if by_memory else (found.operations, "GOP/s")
        more = {"share": shortest / found.seconds}
        field.records.add(
            Record("operator", field.threads, 0, found.name, value / found.seconds / 1e9, unit, more=more)
        )


def _sizes(folder: Path) -> dict[str, tuple[tuple[int, int], ...]]:
    """The matrices of a layer and of the head, [outputs, inputs] each."""
    config = json.loads((folder / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    joined = (heads + 2 * config["num_key_value_heads"]) * head_dim
    layer = ((joined, hidden), (hidden, heads * head_dim), (2 * inner, hidden), (hidden, inner))
    return {"a layer's products": layer, "head": ((config["vocab_size"], hidden),)}


def _products(folder: Path) -> Iterator[Measured]:
    """Packed products in each format."""
    import torch

    from ramify.kernels.gemm import linear

    units = {"w8a8": "int8_gops", "w6a8": "int8_gops", "w4a8": "int8_gops", "bfloat16": "bfloat16_gflops"}
    for name, shapes in _sizes(folder).items():
        for form, unit in units.items():
            sets = _copies([_packed(form, shape) for shape in shapes])
            size = sum(matrix.nbytes for matrix in sets[0])
            for count in _ROWS if name != "head" else _ROWS[:3]:
                inputs = [torch.randn(count, matrix.columns) for matrix in sets[0]]

                def call(turn: int, sets: Any = sets, inputs: Any = inputs) -> None:
                    for matrix, given in zip(sets[turn % len(sets)], inputs, strict=True):
                        linear(given, matrix)

                operations = 2.0 * count * sum(rows * columns for rows, columns in shapes)
                title = f"{name}, {form}, {count} row{'s' * (count > 1)}"
                yield Measured(title, _seconds(call), operations, size, unit)


def _packed(form: str, shape: tuple[int, int]) -> Any:
    """Random weights as a format packs them."""
    import torch

    from ramify.kernels.packed import own_activation_group, pack_float, pack_int

    rows, columns = shape
    if form == "bfloat16":
        return pack_float(torch.randn(rows, columns, dtype=torch.bfloat16))
    if form == "w8a8":
        codes = torch.randint(-127, 128, (rows, columns), dtype=torch.int8)
        return pack_int(codes, torch.rand(rows, -(-columns // 32)).half(), bits=8, group_size=32)
    bits, together = int(form[1]), own_activation_group(columns)
    codes = torch.randint(0, 16, (rows, columns), dtype=torch.uint8)
    if bits == 6:
        codes = torch.randint(-31, 32, (rows, columns), dtype=torch.int8)
    scales = torch.randint(-127, 128, (rows, -(-columns // 32)), dtype=torch.int8)
    factors = torch.rand(rows, -(-columns // together)).bfloat16()
    return pack_int(codes, scales, factors=factors, bits=bits, activation_group=together)


def _copies(matrices: list[Any]) -> list[list[Any]]:
    """The matrices and copies of them, together more than the caches hold."""
    from dataclasses import replace

    size = sum(matrix.nbytes for matrix in matrices)
    count = max(1, -(-_BEYOND_CACHES // size))
    copies = [
        [replace(matrix, tensors={key: value.clone() for key, value in matrix.tensors.items()}) for matrix in matrices]
        for _ in range(count - 1)
    ]
    return [matrices, *copies]


def _norm(folder: Path) -> Iterator[Measured]:
    """The norm with its residual: four passes over the rows."""
    import torch

    from ramify.kernels.norm import rms_norm

    config = json.loads((folder / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    hidden = config["hidden_size"]
    weight = torch.ones(hidden)
    for count in _ROWS[2:]:
        size = 16 * count * hidden  # two rows read, two written
        pairs = torch.randn(-(-2 * _BEYOND_CACHES // size), 2, count, hidden)

        def call(turn: int, pairs: Any = pairs) -> None:
            x, residual = pairs[turn % len(pairs)]
            rms_norm(x, weight, 1e-6, residual)

        yield Measured(f"norm with residual, {count} rows", _seconds(call), 6.0 * count * hidden, size, "")


def _attention(folder: Path) -> Iterator[Measured]:
    """Paged attention of one layer, bfloat16 keys and values: decodes, decodes that share a prefix, and a prompt.

    A decode reads its keys and values once; what is shared counts once for all.
    """
    import torch

    from ramify.kernels.attention import paged_attention
    from ramify.kernels.plan import QuerySpan, plan_attention
    from ramify.kv.cache import KVCache

    config = json.loads((folder / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    size = 16
    cases = {
        "attention, 32 decodes of 1,024 tokens": (32, 1, 1024, 0),
        "attention, 32 decodes of 2,048 shared tokens": (32, 1, 2048, 2048),
        "attention, a prompt of 512 tokens": (1, 512, 512, 0),
    }
    for name, (sequences, rows, context, shared) in cases.items():
        own, common = (context - shared) // size, shared // size
        count = 1 + common + sequences * (own + 1)
        cache = KVCache(1, kv_heads, head_dim, count, size, torch.bfloat16, torch.device("cpu"))
        spans = []
        for place in range(sequences):
            first = 1 + common + place * (own + 1)
            blocks = [*range(1, 1 + common), *range(first, first + own + 1)]
            spans.append(QuerySpan(place * rows, rows, context - rows, blocks[: -(-context // size)]))
        plan = plan_attention(
            spans,
            block_size=size,
            group_size=heads // kv_heads,
            num_kv_heads=kv_heads,
            windows=(None,),
            device=torch.device("cpu"),
        )
        query, layer, scale = torch.randn(sequences * rows, heads, head_dim), cache.layers[0], head_dim**-0.5
        seen = sequences * (rows * context if rows == 1 else rows * (rows + 1) // 2)
        held = (shared or sequences * context) * kv_heads * head_dim * 4

        def call(turn: int, query: Any = query, layer: Any = layer, plan: Any = plan, scale: float = scale) -> None:
            del turn
            paged_attention(query, layer, plan, scale)

        yield Measured(name, _seconds(call), 4.0 * seen * heads * head_dim, held, "float32_gflops")


def _seconds(call: Callable[[int], object]) -> float:
    """Of one call: the best of a few stretches."""
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < _SHORTEST_S or calls < 2:  # also warms up
        call(calls)
        calls += 1
    best = float("inf")
    for _ in range(_REPEATS):
        started = time.perf_counter()
        for turn in range(calls):
            call(turn)
        best = min(best, (time.perf_counter() - started) / calls)
    return best


def _main(folder: Path, threads: int, cores: Sequence[int]) -> None:
    os.sched_setaffinity(0, cores)
    import torch

    torch.set_num_threads(threads)
    module = extension()
    if module is not None:
        module.set_num_threads(threads)
    with torch.inference_mode():
        for family in (_products, _attention, _norm):
            for found in family(folder):
                print(json.dumps({name: getattr(found, name) for name in Measured.__slots__}), flush=True)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), [int(core) for core in sys.argv[3].split(",")])
