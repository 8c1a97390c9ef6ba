"""`FormChecker`: whether a form from anywhere can be used, found out where it can do no harm.

A form is read in a process of its own (`check_worker`), with bounded memory, and for a bounded time: a grammar that
takes too long, or brings down whoever reads it, is a bad form and nothing more. What was found is kept, so that a form
costs this once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections import OrderedDict
from dataclasses import asdict

from ramify.errors import ConfigError
from ramify.sampling import StructuredOutputsParams
from ramify.text.constraints.vocabulary import special_names
from ramify.text.tokenizer import Tokenizer

_WORKER = "ramify.text.constraints.check_worker"
_START_S = 30.0
_MOST_KEPT = 4096
_LONGEST_LINE = 2**22


class FormBusyError(Exception):
    """So many new forms are being read that this one's turn would come too late."""


class FormChecker:
    """Checks forms for models; used from one event loop.

    Args:
        timeout_s: seconds that reading one form may take.
        max_bytes: of a form's text.
        max_waiting: new forms that may wait for their turn.
    """

    def __init__(self, timeout_s: float = 5.0, max_bytes: int = 64 * 1024, max_waiting: int = 64) -> None:
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._max_waiting = max_waiting
        self._found: OrderedDict[bytes, str | None] = OrderedDict()
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._process: asyncio.subprocess.Process | None = None

    async def check(self, form: StructuredOutputsParams, tokenizer: Tokenizer) -> None:
        """Make sure that an answer can be held to a form.

        Raises:
            ConfigError: it cannot; says why.
            FormBusyError: too many others wait.
        """
        text = json.dumps(asdict(form))
        size = sum(len(str(value).encode(errors="replace")) for value in asdict(form).values() if value is not None)
        if size > self._max_bytes:
            raise ConfigError(f"the {form.given[0]} takes {size:,} bytes: use at most {self._max_bytes:,}")
        names = special_names(tokenizer)
        wanted = json.dumps({"form": json.loads(text), "specials": names, "size": tokenizer.vocab_size})
        key = hashlib.sha256(wanted.encode()).digest()
        if key not in self._found:
            await self._find(key, wanted)
        self._found.move_to_end(key)
        error = self._found[key]
        if error is not None:
            raise ConfigError(error)

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            _kill(process)
            await process.wait()

    async def _find(self, key: bytes, wanted: str) -> None:
        if self._waiting >= self._max_waiting:
            raise FormBusyError
        self._waiting += 1
        try:
            async with self._turn:
                if key not in self._found:
                    self._found[key] = await self._ask(wanted)
        finally:
            self._waiting -= 1
        while len(self._found) > _MOST_KEPT:
            self._found.popitem(last=False)

    async def _ask(self, wanted: str) -> str | None:
        """What is wrong with a form. A worker that does not answer is ended, also where whoever asked has gone."""
        process = self._process or await self._started()
        self._process = None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._timeout_s):
                process.stdin.write(wanted.encode() + b"\n")
                await process.stdin.drain()
                answer = await process.stdout.readline()
            if not answer.endswith(b"\n"):
                raise ConnectionResetError
        except TimeoutError:
            return f"the form takes more than {self._timeout_s:g} s to read: simplify it"
        except ConnectionError:
            return "the form is too deep or too large to be read: simplify it"
        else:
            self._process = process
            error: str | None = json.loads(answer)
            return error
        finally:
            if self._process is None:
                _kill(process)

    async def _started(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _WORKER, stdin=pipe, stdout=pipe, limit=_LONGEST_LINE, start_new_session=True
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_START_S):
                ready = await process.stdout.readline()
            if ready != b"ready\n":
                raise RuntimeError("the process that reads forms did not start; its message is above")
        except BaseException:
            _kill(process)
            raise
        return process


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
