"""What was measured, a JSON line each, written as it comes: a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Record:
    """One number.

    Attributes:
        workload: what was measured.
        threads: pinned.
        round: which of the rounds.
        engine: whose number it is; empty for the machine's own.
        value: None if there is none; `note` says why then.
        unit: "tokens/s", "s" or "bytes".
        note: a reason, or nothing.
        more: whatever else is worth keeping.
    """

    workload: str
    threads: int
    round: int
    engine: str
    value: float | None
    unit: str
    note: str = ""
    more: dict[str, Any] = field(default_factory=dict)


class Records:
    """The records of one file; a line that a stopped run left half written is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._all: list[Record] = []
        if path.exists():
            lines = path.read_text(encoding="utf-8").split("\n")
            whole, _ = lines[:-1], lines[-1]
            self._all = [Record(**json.loads(line)) for line in whole]
            path.write_text("".join(line + "\n" for line in whole), encoding="utf-8")

    def __iter__(self) -> Iterator[Record]:
        return iter(self._all)

    def add(self, record: Record) -> None:
        """Keep a record, on disk before this returns."""
        self._all.append(record)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")

    def rounds_done(self, workload: str, threads: int, engines: list[str]) -> set[int]:
        """Rounds in which each of the engines has a record."""
        found: dict[int, set[str]] = defaultdict(set)
        for record in self._all:
            if (record.workload, record.threads) == (workload, threads):
                found[record.round].add(record.engine)
        return {number for number, names in found.items() if names.issuperset(engines)}

    def values(self, workload: str, threads: int) -> dict[str, dict[int, float]]:
        """engine -> round -> value, of the latest records; engines without a value are left out."""
        found: dict[str, dict[int, float]] = defaultdict(dict)
        for record in self._all:
            if (record.workload, record.threads) == (workload, threads) and record.value is not None:
                found[record.engine][record.round] = record.value
        return found

    def notes(self, workload: str, threads: int) -> dict[str, str]:
        """engine -> why it has no value."""
        valued = self.values(workload, threads)
        return {
            record.engine: record.note
            for record in self._all
            if (record.workload, record.threads) == (workload, threads) and record.note and record.engine not in valued
        }

    def more(self, workload: str) -> list[Record]:
        """All records of a workload."""
        return [record for record in self._all if record.workload == workload]
