"""The main program: which model, which engines, how much; then the rounds, the tables and the plot.

    python -m benchmarks [--shape qwen2.5-0.5b] [--engines all] [--quick | --smoke]

Results are appended to `runs/bench/SHAPE/SIZE.jsonl` as they come, and a run that was stopped goes on there; `--again`
starts anew. The tables (`.md`, `.json`) and the plot (`.svg`) are written beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lab.engines.base import MissingError
from benchmarks.lab.engines.catalog import Kind, pick
from benchmarks.lab.limits import measure_limits
from benchmarks.lab.records import Record, Records
from benchmarks.lab.report import markdown, plot, summary
from benchmarks.lab.search import SearchSize
from benchmarks.lab.shapes import SHAPES, make_checkpoint, shape_of
from benchmarks.lab.tournament import COLD, MEMORY, SEARCH, Field, run_cold_starts, run_memory, run_workloads
from benchmarks.lab.workloads import FULL, QUICK, SMOKE, Workload

KL, OPERATORS, RATES, LIMITS, ENGINES = "kl", "operators", "rates", "limits", "engines"
PAGE_BEGINS, PAGE_ENDS = "<!-- {} begin -->", "<!-- {} end -->"
PARTS = (RATES, SEARCH, COLD, MEMORY, OPERATORS, KL)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        workloads: whose rates are.
        search: the branching search.
        rounds: of each.
        memory: sequences, and tokens of each, whose memory is.
        patience_s: see `Field`.
        memory_bits: if all engines take part, only those of such weights are asked for their memory; None: all.
    """

    workloads: tuple[Workload, ...]
    search: SearchSize
    rounds: int
    memory: tuple[int, int]
    patience_s: float = 600.0
    memory_bits: int | None = None

    @property
    def titles(self) -> dict[str, str]:
        """Of all rows of the tables."""
        sequences, tokens = self.memory
        return {
            **{workload.name: workload.title for workload in self.workloads},
            SEARCH: self.search.title,
            COLD: "cold start to the first token",
            MEMORY: f"memory above the weights, {sequences} x {tokens:,} tokens",
        }


SIZES = {
    "full": Size(FULL, SearchSize(), 5, (32, 1024)),
    "quick": Size(QUICK, SearchSize(step=8, levels=4), 3, (32, 1024), 30.0, memory_bits=4),
    "smoke": Size(SMOKE, SearchSize(prompt=64, width=4, branches=2, step=4, levels=2), 1, (4, 64)),
}


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run the laboratory.

    Returns:
        The path of the tables.
    """
    options = _options(arguments)
    size = SIZES["quick" if options.quick else "smoke" if options.smoke else "full"]
    name, config = shape_of(options.shape)
    folder = options.home / name
    records_path = folder / f"{'quick' if options.quick else 'smoke' if options.smoke else 'full'}.jsonl"
    if options.again:
        records_path.unlink(missing_ok=True)
    records = Records(records_path)
    if not options.report:
        make_checkpoint(config, folder / "checkpoint")
        measure(folder, size, records, options)
    tables = write_tables(records, name, size, options.threads)
    if options.docs is not None:
        refresh_page(options.docs, records, name, size, options.threads)
    return tables


def measure(folder: Path, size: Size, records: Records, options: argparse.Namespace) -> None:
    """Everything that was asked for and is not there yet."""
    print(f"load average before: {os.getloadavg()}; for numbers to keep it is near 0", flush=True)
    machine = {
        "load": os.getloadavg()[0],
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "kernels": _kernels(),
    }
    print(f"ramify's kernels: {machine['kernels']}", flush=True)
    records.add(Record("machine", 0, 0, "", None, "", more=machine))
    kinds = _there(pick(options.engines), folder, records)
    cores = sorted(os.sched_getaffinity(0))
    for threads in options.threads:
        if threads > len(cores):
            print(f"{threads} threads: left out, for this process may use {len(cores)} cores", flush=True)
            continue
        rounds = options.rounds or size.rounds
        field = Field(folder, kinds, cores[-threads:], rounds, records, options.patience or size.patience_s)
        wanted = [work for work in size.workloads if not options.only or work.name in options.only]
        run_workloads(field, wanted if RATES in options.parts else [], size.search if SEARCH in options.parts else None)
        if COLD in options.parts:
            run_cold_starts(field)
        if MEMORY in options.parts and threads == max(options.threads):
            run_memory(field, *size.memory, size.memory_bits if options.engines == "all" else None)
        if OPERATORS in options.parts:
            from benchmarks.lab.operators import measure_operators

            measure_operators(field, _limits(field))
    if KL in options.parts:
        from benchmarks.lab.kl import measure_divergences

        measure_divergences(options.home, kinds, records)


def write_tables(records: Records, name: str, size: Size, threads: Sequence[int]) -> Path:
    """The tables and the plot, beside the records."""
    tables = records.path.with_suffix(".md")
    tables.write_text(markdown(records, size.titles, threads), encoding="utf-8")
    data = {"shape": name, "results": summary(records, size.titles, threads)}
    records.path.with_suffix(".json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    plot(records, size.titles, threads, [records.path.with_suffix(".svg")], name)
    print(tables.read_text(encoding="utf-8"))
    return tables


def refresh_page(page: Path, records: Records, name: str, size: Size, threads: Sequence[int]) -> None:
    """Put the tables and the plot of these records into a page, between its two marks.

    Raises:
        SystemExit: the page has no such marks.
    """
    text = page.read_text(encoding="utf-8")
    begins, ends = PAGE_BEGINS.format(name), PAGE_ENDS.format(name)
    before, begin, rest = text.partition(begins)
    _, end, after = rest.partition(ends)
    if not begin or not end:
        raise SystemExit(f"{page} has no {begins} ... {ends}: put both where the tables of {name} shall stand")
    picture = page.parent / "assets" / f"speed-{name}.svg"
    plot(records, size.titles, threads, [picture], name)
    machine = records.more("machine")[-1].more
    lead = (
        f"### {name}\n\nRandom weights; {machine['processor']}, {machine['cores']} cores; "
        f"ramify's kernels: {machine['kernels']}."
    )
    image = f"![Every engine beside the best peer](assets/{picture.name})"
    tables = markdown(records, size.titles, threads)
    page.write_text(f"{before}{begin}\n\n{lead}\n\n{image}\n\n{tables}\n{end}{after}", encoding="utf-8")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--shape",
        default="qwen2.5-0.5b",
        help=f"{', '.join(SHAPES)}, or the path of a config.json (default: %(default)s)",
    )
    parser.add_argument("--engines", default="all", help="names or beginnings of names, separated by commas")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="fewer and shorter rounds: all engines in 25 minutes")
    sizes.add_argument("--smoke", action="store_true", help="whether it runs at all: seconds on the shape 'tiny'")
    parser.add_argument("--threads", type=_numbers, default=(1, 2), help="pinned threads, e.g. 1,2 (default)")
    parser.add_argument("--rounds", type=int, help="of each workload")
    parser.add_argument("--patience", type=float, help="seconds that an engine's prompts may take in a workload")
    parser.add_argument("--parts", type=_parts, default=PARTS, help=f"some of {','.join(PARTS)}")
    parser.add_argument("--only", type=lambda text: text.split(","), help="workloads of the rates, by name")
    parser.add_argument("--home", type=Path, default=Path("runs/bench"), help="folder of models and results")
    parser.add_argument("--again", action="store_true", help="forget what was measured before")
    parser.add_argument("--report", action="store_true", help="only write the tables from what was measured")
    parser.add_argument("--docs", type=Path, help="page to refresh with the tables, e.g. docs/performance.md")
    return parser.parse_args(arguments)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(text.split(","))
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    return parts


def _there(kinds: Sequence[Kind], folder: Path, records: Records) -> list[Kind]:
    """The engines that can take the model; the others are named with the reason."""
    found = []
    for kind in kinds:
        try:
            kind.check(folder)
            found.append(kind)
        except MissingError as reason:
            print(f"{kind.label} is left out: {reason}", flush=True)
            records.add(Record(ENGINES, 0, 0, kind.name, None, "", str(reason)))
    return found


def _limits(field: Field) -> dict[str, float]:
    try:
        limits = measure_limits(field.threads, field.cores)
    except MissingError as reason:
        print(f"the machine's limits are not measured: {reason}", flush=True)
        return {}
    print(f"{field.threads} threads, limits: {limits}", flush=True)
    field.records.add(Record(LIMITS, field.threads, 0, "", None, "", more=limits))
    return limits


def _kernels() -> str:
    """Which of ramify's kernels run here: without native ones its numbers are those of the torch references."""
    from ramify.kernels.native import extension, why_not

    module = extension()
    return f"none, only torch: {why_not()}" if module is None else str(module.isa())


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
