"""Which rows of a batch attend together: worked out once a step, natively in microseconds, and used by every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ramify.errors import EngineError
from ramify.kernels.attention_reference import ReferencePlan, reference_plan
from ramify.kernels.native import extension, native

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class QuerySpan:
    """Consecutive rows of the flat batch that belong to one sequence.

    Attributes:
        first_row: in the flat batch.
        num_rows: 1 for a decode, more for a prompt chunk or a draft tree.
        first_position: position of the first row's token. A row attends to all positions up to its own.
        blocks: the sequence's block table, as far as the last row.
        paths: of a draft tree: for each row the rows of this span that it sees, in order of position from
            `first_position` on, itself last. Row i is stored at position `first_position` + i whatever its depth.
    """

    first_row: int
    num_rows: int
    first_position: int
    blocks: Sequence[int]
    paths: Sequence[Sequence[int]] | None = None


@dataclass(frozen=True, slots=True)
class RaggedBatch:
    """The spans of a batch as arrays. All are contiguous.

    Attributes:
        query_start: [spans + 1], first row of each.
        first_position: [spans].
        table_start: [spans + 1] in `blocks`.
        blocks: block tables, one behind the other.
        path_start: [T + 1] in `path`, or None if there is no draft tree; equal neighbours: no row of a tree.
        path: see `QuerySpan.paths`.
    """

    query_start: Int64Array
    first_position: Int64Array
    table_start: Int64Array
    blocks: Int32Array
    path_start: Int64Array | None = None
    path: Int32Array | None = None

    @classmethod
    def of(cls, spans: Sequence[QuerySpan]) -> RaggedBatch:
        """From spans that cover rows 0 to T-1, in order."""
        path_start = path = None
        if any(span.paths is not None for span in spans):
            paths = [p for span in spans for p in (span.paths if span.paths is not None else [()] * span.num_rows)]
            path_start = np.array([0, *accumulate(map(len, paths))], np.int64)
            path = np.array([step for p in paths for step in p], np.int32)
        return cls(
            query_start=np.array([*(span.first_row for span in spans), _rows(spans)], np.int64),
            first_position=np.array([span.first_position for span in spans], np.int64),
            table_start=np.array([0, *accumulate(len(span.blocks) for span in spans)], np.int64),
            blocks=np.array([block for span in spans for block in span.blocks], np.int32),
            path_start=path_start,
            path=path,
        )

    def spans(self) -> list[QuerySpan]:
        """As spans."""
        found = []
        for i, (first, end) in enumerate(
            zip(self.query_start[:-1].tolist(), self.query_start[1:].tolist(), strict=True)
        ):
            blocks = self.blocks[self.table_start[i] : self.table_start[i + 1]].tolist()
            found.append(QuerySpan(first, end - first, int(self.first_position[i]), blocks, self._paths(first, end)))
        return found

    def _paths(self, first: int, end: int) -> list[list[int]] | None:
        if self.path_start is None or self.path is None or self.path_start[first] == self.path_start[first + 1]:
            return None
        return [self.path[self.path_start[r] : self.path_start[r + 1]].tolist() for r in range(first, end)]


def _rows(spans: Sequence[QuerySpan]) -> int:
    return spans[-1].first_row + spans[-1].num_rows if spans else 0


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What every layer needs to know of a batch. Exactly one of the two is there.

    Attributes:
        native: of the native operators.
        reference: of the torch reference.
    """

    native: Any
    reference: ReferencePlan | None


def plan_attention(
    spans: Sequence[QuerySpan] | RaggedBatch,
    *,
    block_size: int,
    group_size: int,
    num_kv_heads: int,
    windows: Sequence[int | None],
    device: torch.device,
) -> AttentionPlan:
    """Work out which rows attend together.

    Rows of sequences that share blocks are multiplied with these blocks together (Hydragen, arXiv:2402.05099); the bits
    of a row's result do not depend on it.

    Args:
        spans: cover rows 0 to T-1 of the flat batch, each once, in order.
        block_size: tokens a block: 8, 16, 32 or 64.
        group_size: query heads a KV head.
        num_kv_heads: of the model.
        windows: the distinct sliding windows of its layers (None: all positions are seen).
        device: where the index tensors of the reference go.

    Raises:
        EngineError: the arrays do not fit together.
    """
    batch = spans if isinstance(spans, RaggedBatch) else RaggedBatch.of(spans)
    if extension() is None or device.type != "cpu":
        return AttentionPlan(None, reference_plan(batch.spans(), block_size, group_size, num_kv_heads, windows, device))
    try:
        plan = native().plan_attention(
            len(batch.first_position),
            batch.query_start.ctypes.data,
            batch.first_position.ctypes.data,
            batch.table_start.ctypes.data,
            batch.blocks.ctypes.data,
            0 if batch.path_start is None else batch.path_start.ctypes.data,
            0 if batch.path is None else batch.path.ctypes.data,
            block_size,
            group_size,
            num_kv_heads,
        )
    except ValueError as error:
        raise EngineError(str(error)) from error
    return AttentionPlan(plan, None)
