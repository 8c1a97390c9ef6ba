"""Rows of a table of embeddings."""

from __future__ import annotations

import torch

from ramify.kernels.native import extension, native


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
    assert ids.dtype == torch.int64 and ids.is_contiguous() and table.is_contiguous()
    out = torch.empty(len(ids), table.shape[1])
    bfloat16 = table.dtype == torch.bfloat16
    native().gather(table.data_ptr(), bfloat16, ids.data_ptr(), len(ids), table.shape[1], out.data_ptr())
    return out


def reference_gather(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The same in torch."""
    rows = torch.nn.functional.embedding(ids, table)
    return rows if table.is_cuda else rows.float()
