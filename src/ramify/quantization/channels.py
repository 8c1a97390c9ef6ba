"""Per output or per input channel: which grouping fits a layer, chosen by the error of its output (AdaDim,
arXiv:2309.15531).

Some layers have a few input channels with far larger activations, or weights, than the rest; in a group along the
input they take the steps of all others. Grouping per input channel keeps them apart. An integer product cannot have
scales inside of its sum, so here the scale of an input channel stands outside: the weight's columns are multiplied by
it before they are rounded, and whatever makes the input (a norm's gain, the rows of the projection in front) is
divided by it. The float model stays the same function, and the kernels see plain groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ramify.quantization.scales import Rounding, fit_grid

_ACTIVATION_POWERS = (0.25, 0.5, 0.75)
_WEIGHT_POWERS = (0.0, 0.25, 0.5)
_KEEP_BELOW = 0.98
"""Input channels get scales of their own where the error falls below this part of the plain grouping's."""
_OUTPUTS = 1024
"""Rows of a weight by which its columns are judged, at most: evenly spread."""
_FLOOR = 1e-4
"""Least magnitude of a channel that counts, in parts of the mean one."""


@dataclass(frozen=True, slots=True)
class ChannelChoice:
    """How a layer is grouped.

    Attributes:
        scales: float32 [columns], multiplied into the weight's columns; None for per-output grouping.
        error: squared error of the output in parts of the output's square, with plain rounding.
        plain_error: the same for per-output grouping.
    """

    scales: torch.Tensor | None
    error: float
    plain_error: float


def choose_channels(
    weight: torch.Tensor, inputs: torch.Tensor, rounding: Rounding, activation_group: int
) -> ChannelChoice:
    """Choose by trial on sampled inputs.

    Args:
        weight: float32 [rows, columns]; `columns` is a multiple of its group size.
        inputs: float32 [samples, columns], of the float model.
        rounding: of the format.
        activation_group: inputs that share a scale where the format rounds activations to int8, else 0.
    """
    if len(weight) > _OUTPUTS:
        weight = weight[torch.linspace(0, len(weight) - 1, _OUTPUTS).long()]
    wanted = inputs @ weight.t()
    scale = float(wanted.square().sum()) or 1.0

    def error(channels: torch.Tensor | None) -> float:
        scaled = weight if channels is None else weight * channels
        given = inputs if channels is None else inputs / channels
        rounded = round_activations(given, activation_group) if activation_group else given
        grouped = scaled.view(len(scaled), -1, rounding.group_size)
        grid = fit_grid(grouped, rounding, search=False)
        kept = grid.values(grid.codes(grouped)).flatten(1)
        return float((rounded @ kept.t() - wanted).square().sum()) / scale

    plain = error(None)
    best: torch.Tensor | None = None
    least = plain * _KEEP_BELOW
    activation, size = _magnitudes(inputs), _magnitudes(weight)
    for activation_power in _ACTIVATION_POWERS:
        for weight_power in _WEIGHT_POWERS:
            channels = activation**activation_power / size**weight_power
            channels = channels / channels.log().mean().exp()
            tried = error(channels)
            if tried < least:
                best, least = channels, tried
    return ChannelChoice(best, plain if best is None else least, plain)


def round_activations(inputs: torch.Tensor, group: int) -> torch.Tensor:
    """What is left of activations that are rounded to int8 in groups, as the kernels do it; [rows, columns]."""
    columns = inputs.shape[1]
    padded = torch.nn.functional.pad(inputs, (0, -columns % group))
    padded = padded.reshape(len(inputs), -1, group)
    scale = padded.abs().amax(-1, keepdim=True) / 127
    codes = (padded * torch.where(scale > 0, 1 / scale, torch.zeros_like(scale))).round()
    return (codes * scale).flatten(1)[:, :columns]


def _magnitudes(numbers: torch.Tensor) -> torch.Tensor:
    """Root mean square of each column, with a floor."""
    size = numbers.square().mean(0).sqrt()
    mean = size.mean()
    return size.clamp_min(float(mean) * _FLOOR) if mean > 0 else torch.ones_like(size)
