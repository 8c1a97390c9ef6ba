"""Traces on disk: one JSONL file a run, written while the method runs, read back as far as a kill let it get."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from ramify.errors import ConfigError
from ramify.strategies.kernel.trace import FORMAT, AnyEvent, Started, Trace, encode_event


class TraceWriter:
    """Writes each event as it comes; pass its `write` as a run's listener. A context manager.

    Args:
        path: a new file (an old one is replaced); its folder is made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, event: AnyEvent) -> None:
        """Append one event; it survives a kill of the process."""
        self._file.write(encode_event(event))
        self._file.flush()


def read_trace(path: str | os.PathLike[str]) -> Trace:
    """The trace in a file. A last line that was cut short (the run was killed) is left out.

    Raises:
        ConfigError: a line is no event, the file does not begin with a run, or holds another format.
    """
    data = Path(path).read_bytes()
    lines = data.split(b"\n")[:-1]
    events: list[AnyEvent] = []
    for number, line in enumerate(lines, start=1):
        try:
            events += Trace.from_jsonl([line]).events
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}, line {number} is no event of a trace: {error}") from error
    if not events or not isinstance(events[0], Started):
        raise ConfigError(f"{path} is no trace: its first line must say which run began")
    if events[0].format != FORMAT:
        raise ConfigError(f"{path} has format {events[0].format}; this version reads {FORMAT}")
    return Trace(events)
