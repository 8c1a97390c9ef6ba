"""The rounds: every workload by every engine in turn, in an order that rotates; cold starts and memory likewise."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.lab.drive import Arrival, from_json
from benchmarks.lab.engines.base import Capacity, MissingError, Request
from benchmarks.lab.engines.catalog import Kind
from benchmarks.lab.records import Record, Records
from benchmarks.lab.search import SearchSize
from benchmarks.lab.turns import BrokenEngineError, Worker
from benchmarks.lab.workloads import Workload, random_ids, warm_up

COLD, MEMORY, SEARCH = "cold-start", "memory", "search"


@dataclass(frozen=True, slots=True)
class Field:
    """Where and between whom it is run.

    Attributes:
        folder: of the model.
        kinds: the engines that are there.
        cores: numbers of the cores to pin to; as many threads as there are.
        rounds: of each workload.
        records: where the numbers go.
        patience_s: an engine whose prompts alone would take longer in a workload, by its prefill rates, is left out of
            it; after so long a workload ends with the rounds it has.
    """

    folder: Path
    kinds: Sequence[Kind]
    cores: Sequence[int]
    rounds: int
    records: Records
    patience_s: float = math.inf

    @property
    def threads(self) -> int:
        """One a core."""
        return len(self.cores)

    @property
    def vocabulary(self) -> int:
        """Of the model."""
        config = json.loads((self.folder / "checkpoint" / "config.json").read_text(encoding="utf-8"))
        return int(config["vocab_size"])

    def start(self, kind: Kind) -> Worker:
        """An engine's process."""
        return Worker(kind, self.folder, self.threads, self.cores, self.folder / f"{kind.name}.log")

    def missing_rounds(self, workload: str) -> list[int]:
        """Rounds that are still to be run."""
        done = self.records.rounds_done(workload, self.threads, [kind.name for kind in self.kinds])
        return [number for number in range(self.rounds) if number not in done]

    def check_patience(self, kind: Kind, prompt_tokens: int) -> None:
        """Raises `MissingError` where the engine would take too long."""
        names = {record.workload for record in self.records if record.workload.startswith("prefill")}
        rates = [rate for name in names for rate in self.records.values(name, self.threads).get(kind.name, {}).values()]
        if rates and prompt_tokens / max(rates) > self.patience_s:
            raise MissingError(
                f"left out: {prompt_tokens:,} tokens of prompts would take it {prompt_tokens / max(rates):.0f} s"
            )

    def note(
        self, workload: str, round_: int, kind: Kind, value: float | None, unit: str, note: str, **more: Any
    ) -> None:
        """Keep a number and show it."""
        self.records.add(Record(workload, self.threads, round_, kind.name, value, unit, note, more))
        shown = note if value is None else f"{value:,.4g} {unit}"
        print(f"{self.threads} threads, {workload}, round {round_}: {kind.label}: {shown}", flush=True)


def run_workloads(field: Field, workloads: Sequence[Workload], size: SearchSize | None) -> None:
    """All rates. An engine that fails in a workload is noted and started anew for the next."""
    if not workloads and size is None:
        return
    plans = [(workload.name, _rate_job(field, workload), workload.capacity) for workload in workloads]
    if size is not None:
        plans.append((SEARCH, _search_job(field, size), search_capacity(size)))
    most = _most([capacity for _, _, capacity in plans])
    workers: dict[str, Worker] = {}
    try:
        for name, job, capacity in plans:
            rounds = field.missing_rounds(name)
            ready: list[Kind] = []
            for kind in field.kinds if rounds else ():
                _guarded(
                    field, workers, name, rounds[0], kind, _readying(field, workers, kind, most, capacity, job, ready)
                )
            ends_at = time.monotonic() + 2 * field.patience_s
            for number in rounds if ready else ():
                if time.monotonic() > ends_at:
                    break
                for kind in ready[number % len(ready) :] + ready[: number % len(ready)]:
                    _guarded(field, workers, name, number, kind, _measuring(workers, job, number, name, field, kind))
    finally:
        for worker in workers.values():
            worker.close()


def run_cold_starts(field: Field) -> None:
    """From the start of a process to its first token; the first round warms the disk's cache and is thrown away."""
    prompt = random_ids(16, field.vocabulary, 6)
    for number in field.missing_rounds(COLD):
        for kind in field.kinds:
            for _ in range(2 if number == 0 else 1):
                outcome = _alone(field, kind, Capacity(1, 32), [Arrival(0.0, Request(prompt, 1))])
            value, note, _ = outcome
            field.note(COLD, number, kind, value, "s", note)


def run_memory(field: Field, batch: int, context: int, bits: int | None = None) -> None:
    """The most resident memory of a batch, beyond the weights; with `bits`, of engines with such weights."""
    done = {record.engine for record in field.records.more(MEMORY) if record.threads == field.threads}
    new_tokens = 8
    arrivals = [
        Arrival(0.0, Request(random_ids(context - new_tokens, field.vocabulary, 7, row), new_tokens))
        for row in range(batch)
    ]
    for kind in (kind for kind in field.kinds if kind.name not in done):
        try:
            if bits not in (None, kind.bits):
                raise MissingError(f"left out: of a short run only engines with {bits}-bit weights are asked")
            field.check_patience(kind, batch * context // 10)  # it is run once, so that it may take longer
        except MissingError as reason:
            field.note(MEMORY, 0, kind, None, "bytes", str(reason))
            continue
        _, note, answer = _alone(field, kind, Capacity(batch, context), arrivals)
        if answer is None:
            field.note(MEMORY, 0, kind, None, "bytes", note)
            continue
        sizes = answer["memory"]
        weights = answer["weights"] or sum((field.folder / name).stat().st_size for name in kind.weights)
        field.note(MEMORY, 0, kind, sizes["peak"] - weights, "bytes", "", weights=weights, **sizes)


def search_capacity(size: SearchSize) -> Capacity:
    """What a search needs."""
    return Capacity(size.width + size.width // size.branches, size.prompt + size.step * size.levels + 2, shared=True)


def job_of(arrivals: Sequence[Arrival]) -> dict[str, Any]:
    """A run, as an engine's process takes it."""
    return {"do": "run", "arrivals": [asdict(arrival) for arrival in arrivals]}


@dataclass(frozen=True, slots=True)
class _Job:
    """What to ask of a worker, before the rounds and in each; how many tokens of prompts it has to compute at once."""

    prompt_tokens: int
    before: dict[str, Any] | None
    each: Callable[[int], dict[str, Any]]
    rate: Callable[[dict[str, Any]], float]


def _rate_job(field: Field, workload: Workload) -> _Job:
    computed = warm_up(workload, field.vocabulary) if workload.warm else workload.plan(0, field.vocabulary)
    return _Job(
        sum(len(arrival.request.prompt) for arrival in computed),
        job_of(warm_up(workload, field.vocabulary)),
        lambda number: job_of(workload.plan(number, field.vocabulary)),
        lambda answer: workload.rate(from_json(answer)),
    )


def _search_job(field: Field, size: SearchSize) -> _Job:
    def job(number: int) -> dict[str, Any]:
        return {"do": "search", "size": asdict(size), "vocabulary": field.vocabulary, "round": number}

    return _Job(size.prompt, None, job, lambda answer: answer["tokens"] / answer["seconds"])


def _readying(
    field: Field,
    workers: dict[str, Worker],
    kind: Kind,
    most: Capacity,
    capacity: Capacity,
    job: _Job,
    ready: list[Kind],
) -> Callable[[], None]:
    def work() -> None:
        field.check_patience(kind, job.prompt_tokens)
        if kind.name not in workers:
            workers[kind.name] = field.start(kind)
            workers[kind.name].ask(do="prepare", capacity=asdict(most))
        workers[kind.name].ask(do="prepare", capacity=asdict(capacity))
        if job.before is not None:
            workers[kind.name].ask(**job.before)
        ready.append(kind)

    return work


def _measuring(
    workers: dict[str, Worker], job: _Job, number: int, name: str, field: Field, kind: Kind
) -> Callable[[], None]:
    def work() -> None:
        if kind.name not in workers:
            raise BrokenEngineError("it failed in an earlier round")
        started = time.perf_counter()
        answer = workers[kind.name].ask(**job.each(number))
        took = time.perf_counter() - started
        field.note(name, number, kind, job.rate(answer), "tokens/s", "", load=os.getloadavg()[0], seconds=took)

    return work


def _guarded(
    field: Field, workers: dict[str, Worker], name: str, number: int, kind: Kind, work: Callable[[], None]
) -> None:
    """Do the work; what goes wrong is noted, never dropped."""
    try:
        work()
    except MissingError as reason:
        field.note(name, number, kind, None, "tokens/s", str(reason))
    except (BrokenEngineError, ValueError) as fault:
        field.note(name, number, kind, None, "tokens/s", f"failed: {fault}")
        if kind.name in workers:
            workers.pop(kind.name).close()


def _alone(
    field: Field, kind: Kind, capacity: Capacity, arrivals: Sequence[Arrival]
) -> tuple[float | None, str, dict[str, Any] | None]:
    """Seconds from a new process to the end of a run, or why there are none, and the process's answer."""
    started = time.perf_counter()
    worker = field.start(kind)
    try:
        about = worker.ask(do="prepare", capacity=asdict(capacity))
        answer = worker.ask(**job_of(arrivals))
        seconds = time.perf_counter() - started
    except MissingError as reason:
        return None, str(reason), None
    except BrokenEngineError as fault:
        return None, f"failed: {fault}", None
    finally:
        worker.close()
    return seconds, "", {**answer, "weights": about["weights"]}


def _most(capacities: Sequence[Capacity]) -> Capacity:
    return Capacity(
        max(capacity.sequences for capacity in capacities),
        max(capacity.tokens for capacity in capacities),
        total=max(capacity.total for capacity in capacities),
    )
