"""The table of token vectors: floats, or a packed matrix that the output embedding may share."""

from __future__ import annotations

import torch

from ramify.kernels.embedding import gather
from ramify.kernels.gemm import rows
from ramify.kernels.packed import PackedMatrix


class Embedding:
    """Token ids to vectors.

    Args:
        table: [vocabulary, size] floats, or packed.
        dtype: of the model (its cache has it); a float table's own by default.
    """

    def __init__(self, table: torch.Tensor | PackedMatrix, dtype: torch.dtype | None = None) -> None:
        self.table = table
        self.dtype = dtype or (table.dtype if isinstance(table, torch.Tensor) else torch.float32)
        self.device = table.device if isinstance(table, torch.Tensor) else torch.device("cpu")

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """[T] int64 -> [T, size]; float32 on the CPU."""
        return gather(self.table, ids) if isinstance(self.table, torch.Tensor) else rows(self.table, ids)
