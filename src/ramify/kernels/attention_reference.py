"""The torch reference of paged attention: what runs where nothing compiled does, and on CUDA.

The rule it keeps: a row's result is the same bits whatever shares the batch, however its prompt was chunked and however
long its neighbours are. So every row is computed over fixed ranges of `PARTITION` key positions, whose partial sums are
added in order of position; ranges beyond a row's own keys add exact zeros. What is batched together then changes which
rows are multiplied at once, never how one row is summed. Scores and sums are float32 whatever the cache holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from ramify.kernels.kv_layer import KVLayer

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


class Span(Protocol):
    """What is needed of a `QuerySpan`."""

    @property
    def first_row(self) -> int: ...
    @property
    def num_rows(self) -> int: ...
    @property
    def first_position(self) -> int: ...
    @property
    def blocks(self) -> Sequence[int]: ...
    @property
    def paths(self) -> Sequence[Sequence[int]] | None: ...


@dataclass(frozen=True, slots=True)
class _Tile:
    """Rows that are computed as one entry of a batched product: slots of all positions up to the last row's."""

    first_row: int
    num_rows: int
    first_position: int
    slots: Int64Array


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Spans of like shape, computed as one batched product.

    Attributes:
        rows: [entries * queries] flat rows; entries shorter than `queries` repeat their last row.
        slots: [entries * partitions * PARTITION], padded with the null block's first.
        masks: window -> [entries, partitions, queries, 1, PARTITION] float32, 0 where a key is seen and -inf elsewhere.
        kept: positions in `rows` that are no repeats; None if there are none.
    """

    entries: int
    queries: int
    partitions: int
    rows: torch.Tensor
    slots: torch.Tensor
    masks: dict[int | None, torch.Tensor]
    kept: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class ReferencePlan:
    """All groups of a batch; made once a step and used by every layer.

    Attributes:
        groups: what is computed together.
        order: [T] for each flat row its place in the groups' joined outputs; None if they are in order already.
    """

    groups: tuple[AttentionGroup, ...]
    order: torch.Tensor | None


def reference_plan(
    spans: Sequence[Span],
    block_size: int,
    group_size: int,
    num_kv_heads: int,
    windows: Sequence[int | None],
    device: torch.device,
) -> ReferencePlan:
    """Sort the spans of a batch into groups of like shape."""
    by_shape: dict[tuple[int, int], list[_Tile]] = defaultdict(list)
    fewest = -(-MIN_MATRIX_ROWS // group_size)
    for span in spans:
        for tile in _tiles(span, block_size):
            queries = next(b for b in _QUERY_BUCKETS if b >= max(tile.num_rows, fewest))
            partitions = _bucket(-(-len(tile.slots) // PARTITION))
            by_shape[queries, partitions].append(tile)
    groups: list[AttentionGroup] = []
    joined: list[Int64Array] = []
    for (queries, partitions), tiles in by_shape.items():
        elements = num_kv_heads * partitions * PARTITION * queries * group_size
        at_once = max(1, _WORKSPACE_ELEMENTS // elements)
        for start in range(0, len(tiles), at_once):
            group, rows = _group(tiles[start : start + at_once], queries, partitions, windows, device)
            groups.append(group)
            joined.append(rows)
    flat = np.concatenate(joined)
    if np.array_equal(flat, np.arange(len(flat))):
        return ReferencePlan(tuple(groups), None)
    return ReferencePlan(tuple(groups), torch.from_numpy(np.argsort(flat)).to(device))


def _tiles(span: Span, block_size: int) -> list[_Tile]:
    table = np.array(span.blocks, np.int64)
    slots = (table[:, None] * block_size + np.arange(block_size)).ravel()
    if span.paths is not None:  # each row of a tree is a sequence of its own
        before, start = slots[: span.first_position], span.first_position
        return [
            _Tile(span.first_row + i, 1, start + len(path) - 1, np.concatenate([before, slots[start + np.array(path)]]))
            for i, path in enumerate(span.paths)
        ]
    tiles = []
    for at in range(0, span.num_rows, QUERY_TILE):
        rows, position = min(QUERY_TILE, span.num_rows - at), span.first_position + at
        tiles.append(_Tile(span.first_row + at, rows, position, slots[: position + rows]))
    return tiles


def _bucket(n: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: few distinct shapes, at most half as much again of padding."""
    size = 1
    while size < n:
        if size >= 2 and size + size // 2 >= n:
            return size + size // 2
        size *= 2
    return size


def _group(
    tiles: Sequence[_Tile], queries: int, partitions: int, windows: Sequence[int | None], device: torch.device
) -> tuple[AttentionGroup, Int64Array]:
    count = len(tiles)
    lengths = np.array([tile.num_rows for tile in tiles])[:, None]
    offsets = np.minimum(np.arange(queries)[None, :], lengths - 1)
    rows = np.array([tile.first_row for tile in tiles])[:, None] + offsets
    positions = np.array([tile.first_position for tile in tiles])[:, None] + offsets
    slots = np.zeros((count, partitions * PARTITION), np.int64)
    for i, tile in enumerate(tiles):
        slots[i, : len(tile.slots)] = tile.slots
    valid = (np.arange(queries)[None, :] < lengths).ravel()
    kept = None if valid.all() else torch.from_numpy(np.flatnonzero(valid)).to(device)
    group = AttentionGroup(
        entries=count,
        queries=queries,
        partitions=partitions,
        rows=torch.from_numpy(rows.ravel()).to(device),
        slots=torch.from_numpy(slots.ravel()).to(device),
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


def reference_paged_attention(
    query: torch.Tensor,
    layer: KVLayer,
    plan: ReferencePlan,
    scale: float,
    window: int | None = None,
    block_scores: torch.Tensor | None = None,
) -> torch.Tensor:
    """See `ramify.kernels.attention.paged_attention`."""
    kv_heads = layer.keys.shape[0]
    rows_by_head = (query.float() * scale).view(len(query), kv_heads, -1, query.shape[-1])
    parts = [_attend(rows_by_head, layer, group, group.masks[window], block_scores) for group in plan.groups]
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)
    if plan.order is not None:
        joined = joined.index_select(0, plan.order)
    return joined.to(query.dtype)


def _gathered(layer: KVLayer, slots: torch.Tensor, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values at `slots`, [batch, PARTITION, head_dim] float32 each."""
    blocks, offsets = slots // layer.block_size, slots % layer.block_size
    keys = layer.keys.transpose(2, 3)[:, blocks, offsets].float()
    values = layer.values[:, blocks, offsets].float()
    if layer.key_scales is not None and layer.value_scales is not None:
        keys = keys * layer.key_scales[:, blocks, offsets, None]
        values = values * layer.value_scales[:, blocks, offsets, None]
    return keys.reshape(batch, PARTITION, -1), values.reshape(batch, PARTITION, -1)


def _attend(
    query: torch.Tensor,
    layer: KVLayer,
    group: AttentionGroup,
    mask: torch.Tensor,
    block_scores: torch.Tensor | None,
) -> torch.Tensor:
    """One group's rows, [kept rows, heads, head_dim] float32. `query` is [T, kv_heads, group, head_dim]."""
    _, kv_heads, heads, dim = query.shape
    entries, queries, parts = group.entries, group.queries, group.partitions
    batch, width = kv_heads * entries * parts, queries * heads

    rows = query.index_select(0, group.rows).view(entries, queries, kv_heads, heads, dim).permute(2, 0, 1, 3, 4)
    rows = rows.reshape(kv_heads, entries, 1, width, dim).expand(-1, -1, parts, -1, -1).reshape(batch, width, dim)
    keys, values = _gathered(layer, group.slots, batch)
    scores = _products(rows, keys.transpose(1, 2))
    scores = scores.view(kv_heads, entries, parts, queries, heads, PARTITION).add_(mask)
    scores -= scores.amax((2, 5), keepdim=True)
    weights = scores.exp_()
    totals = weights.sum(-1, keepdim=True)
    sums = _products(weights.view(batch, width, PARTITION), values)
    sums = sums.view(kv_heads, entries, parts, queries, heads, dim)

    output, total = sums[:, :, 0], totals[:, :, 0]
    for part in range(1, parts):
        output = output + sums[:, :, part]
        total = total + totals[:, :, part]
    if block_scores is not None:
        _put_block_scores(weights / total[:, :, None], layer.block_size, group, block_scores)
    output = (output / total).permute(1, 2, 0, 3, 4).reshape(entries * queries, kv_heads * heads, dim)
    return output if group.kept is None else output.index_select(0, group.kept)


def _put_block_scores(
    probabilities: torch.Tensor, block_size: int, group: AttentionGroup, block_scores: torch.Tensor
) -> None:
    """Sum [kv_heads, entries, partitions, queries, heads, PARTITION] by block, and put it where the rows are."""
    kv_heads, entries, parts, queries, _, _ = probabilities.shape
    by_block = probabilities.sum(4).view(kv_heads, entries, parts, queries, PARTITION // block_size, block_size).sum(-1)
    by_row = by_block.permute(1, 3, 0, 2, 4).reshape(entries * queries, kv_heads, -1)
    columns = min(by_row.shape[2], block_scores.shape[2])
    block_scores.index_fill_(0, group.rows, 0)
    block_scores[group.rows, :, :columns] = by_row[:, :, :columns]


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
