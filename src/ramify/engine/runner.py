"""The model runner: turns a schedule into one flat ragged batch, runs it, and hands back the logits that are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ramify.engine.scheduler import Scheduled
from ramify.engine.sequence import Sequence as EngineSequence
from ramify.kernels.attention import MIN_ROWS_A_THREAD, plan_attention
from ramify.kernels.batch import Chunk, lay_out
from ramify.kernels.native import extension
from ramify.kv.block_pool import NULL_BLOCK
from ramify.kv.cache import KVCache
from ramify.layers.inputs import BatchInputs
from ramify.models.decoder import Decoder

_MIN_ROWS = 16
"""In torch, fewer rows than this (or than `MIN_ROWS_A_THREAD`) are padded in float32: every product takes one path."""
_NOTHING: Chunk = ([0], [NULL_BLOCK], 0, 1)
"""A row of padding."""
_READ_ROWS_AT_ONCE = 256
"""Prompt rows whose logits are held at once: with a vocabulary of 150,000 that is 150 MB."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A step, ready to run.

    Attributes:
        inputs: the flat ragged batch; its `logits_rows` belong to `drawing`, in order.
        drawing: the sequences that draw a token from it.
        reading: prompt rows whose logits are wanted, as (row, sequence, position).
        pooling: prompt rows that a vector is made of, as (first row, how many, sequence, position of the first).
    """

    inputs: BatchInputs
    drawing: list[EngineSequence]
    reading: list[tuple[int, EngineSequence, int]]
    pooling: list[tuple[int, int, EngineSequence, int]]


ReadRows = Callable[[list[tuple[EngineSequence, int]], torch.Tensor], None]
"""Takes (sequence, position) of prompt rows that are read, and their logits [rows, vocabulary]."""


class ModelRunner:
    """Runs batches on one decoder and its KV cache."""

    def __init__(self, decoder: Decoder, cache: KVCache) -> None:
        self.decoder = decoder
        self.cache = cache
        config = decoder.config
        self.group_size = config.num_heads // config.num_kv_heads
        self.windows = tuple(dict.fromkeys(config.windows))
        self._native = extension() if decoder.device.type == "cpu" else None

    def build(self, items: Sequence[Scheduled]) -> Batch:
        """Lay out the rows that the scheduler gave out."""
        drawing, draw_rows, reading = _rows_to_read(items)
        return Batch(self._inputs(items, draw_rows), drawing, reading, _rows_to_pool(items))

    @torch.inference_mode()
    def execute(self, batch: Batch, read_rows: ReadRows) -> torch.Tensor | None:
        """Run a batch.

        Args:
            batch: from `build`.
            read_rows: called for the prompt rows whose logits are wanted, some of them at a time.

        Returns:
            [len(batch.drawing), vocabulary] float32 logits, or None if nothing draws.
        """
        if self._native is not None:
            self._native.set_num_threads(torch.get_num_threads())
        hidden = self.decoder.forward(batch.inputs, self.cache)
        for first, count, sequence, position in batch.pooling:
            assert sequence.pooler is not None
            sequence.pooler.add(position, self.decoder.normed(hidden[first : first + count]))
        for start in range(0, len(batch.reading), _READ_ROWS_AT_ONCE):
            part = batch.reading[start : start + _READ_ROWS_AT_ONCE]
            index = self._index([row for row, _, _ in part])
            logits = self.decoder.logits(hidden.index_select(0, index))[: len(part)]
            read_rows([(sequence, position) for _, sequence, position in part], logits)
        if not batch.drawing:
            return None
        return self.decoder.logits(hidden.index_select(0, batch.inputs.logits_rows))[: len(batch.drawing)]

    def _min_rows(self) -> int:
        if self._native is not None or self.decoder.dtype != torch.float32:
            return 1
        return max(_MIN_ROWS, MIN_ROWS_A_THREAD * torch.get_num_threads())

    def _index(self, rows: list[int]) -> torch.Tensor:
        """Row numbers as a tensor, the last one repeated up to the least number of rows."""
        padded = rows + rows[-1:] * (self._min_rows() - len(rows))
        return torch.tensor(padded, device=self.decoder.device)

    def _inputs(self, items: Sequence[Scheduled], draw_rows: list[int]) -> BatchInputs:
        chunks = [(item.sequence.tokens, item.sequence.blocks, item.start, item.num_rows) for item in items]
        chunks += [_NOTHING] * (self._min_rows() - sum(item.num_rows for item in items))
        flat, device = lay_out(chunks, self.cache.block_size), self.decoder.device
        return BatchInputs(
            token_ids=flat.token_ids.to(device),
            positions=flat.positions.to(device),
            slots=flat.slots.to(device),
            attention=plan_attention(
                flat.spans,
                block_size=self.cache.block_size,
                group_size=self.group_size,
                num_kv_heads=self.decoder.config.num_kv_heads,
                windows=self.windows,
                device=device,
            ),
            logits_rows=self._index(draw_rows) if draw_rows else torch.empty(0, dtype=torch.int64, device=device),
        )


def _rows_to_pool(items: Sequence[Scheduled]) -> list[tuple[int, int, EngineSequence, int]]:
    found, first = [], 0
    for item in items:
        if item.sequence.pooler is not None:
            found.append((first, item.num_rows, item.sequence, item.start))
        first += item.num_rows
    return found


def _rows_to_read(
    items: Sequence[Scheduled],
) -> tuple[list[EngineSequence], list[int], list[tuple[int, EngineSequence, int]]]:
    """Sequences that draw, the rows they draw from, and the prompt rows that are read as (row, sequence, position)."""
    drawing: list[EngineSequence] = []
    draw_rows: list[int] = []
    read_rows: list[tuple[int, EngineSequence, int]] = []
    first = 0
    for item in items:
        sequence = item.sequence
        if sequence.first_needed_row is not None and item.start < sequence.num_prompt:
            places = range(max(item.start, sequence.first_needed_row), item.start + item.num_rows)
            wanted = filter(sequence.wants_row, places)
            read_rows += [(first + position - item.start, sequence, position) for position in wanted]
        if item.reaches_end and len(sequence.tokens) < sequence.max_total:
            drawing += (sequence, *item.forks)
            draw_rows += [first + item.num_rows - 1] * (1 + len(item.forks))
        first += item.num_rows
    return drawing, draw_rows, read_rows
