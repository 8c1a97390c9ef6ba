"""Attention's law: a row has the same bits alone and in company, in any chunks, and on every path; and it is right.

Sequences are drawn from random trees of block tables: prefixes that are shared, forks inside of a block, blocks that
stand at another place of another sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.errors import EngineError
from ramify.kernels.attention import KVLayer, QuerySpan, RaggedBatch, paged_attention, plan_attention
from ramify.kernels.attention_reference import reference_paged_attention, reference_plan
from ramify.kernels.kv_layer import reference_store_kv, store_kv
from ramify.kernels.native import native

OnEveryPath = Callable[[Callable[[], torch.Tensor]], list[torch.Tensor]]
DTYPES = [torch.float32, torch.bfloat16, torch.int8]


@dataclass(frozen=True)
class Scene:
    """A cache full of numbers, and the shape of the heads that read it."""

    layer: KVLayer
    heads: int

    @property
    def kv_heads(self) -> int:
        return self.layer.keys.shape[0]

    @property
    def dim(self) -> int:
        return self.layer.values.shape[3]

    @property
    def block_size(self) -> int:
        return self.layer.block_size

    def query(self, rows: int) -> torch.Tensor:
        return torch.randn(rows, self.heads, self.dim, generator=torch.Generator().manual_seed(rows))

    def attend(
        self, spans: Sequence[QuerySpan], query: torch.Tensor, window: int | None = None, scored: bool = False
    ) -> torch.Tensor:
        """[T, heads, dim]; with `scored`, the block scores."""
        group = self.heads // self.kv_heads
        batch, device = RaggedBatch.of(spans), torch.device("cpu")
        plan = plan_attention(
            batch,
            block_size=self.block_size,
            group_size=group,
            num_kv_heads=self.kv_heads,
            windows=(window,),
            device=device,
        )
        scores = torch.full((len(query), self.kv_heads, plan.native.max_blocks), 7.0) if scored else None
        out = paged_attention(query, self.layer, plan, self.dim**-0.5, window, scores)
        return out if scores is None else scores

    def expected(
        self, spans: Sequence[QuerySpan], query: torch.Tensor, window: int | None = None, scored: bool = False
    ) -> torch.Tensor:
        """The same from the reference."""
        group, device = self.heads // self.kv_heads, torch.device("cpu")
        plan = reference_plan(spans, self.block_size, group, self.kv_heads, (window,), device)
        blocks = max(-(-(span.first_position + span.num_rows) // self.block_size) for span in spans)
        scores = torch.full((len(query), self.kv_heads, blocks), 7.0) if scored else None
        out = reference_paged_attention(query, self.layer, plan, self.dim**-0.5, window, scores)
        return out if scores is None else scores


def scene(
    blocks: int,
    block_size: int = 16,
    heads: int = 6,
    kv_heads: int = 2,
    dim: int = 16,
    dtype: torch.dtype = torch.bfloat16,
) -> Scene:
    generator = torch.Generator().manual_seed(blocks + dim)

    def zeros(*shape: int, of: torch.dtype = dtype) -> torch.Tensor:
        return torch.zeros(kv_heads, blocks, *shape, dtype=of)

    scales = (zeros(block_size, of=torch.float32), zeros(block_size, of=torch.float32)) if dtype == torch.int8 else ()
    layer = KVLayer(zeros(dim, block_size), zeros(block_size, dim), *scales)
    rows = torch.randn(2, blocks * block_size, kv_heads, dim, generator=generator)
    store_kv(layer, rows[0], rows[1], torch.arange(blocks * block_size))
    return Scene(layer, heads)


def spans_of(chunks: Sequence[tuple[int, int, Sequence[int]]]) -> list[QuerySpan]:
    """From (first position, rows, block table) of each."""
    spans, row = [], 0
    for start, rows, table in chunks:
        spans.append(QuerySpan(row, rows, start, table))
        row += rows
    return spans


def alone(of: Scene, spans: Sequence[QuerySpan], query: torch.Tensor, window: int | None) -> torch.Tensor:
    """Every row as a batch of its own."""
    parts = []
    for span in spans:
        for i in range(span.num_rows):
            path = None if span.paths is None else span.paths[i]
            position, table = span.first_position + i, list(span.blocks)
            if path is not None:  # a row of a tree is the last of a sequence that ends with its path
                position, table = span.first_position + len(path) - 1, _table_of_path(of, span, path)
            single = [QuerySpan(0, 1, position, table)]
            parts.append(of.attend(single, query[span.first_row + i : span.first_row + i + 1], window))
    return torch.cat(parts)


def _table_of_path(of: Scene, span: QuerySpan, path: Sequence[int]) -> list[int]:
    """A block table whose last blocks are copies with the rows of `path` one behind the other (in unused blocks)."""
    size, tensors = of.block_size, of.layer.tensors
    first = span.first_position // size
    table = list(span.blocks)
    free = [b for b in range(tensors[0].shape[1]) if b not in table]
    copies = free[: -(-(span.first_position + len(path)) // size) - first]
    by_slot = [of.layer.keys.transpose(2, 3), *tensors[1:]]
    for position in range(first * size, span.first_position + len(path)):
        step = position - span.first_position
        source = position if step < 0 else span.first_position + path[step]
        for tensor in by_slot:
            tensor[:, copies[position // size - first], position % size] = tensor[
                :, table[source // size], source % size
            ]
    return table[:first] + copies


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("block_size", "heads", "kv_heads", "dim"), [(8, 5, 1, 20), (16, 14, 2, 32), (32, 3, 3, 4), (64, 4, 2, 48)]
)
def test_it_agrees_with_the_reference(
    isa: str, dtype: torch.dtype, block_size: int, heads: int, kv_heads: int, dim: int
) -> None:
    of = scene(640 // block_size, block_size, heads, kv_heads, dim, dtype)
    table = list(range(640 // block_size))[::-1]
    chunks = [(0, 1), (62, 3), (15, 60), (258, 1), (320, 9), (63, 1), (64, 1)]
    spans = spans_of([(start, rows, table) for start, rows in chunks])
    query = of.query(76)
    for window in (None, 10, 100):
        torch.testing.assert_close(
            of.attend(spans, query, window), of.expected(spans, query, window), atol=3e-5, rtol=1e-4
        )
    scores = of.attend(spans, query, None, scored=True)
    torch.testing.assert_close(scores, of.expected(spans, query, None, scored=True), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scores.sum((1, 2)), torch.full((76,), float(heads)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_stored_as_in_torch_and_on_every_path(on_every_path: OnEveryPath, dtype: torch.dtype) -> None:
    rows = torch.randn(2, 40, 3, 37) * torch.logspace(-9, 3, 40)[:, None, None]
    rows[:, 3] = 0
    rows[0, 5, 1, 7], rows[1, 6, 2, 0] = torch.nan, torch.inf
    slots = torch.randperm(64)[:40]

    def stored(operator: Callable[..., None] = store_kv) -> torch.Tensor:
        layer = scene(4, 16, 3, 3, 37, dtype).layer
        operator(layer, rows[0], rows[1], slots)
        return torch.cat([tensor.flatten().float() for tensor in layer.tensors]).nan_to_num(12345.0)

    found = on_every_path(stored)
    assert all(torch.equal(found[0], other) for other in found)
    torch.testing.assert_close(found[0], stored(reference_store_kv), atol=1.0 if dtype == torch.int8 else 0, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [None, 70])
def test_rows_are_the_same_bits_alone_and_on_every_path(
    on_every_path: OnEveryPath, dtype: torch.dtype, window: int | None
) -> None:
    of = scene(80, heads=14, dim=64, dtype=dtype)
    system = list(range(1, 23))
    chunks: list[tuple[int, int, Sequence[int]]] = [
        (352 + i % 5, 1, [*system, 30 + i])
        for i in range(20)  # samples of one prompt
    ]
    chunks += [(330, 6, system), (100, 30, system), (0, 1, [50]), (64, 2, [60, 61, 62, 63, 64])]
    spans = spans_of(chunks)
    query = of.query(59)
    together = on_every_path(lambda: of.attend(spans, query, window))
    together.append(alone(of, spans, query, window))
    assert all(torch.equal(together[0], other) for other in together)
    torch.testing.assert_close(together[0], of.expected(spans, query, window), atol=3e-5, rtol=1e-4)


def test_a_long_prompt_has_the_same_bits_in_any_chunks() -> None:
    of = scene(60, heads=14, dim=32)
    table = list(range(60))[::-1]
    query = of.query(900)
    whole = of.attend([QuerySpan(0, 900, 0, table)], query)
    for cuts in ([0, 1, 64, 130, 131, 900], [0, 300, 600, 900], [0, 897, 900]):
        parts = [
            of.attend([QuerySpan(0, end - begin, begin, table)], query[begin:end]) for begin, end in pairwise(cuts)
        ]
        assert torch.equal(whole, torch.cat(parts))


def test_many_sequences_beyond_the_memory_of_one_wave_change_nothing() -> None:
    of = scene(4 * 300, block_size=8, heads=8, kv_heads=1, dim=4)
    tables = [[*range(i * 5, i * 5 + 5), *range(295)] for i in range(40)]
    spans = spans_of([(2386 + i % 10, 4, table) for i, table in enumerate(tables)])
    query = of.query(160)
    found = of.attend(spans, query)
    picked = [0, 77, 159]
    for row in picked:
        span = spans[row // 4]
        own = of.attend([QuerySpan(0, 4, span.first_position, span.blocks)], query[span.first_row :][:4])
        assert torch.equal(found[span.first_row :][:4], own)


@st.composite
def forests(draw: st.DrawFn) -> tuple[int, list[tuple[int, int, list[int]]]]:
    """Block size, and (first position, rows, block table) of sequences that descend from each other or do not."""
    block_size = draw(st.sampled_from([8, 16, 32, 64]))
    pool = 1600 // block_size
    tables: list[list[int]] = []
    chunks = []
    for _ in range(draw(st.integers(1, 9))):
        kept: list[int] = []
        if draw(st.booleans()) and tables:
            parent = draw(st.sampled_from(tables))
            kept = parent[: draw(st.integers(0, len(parent)))]
        more = draw(st.integers(0 if kept else 1, 320 // block_size + 1))
        table = kept + draw(st.lists(st.integers(0, pool - 1), min_size=more, max_size=more))
        tables.append(table)
        end = len(table) * block_size - draw(st.integers(0, block_size - 1))
        rows = min(end, draw(st.sampled_from([1, 1, 1, 2, 5, 40])))
        chunks.append((end - rows, rows, table))
    return block_size, chunks


@settings(max_examples=25, deadline=None)
@given(forests(), st.sampled_from([None, 1, 50, 200]), st.sampled_from(DTYPES), st.data())
def test_sharing_changes_no_bit(
    forest: tuple[int, list[tuple[int, int, list[int]]]], window: int | None, dtype: torch.dtype, data: st.DataObject
) -> None:
    block_size, chunks = forest
    of = scene(1600 // block_size, block_size, heads=6, kv_heads=2, dim=16, dtype=dtype)
    spans = spans_of(chunks)
    query = of.query(sum(rows for _, rows, _ in chunks))
    together = of.attend(spans, query, window)
    for span in spans:
        part = query[span.first_row : span.first_row + span.num_rows]
        own = of.attend([QuerySpan(0, span.num_rows, span.first_position, span.blocks)], part, window)
        assert torch.equal(own, together[span.first_row : span.first_row + span.num_rows])
    order = data.draw(st.permutations(range(len(spans))))
    shuffled = spans_of([chunks[i] for i in order])
    rows = [query[spans[i].first_row : spans[i].first_row + spans[i].num_rows] for i in order]
    again = of.attend(shuffled, torch.cat(rows), window)
    for i, span in zip(order, shuffled, strict=True):
        same = together[spans[i].first_row : spans[i].first_row + span.num_rows]
        assert torch.equal(again[span.first_row : span.first_row + span.num_rows], same)


@pytest.mark.parametrize("start", [0, 9, 61, 250, 256])
@pytest.mark.parametrize("window", [None, 5])
def test_a_draft_tree_has_the_bits_of_its_paths(on_every_path: OnEveryPath, start: int, window: int | None) -> None:
    of = scene(80, heads=6, kv_heads=2, dim=16)
    table = list(range(40, 40 + -(-(start + 9) // 16)))
    paths = [[0], [0, 1], [0, 2], [0, 1, 3], [0, 2, 4], [0, 2, 5], [0, 1, 3, 6], [0, 2, 5, 7], [8]]
    tree = QuerySpan(2, 9, start, table, paths)
    spans = [QuerySpan(0, 2, start, table), tree, QuerySpan(11, 1, start + 4, table)]
    query = of.query(12)
    found = on_every_path(lambda: of.attend(spans, query, window))
    assert all(torch.equal(found[0], other) for other in found)
    torch.testing.assert_close(found[0], of.expected(spans, query, window), atol=3e-5, rtol=1e-4)
    assert torch.equal(found[0], alone(of, spans, query, window))


@pytest.mark.parametrize(("threads", "expected"), [(1, [1 + 8, 8, 2]), (16, [2 + 8, 8 + 8, 2 + 2])])
def test_groups_are_found_in_the_block_tables(threads: int, expected: list[int]) -> None:
    """Samples of one prompt are one piece of work where they share blocks, and one each where they differ: a piece of
    each section of 256 positions, so that many threads get a share, or of all that a piece's samples have in common."""
    of = scene(80)

    def items(tables: list[list[int]], start: int) -> int:
        spans = spans_of([(start, 1, table) for table in tables])
        plan = plan_attention(
            spans,
            block_size=16,
            group_size=of.heads // of.kv_heads,
            num_kv_heads=of.kv_heads,
            windows=(None,),
            device=torch.device("cpu"),
        )
        return int(plan.native.items)

    prefix = list(range(1, 33))  # two sections
    before = native().num_threads()
    native().set_num_threads(threads)
    try:
        found = [
            items([[*prefix, 40 + i] for i in range(8)], 512),
            items([[*prefix[i:], *prefix[:i]] for i in range(8)], 511),  # the same blocks, each time elsewhere
            items([prefix, prefix, prefix[::-1]], 511),
        ]
    finally:
        native().set_num_threads(before)
    assert found == expected


def test_what_does_not_fit_together_is_refused() -> None:
    of = scene(4)
    query = of.query(2)
    for span, word in (
        (QuerySpan(0, 2, 15, [1]), "too few"),
        (QuerySpan(0, 2, 0, [-1]), "negative"),
        (QuerySpan(0, 2, 0, [1], [[0], [1, 0]]), "end with itself"),
        (QuerySpan(0, 2, 0, [1], [[0], [7, 1]]), "row 7"),
    ):
        with pytest.raises(EngineError, match=word):
            of.attend([span], query)
    with pytest.raises(ValueError, match="names block 9 of 4"):
        of.attend([QuerySpan(0, 2, 0, [9])], query)


def test_a_nan_stays_with_those_who_see_it() -> None:
    of = scene(20, heads=4, dim=16)
    of.layer.keys[:, 3, :, 5] = torch.nan  # position 37 of the second sequence
    spans = spans_of([(60, 1, [1, 2, 4, 5]), (30, 20, [1, 2, 3, 6]), (40, 1, [1, 2, 3, 6])])
    found = of.attend(spans, of.query(22)).isnan().flatten(1)
    assert found.any(1).tolist() == found.all(1).tolist()
    assert found.all(1).nonzero().flatten().tolist() == [*range(8, 22)]
