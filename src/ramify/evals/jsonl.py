"""Append-only JSONL files that survive a kill: what pools and evaluation runs write as they go.

A journal begins with a header record that names its settings; going on under other settings is an error. Records are
written in whole lines and flushed; a line that a kill cut short is dropped when the file is opened again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ramify.errors import ConfigError, TaskError

Record = dict[str, Any]
HEADER = "header"
TAIL_CHUNK = 1 << 16
_HEADER_START = b'{"header": {'


class Journal:
    """One file of records, open for reading what is there and appending what is new.

    Attributes:
        path: the file; made, with its folders, if it is not there.
        records: what the file held when it was opened, header excluded, in the file's order.

    Raises:
        ConfigError: the file belongs to other settings, or another process is writing to it.
        TaskError: a line that is not the last is no JSON object.
    """

    def __init__(self, path: str | os.PathLike[str], header: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        try:
            self._lock()
            _check_is_journal(self.path)
            repair_tail(self.path)
            self.records = list(read_records(self.path))
            wanted = json.loads(_line(header))
            if self.records:
                _check_settings(self.path, self.records.pop(0)[HEADER], wanted)
            else:
                self.append([{HEADER: wanted}])
        except BaseException:
            self._file.close()
            raise

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Hand records to the operating system, all of them or (if it fails, as on a full disk) none.

        Raises:
            OSError: they could not be written; the file is as it was.
        """
        data = b"".join(_line(record) for record in records)
        start = self._file.seek(0, os.SEEK_END)
        try:
            written = 0
            while written < len(data):
                written += self._file.write(data[written:])
        except OSError:
            self._file.truncate(start)
            raise

    def close(self) -> None:
        """Close the file (and give up its lock)."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{self.path} is being written by another run: wait for it or use another file") from None


def read_journal(path: str | os.PathLike[str]) -> tuple[Record, list[Record]]:
    """The header and the records of a journal, without opening it for writing; a line cut short at the end is left out.

    Raises:
        TaskError: there is no file, it has no header, or a line that is not the last is no JSON object.
    """
    if not Path(path).is_file():
        raise TaskError(f"there is no file {os.fspath(path)!r}: give a file that a run has written")
    records = list(read_records(path))
    if not records or HEADER not in records[0]:
        raise TaskError(f"{os.fspath(path)} does not begin with a header record: it was not written by a ramify run")
    return records[0][HEADER], records[1:]


def read_records(path: str | os.PathLike[str]) -> Iterator[Record]:
    """The JSON objects of a file, one a line; an unfinished last line is left out.

    Raises:
        TaskError: a finished line is no JSON object; names its number.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield parse_object(line)
            except ValueError as error:
                raise TaskError(f"{os.fspath(path)}, line {number}: {error}; repair or remove the line") from None


def parse_object(line: bytes | str) -> Record:
    """One line as a JSON object. Raises ValueError that says what is wrong with it."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"a JSON {type(found).__name__} where an object is wanted")
    return found


def repair_tail(path: str | os.PathLike[str]) -> int:
    """Cut off an unfinished last line, as a killed writer leaves it. Returns the number of bytes dropped."""
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - TAIL_CHUNK)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
        return size - end


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _check_is_journal(path: Path) -> None:
    """Refuse a file of the user's before anything in it is changed."""
    with open(path, "rb") as file:
        start = file.read(len(_HEADER_START))
    if not _HEADER_START.startswith(start):
        raise ConfigError(f"{path} does not begin with a header record: no ramify run wrote it; use a new file")


def _check_settings(path: Path, found: Record, wanted: Record) -> None:
    differing = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
    if differing:
        details = "; ".join(f"{name} was {found.get(name)!r} and is now {wanted.get(name)!r}" for name in differing)
        raise ConfigError(f"{path} was written under other settings ({details}): use a new file or the old settings")
