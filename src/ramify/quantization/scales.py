"""Scales of groups: the ones whose rounded weights come nearest to the float weights.

A group's scale is searched among shrunk and stretched ranges, each refitted by least squares to the codes that it
gives, and rounded to float16 before its error is counted. Where several groups share a factor, scales become integers
that it multiplies: before their errors are counted if the factor is known, else when all are chosen. Errors are
weighted by an importance of each column, such as the second moment of the activations that meet it, or by nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ramify.quantization.weight import ZERO_CODE, Bits

_ROWS_TIMES_COLUMNS = 1 << 17
"""Weights that are searched at once: temporaries then fit a cache."""
_LARGEST_8, _LARGEST_6 = 127, 31
_CODES_4 = 15
_LARGEST_SCALE = 127
_ROOM = 1.05
"""What integers reach, in parts of the largest scale. Anything from 1 on that is near it serves: by luck of rounding
the divergence of a small model differs by a twentieth, and here it is that of float16 scales."""
_MARGIN = {4: 1.25, 6: 1.1}
"""What integer scales reach, in parts of the plain range of the weights as they are when the factor is chosen: scales
are also taken from the side that has a code less, and refitted, and weights grow while errors are made up for."""
_EIGHT_BIT_STRETCH = tuple(1.0039 - 0.0062 * step for step in range(6))
"""Ranges of 8-bit codes, in parts of what 127 steps reach. Less than half a step is cut off in the first; the others
win by luck of rounding, about a sixth of the squared error."""
_SIX_BIT_STRETCH = tuple(1.015 - 0.025 * step for step in range(5))
"""The same of 6-bit codes, in parts of what 31 steps reach."""
_FOUR_BIT_STRETCH = (1.0, 0.94, 0.88)
"""Ranges of 4-bit codes, in parts of the group's largest weight: the ends of a bell curve are worth cutting off, by
little. Cutting more lessens the squared error a bit further, and the divergence grows."""
_OTHER_SIDE_STRETCH = (1.0, 0.94)
"""The same with the largest weight at the side that has a code less."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """What a format makes of a weight.

    Attributes:
        bits: of a code.
        group_size: inputs that share a scale.
        asymmetric: 4-bit codes with a min a group beside the scale.
        factor_size: inputs, whole groups, that share a factor of integer scales; 0 for scales of float16.
    """

    bits: Bits
    group_size: int
    asymmetric: bool = False
    factor_size: int = 0


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers that codes of a row's group stand for.

    Attributes:
        scales: float16 [rows, groups], or int8 with factors; of 4 bits without mins also negative, so that code -8 is
            at the longer side.
        mins: float16 [rows, groups], or None.
        factors: bfloat16 [rows, groups], or None: what scales are multiplied by.
        bits: 4, 6 or 8.
    """

    scales: torch.Tensor
    mins: torch.Tensor | None
    factors: torch.Tensor | None
    bits: Bits

    @staticmethod
    def joined(parts: Sequence[Grid]) -> Grid:
        """Grids of groups in turn as one."""
        first = parts[0]
        mins = None if first.mins is None else torch.cat([part.mins for part in parts if part.mins is not None], 1)
        given = [part.factors for part in parts if part.factors is not None]
        factors = None if first.factors is None else torch.cat(given, 1)
        return Grid(torch.cat([part.scales for part in parts], 1), mins, factors, first.bits)

    @property
    def sizes(self) -> torch.Tensor:
        """Scales with their factors: float32 [rows, groups]."""
        return self.scales.float() if self.factors is None else self.scales.float() * self.factors.float()

    def codes(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest codes as float32 [rows, groups, size] like `weight`, centred at zero without mins."""
        mins = None if self.mins is None else self.mins.float().unsqueeze(-1)
        return _nearest(weight, self.sizes.unsqueeze(-1), mins, self.bits)

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        """What codes [rows, groups, size] stand for."""
        values = codes * self.sizes.unsqueeze(-1)
        return values if self.mins is None else values.add_(self.mins.float().unsqueeze(-1))

    def steps(self, group: int) -> tuple[torch.Tensor, torch.Tensor, int, int]:
        """Of one group: scales and their inverses, float32 [rows], and the lowest and the highest code."""
        scales = self.sizes[:, group]
        return scales, _inverse(scales), *_bounds(self.bits, self.mins is not None)


def fit_grid(
    weight: torch.Tensor,
    rounding: Rounding,
    importance: torch.Tensor | None = None,
    search: bool = True,
    factors: torch.Tensor | None = None,
) -> Grid:
    """Choose scales, and mins if asymmetric, of every group.

    Args:
        weight: float32 [rows, groups, size].
        rounding: of the format.
        importance: float32 [groups, size], not negative: weights of the squared errors; None weighs all alike.
        search: False takes the plain range of each group.
        factors: of integer scales, as `expected_factors` gives them; None takes the best for the scales.
    """
    rows, groups, size = weight.shape
    step = max(1, _ROWS_TIMES_COLUMNS // max(1, groups * size))
    if importance is not None:
        importance = importance / importance.mean().clamp_min(torch.finfo(torch.float32).tiny)
    known = None if factors is None else factors.float().unsqueeze(-1)
    parts = [
        _fit(weight[own], rounding, importance, search, None if known is None else known[own])
        for own in (slice(start, start + step) for start in range(0, rows, step))
    ]
    scales = torch.cat([part[0] for part in parts])
    mins = torch.cat([part[1] for part in parts]).to(torch.float16) if rounding.asymmetric else None
    if not rounding.factor_size:
        return Grid(scales.to(torch.float16), mins, None, rounding.bits)
    if factors is None:
        factors = _shared_factors(scales.abs() * _ROOM, rounding)
    return Grid(_integers(scales, factors.float()).to(torch.int8), mins, factors, rounding.bits)


def expected_factors(weight: torch.Tensor, rounding: Rounding) -> torch.Tensor:
    """Factors for scales that are not chosen yet, bfloat16 [rows, groups], by the largest weight that shares one.

    Args:
        weight: float32 [rows, groups, size].
        rounding: of the format.
    """
    plain = weight.abs().amax(-1) / -_bounds(rounding.bits, rounding.asymmetric)[0]
    return _shared_factors(plain * _MARGIN[rounding.bits], rounding)


def _shared_factors(largest: torch.Tensor, rounding: Rounding) -> torch.Tensor:
    """The least factors with which integers reach these magnitudes of groups' scales, float32 [rows, groups]."""
    together, groups = rounding.factor_size // rounding.group_size, largest.shape[1]
    shared = torch.nn.functional.pad(largest, (0, -groups % together)).view(len(largest), -1, together).amax(-1)
    # Rounded up: the lower half of a float32's bits is what bfloat16 does not have.
    up = (((shared / _LARGEST_SCALE).view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32)
    return up.to(torch.bfloat16).repeat_interleave(together, dim=1)[:, :groups]


def _fit(
    weight: torch.Tensor,
    rounding: Rounding,
    importance: torch.Tensor | None,
    search: bool,
    factors: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best candidate of each group, as float32 [rows, groups] twice; mins are zeros if there are none."""
    best: tuple[torch.Tensor, torch.Tensor] | None = None
    least = torch.empty(0)
    bits = rounding.bits
    for scales, mins in _candidates(weight, rounding, search):
        codes = _nearest(weight, scales, mins, bits)
        if search:
            scales, mins = _refitted(weight, codes, importance, scales, mins)
        if factors is not None:
            scales = _integers(scales, factors).mul_(factors)
        elif not rounding.factor_size:
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
    weight: torch.Tensor, rounding: Rounding, search: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Scales and mins to try."""
    if rounding.asymmetric:
        low, high = weight.amin(-1, keepdim=True), weight.amax(-1, keepdim=True)
        middle, half = (low + high) / 2, (high - low) / 2
        for stretch in _FOUR_BIT_STRETCH if search else (1.0,):
            yield 2 * half * stretch / _CODES_4, middle - half * stretch
        return
    if rounding.bits != 4:
        most, stretches = (_LARGEST_8, _EIGHT_BIT_STRETCH) if rounding.bits == 8 else (_LARGEST_6, _SIX_BIT_STRETCH)
        largest = weight.abs().amax(-1, keepdim=True)
        for stretch in stretches if search else (1.0,):
            yield largest / (most * stretch), None
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
    return {8: (-_LARGEST_8, _LARGEST_8), 6: (-_LARGEST_6, _LARGEST_6), 4: (-ZERO_CODE, ZERO_CODE - 1)}[bits]


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


def _integers(scales: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    return (scales * _inverse(factors)).round_().clamp_(-_LARGEST_SCALE, _LARGEST_SCALE)


def _half(numbers: torch.Tensor) -> torch.Tensor:
    """Rounded to float16, as float32."""
    return numbers.to(torch.float16).float()
