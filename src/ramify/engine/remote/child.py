"""`Child`: an engine's process as the system sees it: start it, hear whether it lives, end it, leave nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ramify.engine.remote import messages
from ramify.engine.remote.messages import Beat, LogLine, ProtocolError, Start

COMMAND = (sys.executable, "-P", "-m", "ramify.engine.remote.process")
"""-P: a module in the working directory is not taken for ramify's or torch's."""
_READ_BYTES = 65536
_LONGEST_LINE = 1 << 20
_KILL_AFTER_S = 5.0
"""A process that was asked to end has so long."""
_log = logging.getLogger(__name__)


def private_folder() -> Path:
    """A new folder that only this user can enter, with a path short enough for a socket in it."""
    return Path(tempfile.mkdtemp(prefix="ramify-engine-", dir="/tmp" if len(tempfile.gettempdir()) > 60 else None))


class Child:
    """One process and the pipe of its signs of life.

    Args:
        start: what it is told.
        folder: goes when it is gone.
        on_end: called once, on the event loop, when it has ended or fallen silent; with the reason.
        silence_s: without a sign of life for so long, it counts as dead.
        first_sign_s: the same for its first sign, for which Python has to be started.
        command: what is run.

    Attributes:
        pid: of the process.
        busy_s: how long its present step took already at its last sign of life.
    """

    def __init__(
        self,
        start: Start,
        folder: Path,
        on_end: Callable[[str], None],
        silence_s: float,
        first_sign_s: float,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._folder = folder
        self._on_end: Callable[[str], None] | None = on_end
        self._silence_s = silence_s
        self._patience_s = first_sign_s
        self._loop = asyncio.get_running_loop()
        self.busy_s = 0.0
        self._buffer = b""
        self._last_sign = time.monotonic()
        self._process = subprocess.Popen([*command, start.model], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self._pipe = self._process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        told = messages.encode(start)
        with contextlib.suppress(BrokenPipeError):  # it has ended already, which the other pipe tells
            self._process.stdin.write(len(told).to_bytes(8, "big") + told)
            self._process.stdin.flush()
        self._loop.add_reader(self._pipe, self._read)
        self._check = self._loop.call_later(min(silence_s, first_sign_s) / 4, self._check_silence)

    def kill(self) -> None:
        """End it now."""
        self._process.kill()

    async def gone(self) -> None:
        """Wait for its end, which was asked for; it is killed if it takes too long. Nothing of it is left then."""
        self._on_end = None
        self._check.cancel()
        deadline = time.monotonic() + _KILL_AFTER_S
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
            await asyncio.sleep(0.01)
        self._close_pipes()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self) -> None:
        """Signs of life and log lines; the end of the pipe is the end of the process."""
        try:
            data = os.read(self._pipe, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._pipe)
            self._reap(time.monotonic() + _KILL_AFTER_S)
            return
        self._last_sign, self._patience_s = time.monotonic(), self._silence_s
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._buffer) > _LONGEST_LINE:
            _log.error("process %d writes a line without an end; what it wrote is dropped", self.pid)
            self._buffer = b""

    def _take(self, line: bytes) -> None:
        try:
            said = messages.read_line(line)
        except ProtocolError as error:
            _log.error("process %d: %s", self.pid, error)
            return
        if isinstance(said, LogLine):
            logging.getLogger(said.name).log(said.level, "%s", said.text)
        elif isinstance(said, Beat):
            self.busy_s = said.busy_s

    def _reap(self, deadline: float) -> None:
        """It closed its pipe: see how it ended."""
        code = self._process.poll()
        if code is None:
            if time.monotonic() > deadline:
                self.kill()
            self._loop.call_later(0.005, self._reap, deadline)
            return
        self._end(_reason(code))

    def _check_silence(self) -> None:
        self._read_if_open()  # this loop may have been late itself
        silent_s = time.monotonic() - self._last_sign
        if silent_s > self._patience_s:
            self.kill()
            self._end(f"gave no sign of life for {silent_s:.0f} s")
        elif self._on_end is not None:
            self._check = self._loop.call_later(self._patience_s / 4, self._check_silence)

    def _read_if_open(self) -> None:
        if self._process.returncode is None:
            self._read()

    def _end(self, reason: str) -> None:
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            self._check.cancel()
            on_end(reason)

    def _close_pipes(self) -> None:
        self._loop.remove_reader(self._pipe)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _reason(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
