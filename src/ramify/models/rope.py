"""Rotary position embedding as a checkpoint describes it: the base, the scaling, and the frequencies that follow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from ramify.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from torch import Tensor

RopeType = Literal["default", "linear", "llama3", "yarn"]
_NEEDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}
DEFAULT_THETA = 10_000.0


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary embedding (arXiv:2104.09864) and how it is stretched to longer contexts.

    Attributes:
        type: "default"; "linear" (arXiv:2306.15595); "llama3" (Llama 3.1, arXiv:2407.21783); "yarn" (arXiv:2309.00071).
        theta: base of the wavelengths.
        factor: how far the context is stretched; 1 for the default type.
        original_max_position_embeddings: the context before stretching (llama3 and yarn).
        low_freq_factor, high_freq_factor: llama3's borders between kept, blended and stretched wavelengths.
        beta_fast, beta_slow, truncate: yarn's borders, in rotations over the original context.
        attention_scaling: factor on cosine and sine (yarn's temperature; 1 otherwise).
        frequency_factors: what each of the head_dim / 2 frequencies is divided by, where a checkpoint lists them
            (GGUF files of Llama 3.1 do, instead of "llama3").
    """

    type: RopeType = "default"
    theta: float = DEFAULT_THETA
    factor: float = 1.0
    original_max_position_embeddings: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_scaling: float = 1.0
    frequency_factors: tuple[float, ...] = ()

    def inverse_frequencies(self, head_dim: int) -> Tensor:
        """Angles per position, radians: float32 of shape [head_dim / 2], for the rotate-half layout."""
        import torch

        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        inverse: Tensor = 1.0 / (self.theta**exponents)
        if self.frequency_factors:
            inverse = inverse / torch.tensor(self.frequency_factors, dtype=torch.float32)
        if self.type == "linear":
            return inverse / self.factor
        if self.type == "llama3":
            return self._llama3(inverse)
        if self.type == "yarn":
            return self._yarn(head_dim)
        return inverse

    def _llama3(self, inverse: Tensor) -> Tensor:
        import torch

        context = self.original_max_position_embeddings
        wavelength = 2 * math.pi / inverse
        longest, shortest = context / self.low_freq_factor, context / self.high_freq_factor
        blend = (context / wavelength - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        between = (1 - blend) * inverse / self.factor + blend * inverse
        stretched = torch.where(wavelength > longest, inverse / self.factor, inverse)
        return torch.where((wavelength >= shortest) & (wavelength <= longest), between, stretched)

    def _yarn(self, head_dim: int) -> Tensor:
        import torch

        low, high = self._yarn_dimension(head_dim, self.beta_fast), self._yarn_dimension(head_dim, self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, head_dim - 1)
        if low == high:
            high += 0.001  # the ramp of the reference implementation, which avoids a division by zero this way
        ramp = torch.clamp((torch.arange(head_dim // 2, dtype=torch.float32) - low) / (high - low), 0, 1)
        frequency = self.theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
        return 1.0 / (self.factor * frequency) * ramp + 1.0 / frequency * (1 - ramp)

    def _yarn_dimension(self, head_dim: int, rotations: float) -> float:
        """The dimension that turns `rotations` times over the original context."""
        turns = self.original_max_position_embeddings / (rotations * 2 * math.pi)
        return head_dim * math.log(turns) / (2 * math.log(self.theta))


def parse_rope(raw: Mapping[str, Any], max_position_embeddings: int) -> RopeConfig:
    """Read the rotary embedding of a `config.json` in either of its two forms.

    The older form has ``rope_theta`` and ``rope_scaling`` side by side, the newer one dict ``rope_parameters``.

    Raises:
        UnsupportedModelError: a type, or an option of one, that ramify does not run.
        CheckpointError: a value that the type needs is missing or is no number.
    """
    given = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise CheckpointError(f"config.json: the rotary embedding's parameters are {given!r}; they must be an object")
    if any(isinstance(value, Mapping) for value in given.values()):
        raise UnsupportedModelError(
            f"rotary embeddings that differ between layers ({', '.join(given)}) are not supported"
        )
    kind = given.get("rope_type", given.get("type", "default")) or "default"
    if kind not in _NEEDS:
        raise UnsupportedModelError(f"rotary scaling {kind!r} is not supported; ramify runs {', '.join(_NEEDS)}")
    _refuse_partial(given, raw)
    theta = _number(given, "theta", given.get("rope_theta", raw.get("rope_theta", DEFAULT_THETA)))
    if kind == "default":
        return RopeConfig(theta=theta)
    for key in _NEEDS[kind]:
        if given.get(key) is None:
            raise CheckpointError(f"config.json: rotary scaling {kind!r} needs {key}, which is missing")
    factor = _number(given, "factor")
    original = raw.get("original_max_position_embeddings") or given.get("original_max_position_embeddings")
    return RopeConfig(
        type=cast(RopeType, kind),
        theta=theta,
        factor=factor,
        original_max_position_embeddings=int(original or max_position_embeddings),
        low_freq_factor=_number(given, "low_freq_factor", given.get("low_freq_factor", 1.0)),
        high_freq_factor=_number(given, "high_freq_factor", given.get("high_freq_factor", 1.0)),
        beta_fast=_number(given, "beta_fast", given.get("beta_fast") or 32.0),
        beta_slow=_number(given, "beta_slow", given.get("beta_slow") or 1.0),
        truncate=bool(given.get("truncate", True)),
        attention_scaling=_yarn_temperature(given, factor) if kind == "yarn" else 1.0,
    )


def _refuse_partial(given: Mapping[str, Any], raw: Mapping[str, Any]) -> None:
    part = given.get("partial_rotary_factor", raw.get("partial_rotary_factor"))
    if part not in (None, 1, 1.0):
        raise UnsupportedModelError(f"partial_rotary_factor={part} is not supported; ramify rotates whole heads")
    if given.get("mrope_section"):
        raise UnsupportedModelError("multimodal rotary sections (mrope_section) are not supported")


def _yarn_temperature(given: Mapping[str, Any], factor: float) -> float:
    """Equation 22 of arXiv:2309.00071, with DeepSeek's mscale where a config has it."""

    def scale(strength: float = 1.0) -> float:
        return 1.0 if factor <= 1 else 0.1 * strength * math.log(factor) + 1.0

    if given.get("attention_factor") is not None:
        return _number(given, "attention_factor")
    if given.get("mscale") and given.get("mscale_all_dim"):
        return scale(_number(given, "mscale")) / scale(_number(given, "mscale_all_dim"))
    return scale()


def _number(given: Mapping[str, Any], key: str, value: Any = None) -> float:
    value = given.get(key) if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise CheckpointError(f"config.json: the rotary embedding's {key} is {value!r}; it must be a positive number")
    return float(value)
