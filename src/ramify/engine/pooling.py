"""`Pooler`: gathers the vector of one sequence from its rows, however the prompt is cut into chunks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ramify.errors import EngineError
from ramify.models.pooling import Pooling


class Pooler:
    """Takes rows in the order of their positions; those it has seen are passed over, so rows may be computed twice.

    The mean is a sum in that order, in float64: it does not depend on where the chunks end.

    Args:
        pooling: of the model.
        length: tokens of the sequence.
    """

    def __init__(self, pooling: Pooling, length: int) -> None:
        self._pooling = pooling
        self._length = length
        self._seen = 0
        self._total: npt.NDArray[np.float64] | None = None

    @property
    def first_needed_row(self) -> int:
        """The lowest position that has to be computed, and not taken from a cache."""
        return self._length - 1 if self._pooling.mode == "last" else 0

    def add(self, position: int, rows: torch.Tensor) -> None:
        """Take rows behind the last norm.

        Args:
            position: of the first one.
            rows: [rows, hidden].
        """
        if self._pooling.mode == "last":
            if position + len(rows) == self._length:
                self._total = _float64(rows[-1])
        elif self._pooling.mode == "cls":
            if position == 0:
                self._total = _float64(rows[0])
        else:
            new = _float64(rows[max(0, self._seen - position) :])
            before = new[:0] if self._total is None else self._total[None]
            if len(new):
                self._total = np.cumsum(np.concatenate((before, new)), axis=0)[-1]
        self._seen = max(self._seen, position + len(rows))

    def vector(self) -> npt.NDArray[np.float32]:
        """The vector, [hidden].

        Raises:
            EngineError: it is not finite, or of no length where it should have length one.
        """
        assert self._total is not None
        total = self._total / self._length if self._pooling.mode == "mean" else self._total
        size = float(np.linalg.norm(total)) if self._pooling.normalise else 1.0
        if not np.isfinite(total).all() or size == 0:
            raise EngineError("the model gave a vector that is not finite or zero: its weights or dtype do not work")
        return (total / size).astype(np.float32)


def _float64(rows: torch.Tensor) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = rows.double().cpu().numpy()
    return values
