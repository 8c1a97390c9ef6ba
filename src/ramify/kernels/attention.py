"""Paged attention over a flat ragged batch, in torch.

The rule it keeps: a row's result is the same bits whatever shares the batch, however its prompt was chunked and however
long its neighbours are. So every row is computed over fixed ranges of `PARTITION` key positions, whose partial sums are
added in order of position; ranges beyond a row's own keys add exact zeros. What is batched together then changes which
rows are multiplied at once, never how one row is summed. Scores and sums are float32 whatever the cache holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

PARTITION = 64
"""Key positions summed at once: a multiple of every block size."""
QUERY_TILE = 128
"""A prompt chunk is cut into tiles of so many queries: later tiles see more keys, so less is computed in vain."""
MIN_MATRIX_ROWS = 4
"""Float32 matrix products of fewer rows take another path in the BLAS library, with other bits."""
MIN_ROWS_A_THREAD = 8
"""On several threads they do so from more rows on: of fewer than 12 on two (measured with torch 2.13 on AVX-512)."""
_QUERY_BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)
_WORKSPACE_ELEMENTS = 8 << 20

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class QuerySpan:
    """Consecutive rows of the flat batch that belong to one sequence.

    Attributes:
        first_row: in the flat batch.
        num_rows: 1 for a decode, more for a prompt chunk.
        first_position: position of the first row's token; it attends to all positions up to its own.
        blocks: the sequence's block table, as far as the last row's position.
    """

    first_row: int
    num_rows: int
    first_position: int
    blocks: Sequence[int]


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Spans of like shape, computed as one batched product.

    Attributes:
        rows: [entries * queries] flat rows; entries shorter than `queries` repeat their last row.
        blocks: [entries * partitions * blocks a partition], padded with the null block.
        masks: window -> [entries, partitions, queries, 1, PARTITION] float32, 0 where a key is seen and -inf elsewhere.
        kept: positions in `rows` that are no repeats; None if there are none.
    """

    entries: int
    queries: int
    partitions: int
    rows: torch.Tensor
    blocks: torch.Tensor
    masks: dict[int | None, torch.Tensor]
    kept: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """All groups of a batch; made once a step and used by every layer.

    Attributes:
        order: [T] for each flat row its place in the groups' joined outputs; None if they are in order already.
    """

    groups: tuple[AttentionGroup, ...]
    order: torch.Tensor | None


def plan_attention(
    spans: Sequence[QuerySpan],
    *,
    block_size: int,
    group_size: int,
    num_kv_heads: int,
    windows: Sequence[int | None],
    device: torch.device,
) -> AttentionPlan:
    """Sort the spans of a batch into groups.

    Args:
        spans: cover rows 0 to T-1 of the flat batch, each once.
        block_size: tokens a block.
        group_size: query heads a KV head.
        num_kv_heads: of the model.
        windows: the distinct sliding windows of its layers (None: all positions are seen).
        device: where the index tensors go.
    """
    by_shape: dict[tuple[int, int], list[QuerySpan]] = defaultdict(list)
    fewest = -(-MIN_MATRIX_ROWS // group_size)
    for span in spans:
        for tile in _tiles(span):
            queries = next(b for b in _QUERY_BUCKETS if b >= max(tile.num_rows, fewest))
            partitions = _bucket(-(-(tile.first_position + tile.num_rows) // PARTITION))
            by_shape[queries, partitions].append(tile)
    groups: list[AttentionGroup] = []
    joined: list[Int64Array] = []
    for (queries, partitions), tiles in by_shape.items():
        elements = num_kv_heads * partitions * PARTITION * queries * group_size
        at_once = max(1, _WORKSPACE_ELEMENTS // elements)
        for start in range(0, len(tiles), at_once):
            group, rows = _group(tiles[start : start + at_once], queries, partitions, block_size, windows, device)
            groups.append(group)
            joined.append(rows)
    flat = np.concatenate(joined)
    if np.array_equal(flat, np.arange(len(flat))):
        return AttentionPlan(tuple(groups), None)
    return AttentionPlan(tuple(groups), torch.from_numpy(np.argsort(flat)).to(device))


def _tiles(span: QuerySpan) -> list[QuerySpan]:
    if span.num_rows <= QUERY_TILE:
        return [span]
    return [
        QuerySpan(span.first_row + at, min(QUERY_TILE, span.num_rows - at), span.first_position + at, span.blocks)
        for at in range(0, span.num_rows, QUERY_TILE)
    ]


def _bucket(n: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: few distinct shapes, at most half as much again of padding."""
    size = 1
    while size < n:
        if size >= 2 and size + size // 2 >= n:
            return size + size // 2
        size *= 2
    return size


def _group(
    tiles: Sequence[QuerySpan],
    queries: int,
    partitions: int,
    block_size: int,
    windows: Sequence[int | None],
    device: torch.device,
) -> tuple[AttentionGroup, Int64Array]:
    count = len(tiles)
    lengths = np.array([tile.num_rows for tile in tiles])[:, None]
    offsets = np.minimum(np.arange(queries)[None, :], lengths - 1)
    rows = np.array([tile.first_row for tile in tiles])[:, None] + offsets
    positions = np.array([tile.first_position for tile in tiles])[:, None] + offsets
    blocks = np.zeros((count, partitions * PARTITION // block_size), np.int64)
    for i, tile in enumerate(tiles):
        used = -(-(tile.first_position + tile.num_rows) // block_size)
        blocks[i, :used] = tile.blocks[:used]
    valid = (np.arange(queries)[None, :] < lengths).ravel()
    kept = None if valid.all() else torch.from_numpy(np.flatnonzero(valid)).to(device)
    group = AttentionGroup(
        entries=count,
        queries=queries,
        partitions=partitions,
        rows=torch.from_numpy(rows.ravel()).to(device),
        blocks=torch.from_numpy(blocks.ravel()).to(device),
        masks={window: _mask(positions, partitions, window, device) for window in windows},
        kept=kept,
    )
    return group, rows.ravel()[valid]


def _mask(positions: Int64Array, partitions: int, window: int | None, device: torch.device) -> torch.Tensor:
    keys = np.arange(partitions * PARTITION).reshape(1, partitions, 1, PARTITION)
    queries = positions[:, None, :, None]
    seen = keys <= queries
    if window is not None:
        seen &= keys > queries - window
    mask = np.where(seen, np.float32(0), np.float32(-np.inf))
    return torch.from_numpy(mask[:, :, :, None, :]).to(device)


def paged_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    plan: AttentionPlan,
    scale: float,
    window: int | None = None,
) -> torch.Tensor:
    """Causal attention of every row to its sequence's cached keys (its own included).

    Args:
        query: [T, heads, head_dim].
        keys, values: [kv_heads, blocks, block_size, head_dim], one layer's cache.
        plan: of this batch.
        scale: multiplies the scores.
        window: a row sees this many positions back, its own included; None sees all.

    Returns:
        [T, heads, head_dim] in the query's dtype.
    """
    kv_heads = keys.shape[0]
    rows_by_head = (query.float() * scale).view(len(query), kv_heads, -1, query.shape[-1])
    parts = [_attend(rows_by_head, keys, values, group, group.masks[window]) for group in plan.groups]
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)
    if plan.order is not None:
        joined = joined.index_select(0, plan.order)
    return joined.to(query.dtype)


def _attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, group: AttentionGroup, mask: torch.Tensor
) -> torch.Tensor:
    """One group's rows, [kept rows, heads, head_dim] float32. `query` is [T, kv_heads, group, head_dim]."""
    kv_heads, _, _, dim = keys.shape
    heads = query.shape[2]
    entries, queries, parts = group.entries, group.queries, group.partitions
    batch, width = kv_heads * entries * parts, queries * heads

    rows = query.index_select(0, group.rows).view(entries, queries, kv_heads, heads, dim).permute(2, 0, 1, 3, 4)
    rows = rows.reshape(kv_heads, entries, 1, width, dim).expand(-1, -1, parts, -1, -1).reshape(batch, width, dim)
    gathered_keys = keys.index_select(1, group.blocks).view(batch, PARTITION, dim).float()
    scores = _products(rows, gathered_keys.transpose(1, 2))
    scores = scores.view(kv_heads, entries, parts, queries, heads, PARTITION).add_(mask)
    scores -= scores.amax((2, 5), keepdim=True)
    weights = scores.exp_()
    totals = weights.sum(-1, keepdim=True)
    gathered_values = values.index_select(1, group.blocks).view(batch, PARTITION, dim).float()
    sums = _products(weights.view(batch, width, PARTITION), gathered_values)
    sums = sums.view(kv_heads, entries, parts, queries, heads, dim)

    output, total = sums[:, :, 0], totals[:, :, 0]
    for part in range(1, parts):
        output = output + sums[:, :, part]
        total = total + totals[:, :, part]
    output = (output / total).permute(1, 2, 0, 3, 4).reshape(entries * queries, kv_heads * heads, dim)
    return output if group.kept is None else output.index_select(0, group.kept)


def _products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Batched matrix products whose bits do not depend on the size of the batch or the number of threads.

    A batch smaller than the number of threads makes the BLAS library split single matrices, and pieces of few rows take
    another path. Repeating a small one keeps every matrix whole.
    """
    threads = torch.get_num_threads()
    batch, rows, _ = left.shape
    if left.is_cuda or batch >= threads or rows >= MIN_ROWS_A_THREAD * threads:
        return torch.bmm(left, right)
    copies = -(-threads // batch)
    return torch.bmm(left.repeat(copies, 1, 1), right.repeat(copies, 1, 1))[:batch]
