"""A GGUF file as a `Checkpoint`: tensors under the names and in the row order that the decoder asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ramify.errors import CheckpointError
from ramify.models.checkpoint import Checkpoint
from ramify.models.gguf.blocks import FORMATS, read_blocks
from ramify.models.gguf.metadata import ROPE_FACTORS, Metadata, rotated_heads
from ramify.models.gguf.names import float_name
from ramify.models.gguf.reader import GgufFile, GgufTensor
from ramify.models.gguf.shards import read_model
from ramify.quantization.weight import QuantisedWeight

_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_ROTATED = re.compile(r"\.(q_proj|k_proj)\.(weight|bias)$")
_UNNAMED = (ROPE_FACTORS,)
"""Tensors without a weight's name: they are read with the config."""


def open_gguf(path: Path) -> Checkpoint:
    """Open a GGUF file.

    Raises:
        CheckpointError, UnsupportedModelError: see `reader.read_gguf`.
    """
    return GgufCheckpoint(read_model(path))


class GgufCheckpoint(Checkpoint):
    """The tensors of a GGUF file.

    Args:
        files: the parts of the model; nearly always one.
    """

    activations = "int8"

    def __init__(self, files: Sequence[GgufFile]) -> None:
        self.folder = files[0].path
        self._file_of = {file.path: file for file in files}
        self._tensors: dict[str, GgufTensor] = {}
        self._unknown: list[str] = []
        self._used: set[str] = set()
        for tensor in (tensor for file in files for tensor in file.tensors.values()):
            name = float_name(tensor.name)
            if name is not None:
                self._tensors[name] = tensor
            elif tensor.name not in _UNNAMED:
                self._unknown.append(tensor.name)
        self._rotated = rotated_heads(Metadata(files[0]))

    def names(self) -> frozenset[str]:
        """See `Checkpoint.names`."""
        return frozenset(self._tensors)

    def quantised(self, name: str, shape: Sequence[int]) -> QuantisedWeight | None:
        """See `Checkpoint.quantised`."""
        tensor = self._take(name, shape)
        if tensor.type.name not in FORMATS:
            return None
        rows, columns = shape
        weight = read_blocks(tensor.name, tensor.type.name, self._bytes(tensor), rows, columns)
        order = self._row_order(name, rows)
        if order is None:
            return weight
        mins = None if weight.mins is None else weight.mins[order]
        return replace(weight, codes=weight.codes[order], scales=weight.scales[order], mins=mins)

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> torch.Tensor:
        """See `Checkpoint.tensor`."""
        tensor = self._take(name, shape)
        if tensor.type.name in FORMATS:
            weight = self.quantised(name, shape)
            assert weight is not None
            floats = weight.dequantised()
        else:
            floats = self._bytes(tensor).view(_FLOATS[tensor.type.name]).view(tuple(shape))
            order = self._row_order(name, shape[0])
            floats = floats if order is None else floats[order]
        return floats.to(device=device, dtype=dtype or floats.dtype)

    def stored_dtype(self, name: str) -> torch.dtype | None:
        """See `Checkpoint.stored_dtype`."""
        return _FLOATS.get(self._tensors[name].type.name)

    def set_aside(self, prefix: str) -> None:
        """See `Checkpoint.set_aside`."""
        self._used.update(name for name in self._tensors if name.startswith(prefix))

    def check_all_used(self, prefixes: Sequence[str] = ("model.",)) -> None:
        """See `Checkpoint.check_all_used`; a GGUF file holds one decoder and nothing else."""
        self._refuse_unused(sorted([*self._unknown, *(set(self._tensors) - self._used)]))

    def close(self) -> None:
        """See `Checkpoint.close`."""
        self._file_of.clear()

    def _take(self, name: str, shape: Sequence[int]) -> GgufTensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"{self.folder} has no tensor {name}: it is incomplete or of another model")
        if tensor.shape != tuple(shape):
            raise CheckpointError(
                f"tensor {tensor.name} in {tensor.path} has shape {list(tensor.shape)}; "
                f"the metadata asks for {list(shape)}"
            )
        self._used.add(name)
        return tensor

    def _bytes(self, tensor: GgufTensor) -> torch.Tensor:
        return self._file_of[tensor.path].bytes_of(tensor)

    def _row_order(self, name: str, rows: int) -> torch.Tensor | None:
        """Rows of query and key as the decoder has them: each head's first halves of pairs, then the second ones.

        The converter of the llama architecture puts the two numbers that are rotated together side by side.
        """
        found = None if self._rotated is None else _ROTATED.search(name)
        if found is None or self._rotated is None:
            return None
        heads = self._rotated[0 if found[1] == "q_proj" else 1]
        return torch.arange(rows).view(heads, -1, 2).transpose(1, 2).flatten()
