"""A step's flat batch, laid out from what the engine keeps of each sequence: natively, in microseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch

from ramify.kernels.native import extension
from ramify.kernels.plan import Int64Array, RaggedBatch

Chunk = tuple[list[int], list[int], int, int]
"""All tokens of a sequence, its block table, the first position that is computed, and how many rows."""


@dataclass(frozen=True, slots=True)
class FlatBatch:
    """The rows of a batch.

    Attributes:
        token_ids, positions, slots: [T] int64; a slot is block * block_size + offset.
        spans: where the rows of each chunk lie, and their block tables.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    spans: RaggedBatch


def lay_out(chunks: Sequence[Chunk], block_size: int) -> FlatBatch:
    """Lay out the rows of a step.

    Args:
        chunks: what is computed of each sequence; tokens and tables reach to its last row at least.
        block_size: tokens a block.

    Raises:
        ValueError: a chunk is not within its sequence.
    """
    module = extension()
    if module is None:
        return reference_lay_out(chunks, block_size)
    rows = sum(chunk[3] for chunk in chunks)
    blocks = sum(-(-(chunk[2] + chunk[3]) // block_size) for chunk in chunks)
    flat = _empty(len(chunks), rows, blocks)
    arrays = (flat.spans.query_start, flat.spans.first_position, flat.spans.table_start, flat.spans.blocks)
    tensors = (flat.token_ids, flat.positions, flat.slots)
    addresses = (*(tensor.data_ptr() for tensor in tensors), *(array.ctypes.data for array in arrays))
    module.lay_out(list(chunks), block_size, rows, blocks, addresses)
    return flat


def _empty(chunks: int, rows: int, blocks: int) -> FlatBatch:
    return FlatBatch(
        token_ids=torch.empty(rows, dtype=torch.int64),
        positions=torch.empty(rows, dtype=torch.int64),
        slots=torch.empty(rows, dtype=torch.int64),
        spans=RaggedBatch(
            query_start=np.empty(chunks + 1, np.int64),
            first_position=np.empty(chunks, np.int64),
            table_start=np.empty(chunks + 1, np.int64),
            blocks=np.empty(blocks, np.int32),
        ),
    )


def reference_lay_out(chunks: Sequence[Chunk], block_size: int) -> FlatBatch:
    """The same in numpy."""
    tokens: list[int] = []
    positions: list[Int64Array] = []
    slots: list[Int64Array] = []
    tables: list[list[int]] = []
    for known, blocks, first, rows in chunks:
        needed = -(-(first + rows) // block_size)
        if first < 0 or rows < 1 or first + rows > len(known) or needed > len(blocks):
            raise ValueError(f"a chunk of {rows} rows from position {first} is not within its sequence")
        place = np.arange(first, first + rows)
        tokens += known[first : first + rows]
        positions.append(place)
        tables.append(blocks[:needed])
        slots.append(np.array(tables[-1], np.int64)[place // block_size] * block_size + place % block_size)
    return FlatBatch(
        token_ids=torch.tensor(tokens),
        positions=torch.from_numpy(np.concatenate(positions)),
        slots=torch.from_numpy(np.concatenate(slots)),
        spans=RaggedBatch(
            query_start=np.array([0, *accumulate(chunk[3] for chunk in chunks)], np.int64),
            first_position=np.array([chunk[2] for chunk in chunks], np.int64),
            table_start=np.array([0, *accumulate(map(len, tables))], np.int64),
            blocks=np.array([block for table in tables for block in table], np.int32),
        ),
    )
