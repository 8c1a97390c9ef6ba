"""`QuantisedWeight`: the numbers of a low-bit weight, whoever made them; formats and kernels build on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

Bits = Literal[4, 6, 8]
ZERO_CODE = 8
"""The 4-bit code that stands for zero where there are no mins."""
_NUMBERS = ("scales", "mins", "factors")


@dataclass(frozen=True, slots=True)
class QuantisedWeight:
    """A weight [rows, columns] as codes in groups along the columns.

    A weight is ``scale * code + min`` with mins, ``scale * code`` without (4 bits: ``scale * (code - 8)``). With
    factors its scale is an integer, and ``factor * scale * code`` is the weight.

    Attributes:
        codes: [rows, columns]: uint8 of 0..15 for 4 bits, int8 for 6 and 8 bits.
        scales: float32 or float16 [rows, groups], or int8 with factors.
        mins: float32 or float16 [rows, groups], or None.
        group_size: columns of a group; the last group may be shorter.
        bits: 4, 6 or 8.
        permutation: int64 [columns]: the input column that each column of the codes belongs to (act-order); None for
            the natural order.
        factors: bfloat16 [rows, groups], the same for all groups that share a scale of the activations; or None.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    mins: torch.Tensor | None
    group_size: int
    bits: Bits
    permutation: torch.Tensor | None = None
    factors: torch.Tensor | None = None

    def dequantised(self) -> torch.Tensor:
        """The weight as float32 [rows, columns], in the natural order of the columns."""
        codes = self.codes.float()
        if self.bits == 4 and self.mins is None:
            codes -= ZERO_CODE
        weight = codes * self._spread(self.scales)
        if self.factors is not None:
            weight *= self._spread(self.factors)
        if self.mins is not None:
            weight += self._spread(self.mins)
        if self.permutation is None:
            return weight
        natural = torch.empty_like(weight)
        natural[:, self.permutation] = weight
        return natural

    @staticmethod
    def joined(parts: Sequence[QuantisedWeight]) -> QuantisedWeight | None:
        """Weights of one input as one, row under row; None if the orders of their columns differ.

        Parts of different formats (files often keep some projections in more bits) are all put into the widest one;
        every weight stays the number that it was.
        """
        first = parts[0]
        if not all(_equal(part.permutation, first.permutation) for part in parts):
            return None
        bits = max(part.bits for part in parts)
        size, with_mins = math.gcd(*(part.group_size for part in parts)), any(part.mins is not None for part in parts)
        if any(part.factors is None or part.bits != bits for part in parts):
            parts = [part._with_float_scales() for part in parts]
        parts = [part._widened(bits, size, with_mins) for part in parts]
        scales, mins, factors = (_stacked([getattr(part, name) for part in parts]) for name in _NUMBERS)
        assert scales is not None
        codes = torch.cat([part.codes for part in parts])
        return QuantisedWeight(codes, scales, mins, size, bits, first.permutation, factors)

    def _with_float_scales(self) -> QuantisedWeight:
        """The same weight without factors."""
        if self.factors is None:
            return self
        return replace(self, scales=self.scales.float() * self.factors.float(), factors=None)

    def _widened(self, bits: Bits, group_size: int, with_mins: bool) -> QuantisedWeight:
        """The same weight in this many bits, smaller groups, and with mins."""
        codes, mins = self.codes, self.mins
        if bits > self.bits == 4:
            codes = codes.to(torch.int8) - (ZERO_CODE if mins is None else 0)
        if with_mins and mins is None:
            mins = self.scales.float() * (-ZERO_CODE if bits == 4 else 0)
        groups, repeats = -(-codes.shape[1] // group_size), self.group_size // group_size
        scales, mins, factors = (
            None if each is None else each.repeat_interleave(repeats, dim=1)[:, :groups]
            for each in (self.scales, mins, self.factors)
        )
        assert scales is not None
        return QuantisedWeight(codes, scales, mins, group_size, bits, self.permutation, factors)

    def _spread(self, numbers: torch.Tensor) -> torch.Tensor:
        """[rows, groups] -> [rows, columns]."""
        return numbers.float().repeat_interleave(self.group_size, dim=1)[:, : self.codes.shape[1]]


def _equal(first: torch.Tensor | None, second: torch.Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return torch.equal(first, second)


def _stacked(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """Row under row, in float32 if their types differ."""
    given = [part for part in parts if part is not None]
    if not given:
        return None
    same = len({part.dtype for part in given}) == 1
    return torch.cat(given if same else [part.float() for part in given])
