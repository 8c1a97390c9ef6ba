"""Rows of a table of embeddings."""

from __future__ import annotations

import torch

from ramify.kernels.native import extension, native
from ramify.kernels.tensors import address


def gather(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Look up rows.

    Args:
        table: [vocabulary, size] float32 or bfloat16.
        ids: [T] int64, each in [0, vocabulary).

    Returns:
        [T, size]: float32 on the CPU, else in the table's dtype.
    """
    if extension() is None or table.is_cuda:
        return reference_gather(table, ids)
    out = torch.empty(len(ids), table.shape[1])
    source, places = address(table, table.dtype), address(ids, torch.int64)
    native().gather(source, table.dtype == torch.bfloat16, places, len(ids), table.shape[1], out.data_ptr())
    return out


def reference_gather(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The same in torch."""
    rows = torch.nn.functional.embedding(ids, table)
    return rows if table.is_cuda else rows.float()
