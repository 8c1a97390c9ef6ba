"""Paged attention against plain softmax attention, at odd shapes; and the same bits however rows are batched."""

from __future__ import annotations

import pytest
import torch

from ramify.kernels.attention import KVLayer, QuerySpan, paged_attention, plan_attention

BLOCK = 16


def scene(
    lengths: list[int], heads: int, kv_heads: int, dim: int
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, list[list[int]]]:
    generator = torch.Generator().manual_seed(sum(lengths) + heads)
    blocks = sum(-(-length // BLOCK) for length in lengths) + 1
    keys = torch.randn(kv_heads, blocks, BLOCK, dim, generator=generator)
    values = torch.randn(kv_heads, blocks, BLOCK, dim, generator=generator)
    order = (torch.randperm(blocks - 1, generator=generator) + 1).tolist()
    tables = [[order.pop() for _ in range(-(-length // BLOCK))] for length in lengths]
    queries = [torch.randn(length, heads, dim, generator=generator) for length in lengths]
    return queries, keys, values, tables


def plain(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, table: list[int], start: int, window: int | None
) -> torch.Tensor:
    length, heads, dim = query.shape
    kv_heads = keys.shape[0]
    total = start + length
    k = keys[:, table].flatten(1, 2)[:, :total].double().repeat_interleave(heads // kv_heads, 0)
    v = values[:, table].flatten(1, 2)[:, :total].double().repeat_interleave(heads // kv_heads, 0)
    scores = query.double().transpose(0, 1) @ k.transpose(1, 2) * dim**-0.5
    position = torch.arange(start, total)[:, None]
    seen = torch.arange(total)[None] <= position
    if window is not None:
        seen &= torch.arange(total)[None] > position - window
    return (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v).transpose(0, 1)


@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(5, 1, 16), (6, 2, 8), (7, 7, 20), (14, 2, 64), (1, 1, 4)])
@pytest.mark.parametrize("window", [None, 1, 10, 100])
def test_it_agrees_with_plain_attention(heads: int, kv_heads: int, dim: int, window: int | None) -> None:
    lengths = [1, 16, 17, 63, 64, 65, 130, 300]
    queries, keys, values, tables = scene(lengths, heads, kv_heads, dim)
    starts = [0, 15, 3, 62, 0, 64, 1, 150]
    rows = [query[start:] for query, start in zip(queries, starts, strict=True)]
    spans, first = [], 0
    for row, start, table in zip(rows, starts, tables, strict=True):
        spans.append(QuerySpan(first, len(row), start, table))
        first += len(row)
    plan = plan_attention(
        spans,
        block_size=BLOCK,
        group_size=heads // kv_heads,
        num_kv_heads=kv_heads,
        windows=(window,),
        device=torch.device("cpu"),
    )
    found = paged_attention(
        torch.cat(rows), KVLayer(keys.transpose(2, 3).contiguous(), values), plan, dim**-0.5, window
    )
    for span, row, table in zip(spans, rows, tables, strict=True):
        expected = plain(row, keys, values, table, span.first_position, window)
        part = found[span.first_row : span.first_row + span.num_rows].double()
        torch.testing.assert_close(part, expected, atol=2e-5, rtol=1e-4)
