"""The weight formats. One registration each; `ramify techniques` lists them.

A format turns a float weight into codes and scales (`quantise`), and says what the kernels multiply them by. Specs
such as ``w4a8:group_size=64`` set its options.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, get_args

import torch

from ramify.errors import ConfigError, UnsupportedModelError
from ramify.kernels.blocks import CHUNK
from ramify.kernels.packed import GROUP_SIZES, PackedMatrix, own_activation_group, pack_float, pack_int
from ramify.quantization.compensation import compensated
from ramify.quantization.scales import Grid, Rounding, fit_grid
from ramify.quantization.weight import ZERO_CODE, Bits, QuantisedWeight
from ramify.registry import build, register

KIND = "weight format"
Activations = Literal["int8", "float"]
Calibration = Literal["auto", "text", "none"]
"""auto: calibrated where somebody asks for a file of it, and at load where the model is small; text, none: always,
never."""
Moments = torch.Tensor | Sequence[torch.Tensor]
"""Second moments of a product's inputs, float32: as `second_moments` gives them, or of each column alone [columns]."""
_PAGE = "techniques/quantization.md"


class WeightFormat:
    """A number format of the big weights of a model. Immutable; a subclass is a frozen dataclass of its options.

    Attributes:
        name: as users write it.
        activations: what the kernels multiply its codes by.
        calibration: see `Calibration`.
    """

    name: ClassVar[str]
    activations: ClassVar[Activations] = "float"
    calibration: Calibration = "none"

    @property
    def spec(self) -> str:
        """It and its options, as text that `parse_format` reads."""
        return self.name

    @property
    def head(self) -> WeightFormat:
        """The format of the vocabulary's two matrices."""
        return self

    def pack(self, weight: torch.Tensor, moments: Moments | None = None) -> PackedMatrix:
        """A float weight [rows, columns] as the kernels want it.

        Args:
            weight: float32.
            moments: of its inputs.
        """
        raise NotImplementedError


@register("bfloat16", kind=KIND, trade="approximate", page=_PAGE)
@dataclass(frozen=True, slots=True)
class BFloat16(WeightFormat):
    """Weights and activations of products in bfloat16, sums in float32."""

    name: ClassVar[str] = "bfloat16"

    def pack(self, weight: torch.Tensor, moments: Moments | None = None) -> PackedMatrix:
        """See `WeightFormat.pack`."""
        return pack_float(weight.to(torch.bfloat16))


@dataclass(frozen=True, slots=True)
class IntegerFormat(WeightFormat):
    """Integer codes in groups along the input, each with a scale: a float16, or an integer and a factor of several.

    Attributes:
        group_size: inputs of a group: 16, 32, 64 or 128.
        calibration: whether text is run through the float model to choose scales by the error of outputs.
    """

    bits: ClassVar[Bits]
    group_sizes: ClassVar[tuple[int, ...]] = GROUP_SIZES
    group_size: int = 32
    calibration: Calibration = "auto"

    def __post_init__(self) -> None:
        if self.group_size not in self.group_sizes:
            raise ConfigError(f"group_size={self.group_size!r} does not work: use {str(self.group_sizes)[1:-1]}")
        if self.calibration not in get_args(Calibration):
            options = ", ".join(get_args(Calibration))
            raise ConfigError(f"calibration={self.calibration!r} does not work: use {options}")

    @property
    def has_mins(self) -> bool:
        """Whether a group has a min beside its scale."""
        return False

    @property
    def has_factors(self) -> bool:
        """Whether scales are integers, multiplied by a factor of all inputs that share a scale of the activations."""
        return False

    def activation_group(self, columns: int) -> int:
        """Inputs that share a scale of an activation, of a weight of so many columns; 0 where they stay floats."""
        if self.activations == "float":
            return 0
        return own_activation_group(columns) if self.has_factors else CHUNK

    def rounding(self, columns: int) -> Rounding:
        """How a weight of so many columns is rounded."""
        shared = max(self.activation_group(columns), self.group_size) if self.has_factors else 0
        return Rounding(self.bits, self.group_size, self.has_mins, shared)

    @property
    def spec(self) -> str:
        """See `WeightFormat.spec`."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return self.name + ":" + ",".join(f"{name}={value}" for name, value in given.items())

    def quantise(self, weight: torch.Tensor, moments: Moments | None = None) -> QuantisedWeight:
        """Round a float weight.

        Args:
            weight: float32 [rows, columns], finite.
            moments: of its inputs. In blocks: errors of columns are made up for by others; of each column: scales are
                chosen by them; None: scales are chosen by the error of the weights.
        """
        columns, short = weight.shape[1], -weight.shape[1] % self.group_size
        rounding = self.rounding(columns)
        padded = torch.nn.functional.pad(weight.float(), (0, short)) if short else weight.float()
        if moments is not None and not isinstance(moments, torch.Tensor):
            codes, grid = compensated(padded, moments, rounding)
        else:
            grouped = padded.reshape(len(padded), -1, self.group_size)
            importance = None if moments is None else torch.nn.functional.pad(moments, (0, short))
            shaped = None if importance is None else importance.view(-1, self.group_size)
            grid = fit_grid(grouped, rounding, shaped)
            codes = grid.codes(grouped).flatten(1)
        stored = _stored(codes[:, :columns], grid)
        return QuantisedWeight(stored, grid.scales, grid.mins, self.group_size, self.bits, factors=grid.factors)

    def pack(self, weight: torch.Tensor, moments: Moments | None = None) -> PackedMatrix:
        """See `WeightFormat.pack`."""
        return pack_weight(self.quantise(weight, moments), self.activations)


def _stored(codes: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Float codes as `QuantisedWeight` has them."""
    if grid.bits != 4:
        return codes.to(torch.int8)
    return (codes if grid.mins is not None else codes + ZERO_CODE).to(torch.uint8)


def pack_weight(weight: QuantisedWeight, activations: Activations) -> PackedMatrix:
    """Codes and scales as the kernels want them; groups longer than theirs become several of the same scale.

    Raises:
        UnsupportedModelError: groups of a size that no multiple of 16 divides.
    """
    if weight.factors is not None:
        return _pack_factored(weight, weight.factors)
    size = next((size for size in reversed(GROUP_SIZES) if weight.group_size % size == 0), 0)
    if size == 0 and weight.scales.shape[1] == 1:
        size = GROUP_SIZES[-1]
    if size == 0:
        raise UnsupportedModelError(
            f"weights in groups of {weight.group_size} are not supported: take a checkpoint whose groups are a "
            f"multiple of {GROUP_SIZES[0]}"
        )
    groups = torch.arange(-(-weight.codes.shape[1] // size)) * size // weight.group_size
    return pack_int(
        weight.codes,
        weight.scales[:, groups],
        None if weight.mins is None else weight.mins[:, groups],
        bits=weight.bits,
        activations=activations,
        group_size=size,
    )


def _pack_factored(weight: QuantisedWeight, factors: torch.Tensor) -> PackedMatrix:
    columns = weight.codes.shape[1]
    activation_group = own_activation_group(columns)
    groups, shared = (
        torch.arange(-(-columns // size)) * size // weight.group_size for size in (CHUNK, activation_group)
    )
    return pack_int(
        weight.codes,
        weight.scales[:, groups],
        factors=factors[:, shared],
        bits=weight.bits,
        activation_group=activation_group,
    )


@register("w8a8", kind=KIND, trade="approximate", needs=("calibration (optional)",), page=_PAGE)
@dataclass(frozen=True, slots=True)
class W8A8(IntegerFormat):
    """8-bit weights and 8-bit activations, scaled by row and group; integer products."""

    name: ClassVar[str] = "w8a8"
    bits: ClassVar[Bits] = 8
    activations: ClassVar[Activations] = "int8"


@register("w8a16", kind=KIND, trade="approximate", needs=("calibration (optional)",), page=_PAGE)
@dataclass(frozen=True, slots=True)
class W8A16(IntegerFormat):
    """8-bit weights, float activations and float products."""

    name: ClassVar[str] = "w8a16"
    bits: ClassVar[Bits] = 8


@register("w6a8", kind=KIND, trade="approximate", needs=("calibration (optional)",), page=_PAGE)
@dataclass(frozen=True, slots=True)
class W6A8(IntegerFormat):
    """6-bit weights with integer scales and 8-bit activations; integer products."""

    name: ClassVar[str] = "w6a8"
    bits: ClassVar[Bits] = 6
    group_sizes: ClassVar[tuple[int, ...]] = tuple(size for size in GROUP_SIZES if size % CHUNK == 0)
    activations: ClassVar[Activations] = "int8"

    @property
    def has_factors(self) -> bool:
        """See `IntegerFormat.has_factors`."""
        return True


@dataclass(frozen=True, slots=True)
class FourBit(IntegerFormat):
    """4-bit codes; the vocabulary's matrices get more bits.

    Attributes:
        asymmetric: a min a group beside the scale: half a bit more a weight at groups of 32, and less error.
    """

    bits: ClassVar[Bits] = 4
    asymmetric: bool = False

    @property
    def has_mins(self) -> bool:
        """See `IntegerFormat.has_mins`."""
        return self.asymmetric


@register("w4a8", kind=KIND, trade="approximate", needs=("calibration (optional)",), page=_PAGE)
@dataclass(frozen=True, slots=True)
class W4A8(FourBit):
    """4-bit weights and 8-bit activations, scaled by row and group; integer products."""

    name: ClassVar[str] = "w4a8"
    activations: ClassVar[Activations] = "int8"

    @property
    def has_factors(self) -> bool:
        """See `IntegerFormat.has_factors`."""
        return not self.asymmetric and self.group_size % CHUNK == 0

    @property
    def head(self) -> WeightFormat:
        """See `WeightFormat.head`."""
        return W6A8(calibration=self.calibration) if self.has_factors else W8A8(calibration=self.calibration)


@register("w4a16", kind=KIND, trade="approximate", needs=("calibration (optional)",), page=_PAGE)
@dataclass(frozen=True, slots=True)
class W4A16(FourBit):
    """4-bit weights, float activations and float products."""

    name: ClassVar[str] = "w4a16"

    @property
    def head(self) -> WeightFormat:
        """See `WeightFormat.head`."""
        return W8A16(calibration=self.calibration)


def parse_format(spec: str) -> WeightFormat:
    """The format of a spec such as ``w4a8`` or ``w4a8:group_size=64,asymmetric=true``.

    Raises:
        ConfigError: no such format, no such option, or a value that does not work.
    """
    made = build(KIND, spec)
    assert isinstance(made, WeightFormat)
    return made


def format_names(formats: Iterable[type[WeightFormat]] = (BFloat16, W8A8, W8A16, W6A8, W4A8, W4A16)) -> tuple[str, ...]:
    """Names of all formats."""
    return tuple(each.name for each in formats)
