"""Scales of groups: the ones whose rounded weights come nearest to the float weights.

A group's scale is searched among shrunk and stretched ranges, each refitted by least squares to the codes that it
gives, and rounded to float16 before its error is counted. Errors are weighted by an importance of each column, such as
the second moment of the activations that meet it, or by nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ramify.quantization.weight import ZERO_CODE

_ROWS_TIMES_COLUMNS = 1 << 17
"""Weights that are searched at once: temporaries then fit a cache."""
_LARGEST_8 = 127
_CODES_4 = 15
_EIGHT_BIT_STRETCH = tuple(1.0039 - 0.0062 * step for step in range(6))
"""Ranges of 8-bit codes, in parts of what 127 steps reach. Less than half a step is cut off in the first; the others
win by luck of rounding, about a sixth of the squared error."""
_FOUR_BIT_STRETCH = (1.0, 0.94, 0.88)
"""Ranges of 4-bit codes, in parts of the group's largest weight: the ends of a bell curve are worth cutting off, by
little. Cutting more lessens the squared error a bit further, and the divergence grows."""
_OTHER_SIDE_STRETCH = (1.0, 0.94)
"""The same with the largest weight at the side that has a code less."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers that codes of a row's group stand for.

    Attributes:
        scales: float16 [rows, groups]; of 4 bits without mins also negative, so that code -8 is at the longer side.
        mins: float16 [rows, groups], or None.
        bits: 4 or 8.
    """

    scales: torch.Tensor
    mins: torch.Tensor | None
    bits: int

    def codes(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest codes as float32 [rows, groups, size] like `weight`, centred at zero without mins."""
        mins = None if self.mins is None else self.mins.float().unsqueeze(-1)
        return _nearest(weight, self.scales.float().unsqueeze(-1), mins, self.bits)

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        """What codes [rows, groups, size] stand for."""
        values = codes * self.scales.float().unsqueeze(-1)
        return values if self.mins is None else values.add_(self.mins.float().unsqueeze(-1))

    def steps(self, group: int) -> tuple[torch.Tensor, torch.Tensor, int, int]:
        """Of one group: scales and their inverses, float32 [rows], and the lowest and the highest code."""
        scales = self.scales[:, group].float()
        return scales, _inverse(scales), *_bounds(self.bits, self.mins is not None)


def fit_grid(
    weight: torch.Tensor, bits: int, asymmetric: bool, importance: torch.Tensor | None = None, search: bool = True
) -> Grid:
    """Choose scales, and mins if asymmetric, of every group.

    Args:
        weight: float32 [rows, groups, size].
        bits: 4 or 8; 8 is symmetric.
        asymmetric: with a min a group.
        importance: float32 [groups, size], not negative: weights of the squared errors; None weighs all alike.
        search: False takes the plain range of each group.
    """
    rows, groups, size = weight.shape
    step = max(1, _ROWS_TIMES_COLUMNS // max(1, groups * size))
    if importance is not None:
        importance = importance / importance.mean().clamp_min(torch.finfo(torch.float32).tiny)
    parts = [_fit(weight[start : start + step], bits, asymmetric, importance, search) for start in range(0, rows, step)]
    scales = torch.cat([part[0] for part in parts]).to(torch.float16)
    mins = torch.cat([part[1] for part in parts]).to(torch.float16) if asymmetric else None
    return Grid(scales, mins, bits)


def _fit(
    weight: torch.Tensor, bits: int, asymmetric: bool, importance: torch.Tensor | None, search: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best candidate of each group, as float32 [rows, groups] twice; mins are zeros if there are none."""
    best: tuple[torch.Tensor, torch.Tensor] | None = None
    least = torch.empty(0)
    for scales, mins in _candidates(weight, bits, asymmetric, search):
        codes = _nearest(weight, scales, mins, bits)
        if search:
            scales, mins = _refitted(weight, codes, importance, scales, mins)
        scales, mins = _half(scales), None if mins is None else _half(mins)
        if importance is not None:
            codes = _nearest(weight, scales, mins, bits)
        values = codes.mul_(scales) if mins is None else codes.mul_(scales).add_(mins)
        squares = values.sub_(weight).square_()
        error = (squares if importance is None else squares.mul_(importance)).sum(-1, keepdim=True)
        mins = torch.zeros_like(scales) if mins is None else mins
        if best is None:
            best, least = (scales, mins), error
        else:
            better = error < least
            best = torch.where(better, scales, best[0]), torch.where(better, mins, best[1])
            least = torch.minimum(error, least)
    assert best is not None
    return best[0].squeeze(-1), best[1].squeeze(-1)


def _candidates(
    weight: torch.Tensor, bits: int, asymmetric: bool, search: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Scales and mins to try."""
    if asymmetric:
        low, high = weight.amin(-1, keepdim=True), weight.amax(-1, keepdim=True)
        middle, half = (low + high) / 2, (high - low) / 2
        for stretch in _FOUR_BIT_STRETCH if search else (1.0,):
            yield 2 * half * stretch / _CODES_4, middle - half * stretch
        return
    if bits == 8:
        largest = weight.abs().amax(-1, keepdim=True)
        for stretch in _EIGHT_BIT_STRETCH if search else (1.0,):
            yield largest / (_LARGEST_8 * stretch), None
        return
    low, high = weight.amin(-1, keepdim=True), weight.amax(-1, keepdim=True)
    largest = torch.where(high > -low, high, low)
    for stretch in _FOUR_BIT_STRETCH if search else (1.0,):
        yield largest * stretch / -ZERO_CODE, None
    for stretch in _OTHER_SIDE_STRETCH if search else ():
        yield largest * stretch / (ZERO_CODE - 1), None


def _nearest(weight: torch.Tensor, scales: torch.Tensor, mins: torch.Tensor | None, bits: int) -> torch.Tensor:
    steps = weight * _inverse(scales) if mins is None else (weight - mins).mul_(_inverse(scales))
    return steps.round_().clamp_(*_bounds(bits, mins is not None))


def _inverse(scales: torch.Tensor) -> torch.Tensor:
    return torch.where(scales != 0, 1 / scales, torch.zeros_like(scales))


def _bounds(bits: int, has_mins: bool) -> tuple[int, int]:
    if has_mins:
        return 0, _CODES_4
    return (-_LARGEST_8, _LARGEST_8) if bits == 8 else (-ZERO_CODE, ZERO_CODE - 1)


def _refitted(
    weight: torch.Tensor,
    codes: torch.Tensor,
    importance: torch.Tensor | None,
    scales: torch.Tensor,
    mins: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The scales, and mins, of least squares for given codes."""
    weighed = codes if importance is None else codes * importance
    if mins is None:
        top, bottom = (weighed * weight).sum(-1, keepdim=True), (weighed * codes).sum(-1, keepdim=True)
        return torch.where(bottom > 0, top / bottom, scales), None
    total = weight.shape[-1] if importance is None else importance.sum(-1, keepdim=True).clamp_min(1e-30)
    mean_code = weighed.sum(-1, keepdim=True) / total
    mean_weight = (weight if importance is None else weight * importance).sum(-1, keepdim=True) / total
    top = (weighed * weight).sum(-1, keepdim=True) - total * mean_code * mean_weight
    bottom = (weighed * codes).sum(-1, keepdim=True) - total * mean_code.square()
    fitted = torch.where(bottom > 0, top / bottom, scales)
    return fitted, mean_weight - fitted * mean_code


def _half(numbers: torch.Tensor) -> torch.Tensor:
    """Rounded to float16, as float32."""
    return numbers.to(torch.float16).float()
