"""A strict reader of GGUF files: header, metadata and places of tensors, every number checked before it is used.

A file comes from anywhere, so nothing in it is trusted: each count is held against the bytes that are left, each
tensor against the file's end and against the others, and every fault is a `CheckpointError` with the file's name.
Weights are views of a private memory map: opening reads the header alone.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramify.errors import CheckpointError, UnsupportedModelError
from ramify.models.gguf.types import READABLE, REFUSED, TensorType

if TYPE_CHECKING:
    import torch

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"
_LEAST_ALIGNMENT = 8
_MAX_ENTRIES = 1 << 16
"""Metadata entries, and tensors, of one file at most; the largest models have a few thousand tensors."""
_MAX_ELEMENTS = 1 << 22
"""Elements of all metadata arrays together; the largest vocabularies have a few hundred thousand tokens."""
_MAX_NAME_BYTES = 1 << 16
_MAX_DIMENSIONS = 4
_BOOL, _STRING, _ARRAY = 7, 8, 9
_FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
_NUMBERS = {kind: struct.Struct("<" + form) for kind, form in _FORMS.items()}
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor lies.

    Attributes:
        name: e.g. "blk.0.attn_q.weight".
        type: its number format.
        shape: outermost dimension first, as torch has it (the file has it the other way round).
        offset, num_bytes: its bytes in the file.
        path: the file.
    """

    name: str
    type: TensorType
    shape: tuple[int, ...]
    offset: int
    num_bytes: int
    path: Path


class GgufFile:
    """One open file.

    Attributes:
        path: of the file.
        metadata: key to value: bool, int, float, bytes (a text, not decoded yet) or a list of one of these.
        tensors: name to place.
    """

    def __init__(self, path: Path, data: mmap.mmap, metadata: dict[str, Any], tensors: dict[str, GgufTensor]) -> None:
        self.path = path
        self.metadata: Mapping[str, Any] = metadata
        self.tensors: Mapping[str, GgufTensor] = tensors
        self._data = data

    def bytes_of(self, tensor: GgufTensor) -> torch.Tensor:
        """A tensor's bytes as uint8: a view of the map, which is private (writing never reaches the file)."""
        import torch

        return torch.frombuffer(self._data, dtype=torch.uint8, count=tensor.num_bytes, offset=tensor.offset)


def read_gguf(path: Path) -> GgufFile:
    """Open a GGUF file and check its header, its metadata and the places of its tensors.

    Raises:
        CheckpointError: the file is truncated, or anything in it cannot be.
        UnsupportedModelError: a version or a number format that ramify does not read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < 24:
            raise _corrupt(path, f"it has {size} bytes, fewer than a header")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    cursor = _Cursor(path, data)
    num_tensors, num_entries = _header(cursor)
    metadata = _metadata(cursor, num_entries)
    alignment = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < _LEAST_ALIGNMENT or alignment & (alignment - 1):
        raise _corrupt(path, f"{ALIGNMENT_KEY} is {alignment!r}; it must be a power of two, {_LEAST_ALIGNMENT} or more")
    found = [_tensor_info(cursor) for _ in range(num_tensors)]
    start = -(-cursor.position // alignment) * alignment
    return GgufFile(path, data, metadata, _place(path, found, start, alignment, len(data)))


def _corrupt(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is corrupt or truncated: {why}; fetch the file again")


class _Cursor:
    """Reads forward through the file and never past its end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.position = 0
        self.elements_left = _MAX_ELEMENTS

    def corrupt(self, why: str) -> CheckpointError:
        return _corrupt(self.path, why)

    def skip(self, count: int, what: str) -> int:
        """Step over `count` bytes; where they start."""
        start = self.position
        if count > len(self.data) - start:
            raise self.corrupt(f"{what} of {count} bytes at byte {start} passes the end of the file ({len(self.data)})")
        self.position = start + count
        return start

    def number(self, form: struct.Struct, what: str) -> Any:
        return form.unpack_from(self.data, self.skip(form.size, what))[0]

    def size(self, what: str) -> int:
        return int(self.number(_LENGTH, what))

    def kind(self, what: str) -> int:
        return int(self.number(_NUMBERS[4], what))

    def text(self, what: str) -> bytes:
        length = self.size(what)
        start = self.skip(length, what)
        return self.data[start : start + length]

    def name(self, what: str) -> str:
        """A key or a tensor's name: short, and valid UTF-8."""
        raw = self.text(what)
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.corrupt(f"{what} is no UTF-8 ({raw[:40]!r})") from error
        if not name or len(raw) > _MAX_NAME_BYTES or "\0" in name:
            raise self.corrupt(f"{what} is {name[:40]!r} ({len(raw)} bytes), which cannot be a name")
        return name


def _header(cursor: _Cursor) -> tuple[int, int]:
    """Check magic and version; the counts of tensors and of metadata entries."""
    magic = cursor.data[cursor.skip(4, "the magic number") : cursor.position]
    if magic != MAGIC:
        raise cursor.corrupt(f"it starts with {magic!r}, not with {MAGIC!r}")
    version = cursor.kind("the version")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        order = ", in the byte order of other machines" if swapped in VERSIONS else ""
        raise UnsupportedModelError(
            f"{cursor.path} is GGUF version {swapped if order else version}{order}; ramify reads versions 2 and 3 in "
            "little-endian order: convert the model anew with a recent converter"
        )
    counts = cursor.size("the number of tensors"), cursor.size("the number of metadata entries")
    for count, what in zip(counts, ("tensors", "metadata entries"), strict=True):
        if count > _MAX_ENTRIES:
            raise cursor.corrupt(f"it claims {count} {what} (at most {_MAX_ENTRIES} can be)")
    return counts


def _metadata(cursor: _Cursor, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.name("a metadata key")
        if key in metadata:
            raise cursor.corrupt(f"metadata key {key!r} stands in it twice")
        metadata[key] = _value(cursor, cursor.kind(f"the type of {key!r}"), key)
    return metadata


def _value(cursor: _Cursor, kind: int, key: str) -> Any:
    if kind == _STRING:
        return cursor.text(f"the text of {key!r}")
    if kind == _BOOL:
        return _bools(cursor, cursor.data[cursor.skip(1, key) : cursor.position], key)[0]
    if kind == _ARRAY:
        return _array(cursor, key)
    if kind not in _NUMBERS:
        raise cursor.corrupt(f"metadata key {key!r} has a value of the unknown type {kind}")
    return cursor.number(_NUMBERS[kind], f"the value of {key!r}")


def _array(cursor: _Cursor, key: str) -> list[Any]:
    kind, count = cursor.kind(f"the type of {key!r}"), cursor.size(f"the length of {key!r}")
    if count > cursor.elements_left:
        raise cursor.corrupt(f"metadata key {key!r} claims {count} elements (at most {_MAX_ELEMENTS} can be)")
    cursor.elements_left -= count
    if kind == _STRING:
        return _texts(cursor, count, key)
    if kind == _BOOL:
        return _bools(cursor, cursor.data[cursor.skip(count, key) : cursor.position], key)
    if kind not in _NUMBERS:
        raise cursor.corrupt(f"metadata key {key!r} is an array of the type {kind}, which it cannot be")
    form = _NUMBERS[kind]
    start = cursor.skip(count * form.size, f"the array {key!r}")
    return [value for (value,) in form.iter_unpack(cursor.data[start : cursor.position])]


def _texts(cursor: _Cursor, count: int, key: str) -> list[bytes]:
    """An array of texts; the one loop over a whole vocabulary, so it is written out."""
    data, position, end = cursor.data, cursor.position, len(cursor.data)
    length_at, texts = _LENGTH.unpack_from, []
    for index in range(count):
        start = position + _LENGTH.size
        if start > end or (position := start + length_at(data, position)[0]) > end:
            raise cursor.corrupt(f"text {index} of {key!r} passes the end of the file ({end})")
        texts.append(data[start:position])
    cursor.position = position
    return texts


def _bools(cursor: _Cursor, raw: bytes, key: str) -> list[bool]:
    if any(value > 1 for value in raw):
        raise cursor.corrupt(f"metadata key {key!r} holds a byte {max(raw)} where true or false must be")
    return [bool(value) for value in raw]


def _tensor_info(cursor: _Cursor) -> tuple[str, TensorType, tuple[int, ...], int]:
    """Name, format, shape and offset (within the part of the tensors)."""
    name = cursor.name("a tensor's name")
    num_dimensions = cursor.kind(f"the dimensions of tensor {name}")
    if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
        raise cursor.corrupt(f"tensor {name} has {num_dimensions} dimensions; 1 to {_MAX_DIMENSIONS} can be")
    sizes = [cursor.size(f"the shape of tensor {name}") for _ in range(num_dimensions)]
    number = cursor.kind(f"the type of tensor {name}")
    if number not in READABLE:
        if number in REFUSED:
            known = ", ".join(kind.name for kind in READABLE.values())
            raise UnsupportedModelError(
                f"{cursor.path}: tensor {name} is stored as {REFUSED[number]}, which ramify does not read; it reads "
                f"{known}: take a file in one of these"
            )
        raise cursor.corrupt(f"tensor {name} has the unknown type {number}")
    kind = READABLE[number]
    if not all(1 <= size < 1 << 48 for size in sizes) or sizes[0] % kind.block_size:
        raise cursor.corrupt(f"tensor {name} has the shape {sizes}, which {kind.name} cannot have")
    return name, kind, tuple(reversed(sizes)), cursor.size(f"the offset of tensor {name}")


def _place(
    path: Path, found: list[tuple[str, TensorType, tuple[int, ...], int]], start: int, alignment: int, end: int
) -> dict[str, GgufTensor]:
    """Where each tensor lies; inside of the file, aligned, each name once, none on top of another."""
    tensors: dict[str, GgufTensor] = {}
    last_end, last_name = start, ""
    for name, kind, shape, offset in sorted(found, key=lambda each: each[3]):
        num_bytes = kind.block_bytes
        for size in shape:
            num_bytes *= size
        num_bytes //= kind.block_size
        where = start + offset
        if name in tensors:
            raise _corrupt(path, f"tensor {name} stands in it twice")
        if offset % alignment:
            raise _corrupt(path, f"tensor {name} lies at offset {offset}, which is no multiple of {alignment}")
        if where + num_bytes > end:
            raise _corrupt(path, f"tensor {name} ends at byte {where + num_bytes}, the file at {end}")
        if where < last_end:
            raise _corrupt(path, f"tensors {last_name} and {name} lie on top of each other")
        last_end, last_name = where + num_bytes, name
        tensors[name] = GgufTensor(name, kind, shape, where, num_bytes, path)
    return tensors
