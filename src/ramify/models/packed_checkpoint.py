"""A model in the layout of the kernels as a `Checkpoint`: products whole, norms and biases by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ramify.errors import CheckpointError
from ramify.kernels.packed import PackedMatrix
from ramify.models.checkpoint import WEIGHT, Checkpoint
from ramify.quantization.packed_file import PackedModel
from ramify.quantization.weight import QuantisedWeight


class PackedCheckpoint(Checkpoint):
    """Packed weights.

    Args:
        folder: of the model they belong to.
        model: the weights.
    """

    def __init__(self, folder: Path, model: PackedModel) -> None:
        self.folder = folder
        self.model = model
        self._used: set[str] = set()
        self._names = frozenset({*model.vectors, *(name + WEIGHT for name in model.matrices)})

    def names(self) -> frozenset[str]:
        """See `Checkpoint.names`; a product stands for its parts."""
        return self._names

    def packed(self, name: str) -> PackedMatrix | None:
        """See `Checkpoint.packed`."""
        self._used.add(name + WEIGHT)
        return self.model.matrices.get(name)

    def quantised(self, name: str, shape: Sequence[int]) -> QuantisedWeight | None:
        """See `Checkpoint.quantised`; what is packed is not taken apart."""
        return None

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> torch.Tensor:
        """See `Checkpoint.tensor`."""
        self._used.add(name)
        found = self.model.vectors.get(name)
        if found is None:
            raise CheckpointError(
                f"{self.folder} has no tensor {name}: it is incomplete or of another model; make it again with "
                "`ramify quantize`"
            )
        if tuple(found.shape) != tuple(shape):
            raise CheckpointError(
                f"tensor {name} in {self.folder} has shape {list(found.shape)}; the config asks for {list(shape)}"
            )
        return found.to(device=device, dtype=dtype or found.dtype)

    def stored_dtype(self, name: str) -> torch.dtype | None:
        """See `Checkpoint.stored_dtype`."""
        found = self.model.vectors.get(name)
        return None if found is None else found.dtype

    def set_aside(self, prefix: str) -> None:
        """See `Checkpoint.set_aside`."""
        self._used.update(name for name in self._names if name.startswith(prefix))

    def check_all_used(self, prefixes: Sequence[str] = ("model.",)) -> None:
        """See `Checkpoint.check_all_used`."""
        self._refuse_unused(sorted(self._names - self._used))

    def close(self) -> None:
        """See `Checkpoint.close`; a map lives as long as its tensors."""
