"""Paged attention over a flat ragged batch, straight from the block tables.

The rule it keeps: a row's result is the same bits whatever shares the batch, however its prompt was chunked, and
whoever shares its blocks. So a row is always the partial softmaxes of fixed ranges of 64 key positions, merged in
order of position; what is batched changes which rows are multiplied together, never how one row is summed.
"""

from __future__ import annotations

import torch

from ramify.kernels.attention_reference import MIN_ROWS_A_THREAD, reference_paged_attention
from ramify.kernels.kv_layer import KVLayer, runs_natively
from ramify.kernels.native import native
from ramify.kernels.plan import AttentionPlan, QuerySpan, RaggedBatch, plan_attention

__all__ = [
    "MIN_ROWS_A_THREAD",
    "AttentionPlan",
    "KVLayer",
    "QuerySpan",
    "RaggedBatch",
    "paged_attention",
    "plan_attention",
]


def paged_attention(
    query: torch.Tensor,
    layer: KVLayer,
    plan: AttentionPlan,
    scale: float,
    window: int | None = None,
    block_scores: torch.Tensor | None = None,
) -> torch.Tensor:
    """Causal attention of every row to its sequence's cached keys (its own included).

    Args:
        query: [T, heads, head_dim]; rows may be strided.
        layer: the cache of one layer.
        plan: of this batch.
        scale: multiplies the scores.
        window: a row sees this many positions back, its own included; None sees all.
        block_scores: [T, kv_heads, blocks of the longest table] float32, to be filled with the probability that each
            row gives to each block, summed over the heads of a group; None: not wanted.

    Returns:
        [T, heads, head_dim] in the query's dtype.
    """
    if plan.reference is not None:
        return reference_paged_attention(query, layer, plan.reference, scale, window, block_scores)
    assert runs_natively(layer)
    rows = query.float()
    if rows.stride(2) != 1 or rows.stride(1) != rows.shape[2]:
        rows = rows.contiguous()
    out = torch.empty(rows.shape, dtype=torch.float32)
    native().attend(
        plan.native,
        layer.native_arguments(),
        rows.data_ptr(),
        rows.stride(0),
        out.data_ptr(),
        scale,
        window or 0,
        0 if block_scores is None else block_scores.data_ptr(),
    )
    return out.to(query.dtype)
