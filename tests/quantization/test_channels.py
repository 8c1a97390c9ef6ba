"""Per output or per input channel, chosen by error."""

from __future__ import annotations

import pytest
import torch

from ramify.kernels.gemm import linear
from ramify.kernels.quantise import reference_quantise
from ramify.quantization.channels import choose_channels, round_activations
from ramify.quantization.formats import W4A8, W6A8, W8A8, IntegerFormat


def sample(outlier: float, columns: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(400, columns, generator=generator), torch.randn(400, columns, generator=generator)
    inputs[:, 7] *= outlier
    return weight, inputs


def test_a_layer_with_an_outlier_channel_is_scaled_by_input_channel() -> None:
    weight, inputs = sample(outlier=60)
    choice = choose_channels(weight, inputs, W8A8().rounding(64), 32)
    assert choice.scales is not None
    assert choice.error < 0.5 * choice.plain_error
    assert choice.scales[7] > 3 * choice.scales.median()


@pytest.mark.parametrize("made", [W4A8(), W6A8()])
def test_an_outlier_among_128_inputs_that_share_a_scale_is_taken_apart(made: IntegerFormat) -> None:
    weight, inputs = sample(outlier=100, columns=256)
    assert made.activation_group(256) == 128
    choice = choose_channels(weight, inputs, made.rounding(256), 128)
    assert choice.scales is not None
    assert choice.error < 0.5 * choice.plain_error
    wide = inputs @ weight.t()
    found = linear((inputs / choice.scales).contiguous(), made.pack(weight * choice.scales))
    plain = linear(inputs, made.pack(weight))
    assert (found - wide).square().sum() < 0.5 * (plain - wide).square().sum()


def test_a_layer_with_even_channels_keeps_plain_groups() -> None:
    choice = choose_channels(*sample(outlier=1), W8A8().rounding(64), 32)
    assert choice.scales is None
    assert choice.error == choice.plain_error


def test_channels_that_are_never_used_get_finite_scales() -> None:
    weight, inputs = sample(outlier=60)
    inputs[:, 3] = 0
    weight[:, 5] = 0
    scales = choose_channels(weight, inputs, W4A8().rounding(64), 64).scales
    assert scales is not None
    assert torch.isfinite(scales).all()
    assert (scales > 0).all()


@pytest.mark.parametrize("group", [32, 64, 128])
def test_activations_are_rounded_as_the_kernels_round_them(group: int) -> None:
    inputs = torch.randn(5, 384, generator=torch.Generator().manual_seed(0))
    inputs[2] = 0
    codes, scales = reference_quantise(inputs, group)
    kept = (codes.float().view(5, -1, group) * scales.unsqueeze(-1)).flatten(1)
    torch.testing.assert_close(round_activations(inputs, group), kept)
