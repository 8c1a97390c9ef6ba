"""Files of packed weights: safetensors whose buffers are what the kernels read, so that a map of the file is the model.

Every buffer begins at a multiple of 64 bytes where its predecessors allow, and the header says what the buffers are.
A file is written beside its name and renamed, so whoever opens it finds all of it or nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open

from ramify.errors import CheckpointError
from ramify.kernels.blocks import BLOCK, CHUNK, PANEL, STEP
from ramify.kernels.packed import ACTIVATION_GROUPS, FACTOR_GROUPS, GROUP_SIZES, Kind, PackedMatrix

LAYOUT_VERSION = 3
"""Of the buffers (`kernels.packed`) and of the header; goes up whenever either changes."""

PACKED_FILE = "ramify.safetensors"
"""Its name in a checkpoint's folder."""
_ALIGNMENT = 64
_DTYPES = {
    torch.int8: "I8", torch.uint8: "U8", torch.int32: "I32", torch.int64: "I64",
    torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32",
}  # fmt: skip
_FACTORED = [(CHUNK, group) for group in FACTOR_GROUPS]
_ABOUT = "ramify"
_REMEDY = "make it again with `ramify quantize`"


@dataclass(frozen=True, slots=True)
class PackedModel:
    """The weights of a model as the kernels read them.

    Attributes:
        spec: the format, as `parse_format` reads it.
        matrices: by the names of their products, e.g. "model.layers.0.self_attn.qkv_proj".
        vectors: norms and biases by name, float32; permutations of inputs, int64.
        about: what else is to be kept with the weights, as JSON.
    """

    spec: str
    matrices: dict[str, PackedMatrix] = field(default_factory=dict)
    vectors: dict[str, torch.Tensor] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Size of all weights."""
        buffers = [buffer for matrix in self.matrices.values() for buffer in matrix.tensors.values()]
        return sum(buffer.nbytes for buffer in (*buffers, *self.vectors.values()))


def write_packed(path: Path, model: PackedModel) -> None:
    """Write a file; there is all of it or none.

    Raises:
        OSError: it cannot be written.
    """
    tensors = dict(model.vectors)
    matrices = {}
    for name, matrix in model.matrices.items():
        tensors.update({f"{name}.{part}": buffer for part, buffer in matrix.tensors.items()})
        matrices[name] = {
            "rows": matrix.rows,
            "columns": matrix.columns,
            "kind": matrix.kind,
            "group_size": matrix.group_size,
            "activation_group": matrix.activation_group,
            "parts": list(matrix.tensors),
        }
    about = {"layout": LAYOUT_VERSION, "spec": model.spec, "matrices": matrices, "about": model.about}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            _write(file, tensors, json.dumps(about))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write(file: Any, tensors: Mapping[str, torch.Tensor], about: str) -> None:
    # Buffers of whole cache lines first: all of them, and the first of the rest, then begin at one.
    ordered = sorted(tensors.items(), key=lambda entry: (entry[1].nbytes % _ALIGNMENT != 0, -entry[1].element_size()))
    header: dict[str, Any] = {"__metadata__": {_ABOUT: about}}
    place = 0
    for name, tensor in ordered:
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [place, place + tensor.nbytes],
        }
        place += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)
    for _, tensor in ordered:
        if tensor.nbytes:
            file.write(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)


def read_packed(path: Path) -> PackedModel:
    """Map a file; nothing is read but its header.

    Raises:
        CheckpointError: it is missing, corrupt, truncated, of another layout, or its buffers are not as they must be.
    """
    try:
        file: Any = safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): {_REMEDY}") from error
    about = _about(path, file.metadata())
    if about["layout"] != LAYOUT_VERSION:
        raise CheckpointError(
            f"{path} has the packed layout {about['layout']!r}, and this version of ramify reads "
            f"{LAYOUT_VERSION}: {_REMEDY}"
        )
    names = set(file.keys())
    matrices = {}
    for name, entry in about["matrices"].items():
        parts = {part: f"{name}.{part}" for part in entry["parts"]}
        missing = sorted(set(parts.values()) - names)
        if missing:
            raise CheckpointError(f"{path} lacks {missing[0]}: it is corrupt; {_REMEDY}")
        names -= set(parts.values())
        buffers = {part: file.get_tensor(key) for part, key in parts.items()}
        matrices[name] = _matrix(path, name, entry, buffers)
    return PackedModel(about["spec"], matrices, {name: file.get_tensor(name) for name in names}, about["about"])


def _matrix(path: Path, name: str, entry: dict[str, Any], buffers: dict[str, torch.Tensor]) -> PackedMatrix:
    """One matrix, its buffers checked: the kernels read as much as its shape says."""
    sizes = (entry["rows"], entry["columns"], entry["kind"], entry["group_size"], entry["activation_group"])
    matrix = PackedMatrix(*sizes, buffers)
    expected = _buffers(matrix)
    found = {part: (tuple(buffer.shape), buffer.dtype) for part, buffer in buffers.items()}
    fits = found.keys() == expected.keys()
    fits = fits and all(
        found[part][0] == shape and found[part][1] in kinds for part, (shape, kinds) in expected.items()
    )
    if not fits or min(matrix.rows, matrix.columns) < 1:
        raise CheckpointError(f"{path}: the buffers of {name} ({found}) are not those of {sizes}: {_REMEDY}")
    return matrix


def _buffers(matrix: PackedMatrix) -> dict[str, tuple[tuple[int, ...], tuple[torch.dtype, ...]]]:
    """Shapes and possible types of a matrix's buffers; nothing if there is no such kind of matrix."""
    blocks, inputs = -(-matrix.rows // PANEL) * (PANEL // BLOCK), matrix.padded_columns
    if matrix.kind in ("bfloat16", "float32"):
        together, kind = (2, torch.bfloat16) if matrix.kind == "bfloat16" else (1, torch.float32)
        return {"weight": ((blocks, inputs // together, BLOCK, together), (kind,))}
    groups = ACTIVATION_GROUPS if matrix.kind in ("w8a8", "w6a8", "w4a8") else (0,)
    if matrix.group_size not in GROUP_SIZES or matrix.activation_group not in groups:
        return {}
    codes = ((blocks, inputs // CHUNK * matrix.bits, BLOCK, STEP), (torch.uint8,))
    groups_of = (blocks, inputs // matrix.group_size, BLOCK)
    if "factors" in matrix.tensors or matrix.kind == "w6a8":
        if matrix.kind not in ("w6a8", "w4a8") or (matrix.group_size, matrix.activation_group) not in _FACTORED:
            return {}
        factors = ((blocks, inputs // matrix.activation_group, BLOCK), (torch.bfloat16,))
        return {"codes": codes, "scales": (groups_of, (torch.int8,)), "factors": factors}
    values = (groups_of, (torch.float16, torch.float32))
    given = {"codes": codes, "scales": values}
    return given | ({"mins": values} if "mins" in matrix.tensors else {})


_KINDS = get_args(Kind)


def _about(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        about = json.loads((metadata or {})[_ABOUT])
        entries = about["matrices"].values()
        sound = isinstance(about["spec"], str) and isinstance(about["about"], dict) and "layout" in about
        sound = sound and all(isinstance(entry["parts"], list) and _is_shape(entry) for entry in entries)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is no file of packed weights ({error!r}): {_REMEDY}") from error
    if not sound:
        raise CheckpointError(f"{path} has a header that cannot be: {_REMEDY}")
    return dict(about)


def _is_shape(entry: Mapping[str, Any]) -> bool:
    sizes = [entry[name] for name in ("rows", "columns", "group_size", "activation_group")]
    return entry["kind"] in _KINDS and all(type(size) is int and size >= 0 for size in sizes)
