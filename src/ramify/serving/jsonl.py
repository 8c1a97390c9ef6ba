"""Lines of JSON, read from pieces of any size without ever holding more than one line and one piece."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import msgspec

from ramify.errors import RequestError

MAX_LINE_BYTES = 16 * 2**20
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class LineSplitter:
    """Cuts a stream of bytes into lines.

    Raises:
        RequestError: (by its methods) a line is longer than `MAX_LINE_BYTES`.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._number = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The lines that end in `data`, with their numbers from 1; blank ones count and are left out."""
        self._rest += data
        end = self._rest.rfind(b"\n", max(0, len(self._rest) - len(data))) + 1
        whole = bytes(self._rest[:end])
        del self._rest[:end]
        for line in whole.split(b"\n")[:-1]:
            yield from self._line(line)
        if len(self._rest) > MAX_LINE_BYTES:
            raise self._too_long()

    def finish(self) -> Iterator[tuple[int, bytes]]:
        """The last line, if no newline ended it."""
        rest = bytes(self._rest)
        self._rest.clear()
        if rest:
            yield from self._line(rest)

    def _line(self, line: bytes) -> Iterator[tuple[int, bytes]]:
        self._number += 1
        if len(line) > MAX_LINE_BYTES:
            raise self._too_long(0)
        if line.strip():
            yield self._number, line

    def _too_long(self, ahead: int = 1) -> RequestError:
        return RequestError(f"line {self._number + ahead} is longer than {MAX_LINE_BYTES:,} bytes: split the request")


async def lines_of(pieces: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """The lines of a file that is read in pieces, with their numbers from 1; blank ones count and are left out."""
    splitter = LineSplitter()
    async for piece in pieces:
        for line in splitter.feed(piece):
            yield line
    for line in splitter.finish():
        yield line


class JsonLinesCheck:
    """Whether a stream of bytes is JSON Lines: an object on every line.

    Args:
        max_lines: it may have.
    """

    def __init__(self, max_lines: int) -> None:
        self._max_lines = max_lines
        self._splitter = LineSplitter()
        self.num_lines = 0

    def feed(self, data: bytes) -> None:
        """Check what has arrived.

        Raises:
            RequestError: with the line's number.
        """
        for number, line in self._splitter.feed(data):
            self._check(number, line)

    def finish(self) -> None:
        """Check the end.

        Raises:
            RequestError: with the line's number; or there is none.
        """
        for number, line in self._splitter.finish():
            self._check(number, line)
        if not self.num_lines:
            raise RequestError("the file has no lines: a batch file has one request on each line")

    def _check(self, number: int, line: bytes) -> None:
        self.num_lines += 1
        if self.num_lines > self._max_lines:
            raise RequestError(f"the file has more than {self._max_lines:,} lines: split it into several batches")
        try:
            line.decode()
            _OBJECT.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError(f"line {number} is no JSON object: {error}") from error
