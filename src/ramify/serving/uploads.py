"""Uploads: a multipart form read as it arrives, so that a file goes to the storage without a stop in between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import Message
from typing import Literal

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from ramify.serving.errors import ApiError

MAX_PARTS = 16
MAX_PART_HEADER_BYTES = 8192
_MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class FormPiece:
    """Something of a form: a part's start, some of its content, or its end.

    Attributes:
        kind: which of them.
        field: name of the part.
        filename: of a part that is a file; None for other fields.
        data: content, for "data".
    """

    kind: Literal["start", "data", "end"]
    field: str
    filename: str | None
    data: bytes = b""


async def form_pieces(stream: AsyncIterator[bytes], content_type: str) -> AsyncIterator[FormPiece]:
    """The pieces of a form in order, each as soon as it has arrived.

    Raises:
        ApiError: 400, it is no sound multipart form, or it has too many parts.
    """
    try:
        reader = _Reader(_boundary(content_type))
        async for data in stream:
            reader.parser.write(data)
            for piece in reader.take():
                yield piece
    except FormParserError as error:
        raise ApiError(400, f"the form cannot be read: {error}", code="invalid_form") from error
    except ClientDisconnect as error:
        raise ApiError(400, "the client went away before the form's end", code="invalid_form") from error
    if not reader.complete:
        raise ApiError(400, "the form ends before its last boundary: send all of it", code="invalid_form")


def clean_filename(name: str) -> str:
    """A client's file name without folders and without characters that could end a header; never used as a path."""
    base = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(letter for letter in base if letter.isprintable()).strip()
    return kept[:_MAX_NAME] if kept.strip(".") else "upload"


def content_disposition(filename: str) -> str:
    """The header that names a download; letters beyond ASCII in the form of RFC 5987."""
    header = Message()
    header.add_header("Content-Disposition", "attachment", filename=_plain_or_encoded(filename))
    return str(header["Content-Disposition"])


def _plain_or_encoded(filename: str) -> str | tuple[str, None, str]:
    return filename if filename.isascii() else ("utf-8", None, filename)


class _Reader:
    """Turns the parser's callbacks into pieces."""

    def __init__(self, boundary: bytes) -> None:
        self.complete = False
        self._pieces: list[FormPiece] = []
        self._num_parts = 0
        self._field, self._filename = "", None  # type: str, str | None
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._start,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
            max_header_size=MAX_PART_HEADER_BYTES,
        )

    def take(self) -> list[FormPiece]:
        """What came since the last call."""
        taken, self._pieces = self._pieces, []
        return taken

    def _begin(self) -> None:
        self._num_parts += 1
        if self._num_parts > MAX_PARTS:
            raise ApiError(400, f"the form has more than {MAX_PARTS} parts: send one file", code="invalid_form")
        self._headers = {}

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _start(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise ApiError(400, "a part of the form has no name in its Content-Disposition", code="invalid_form")
        filename = options.get(b"filename")
        self._field = options[b"name"].decode("utf-8", "replace")
        self._filename = None if filename is None else filename.decode("utf-8", "replace")
        self._pieces.append(FormPiece("start", self._field, self._filename))

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(FormPiece("data", self._field, self._filename, data[start:end]))

    def _end(self) -> None:
        self._pieces.append(FormPiece("end", self._field, self._filename))

    def _finish(self) -> None:
        self.complete = True


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise ApiError(400, "send multipart/form-data with a boundary", code="invalid_form")
    return options[b"boundary"]
