"""Per output or per input channel, chosen by error."""

from __future__ import annotations

import torch

from ramify.kernels.quantise import reference_quantise
from ramify.quantization.channels import choose_channels, round_activations


def sample(outlier: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(400, 64, generator=generator), torch.randn(400, 64, generator=generator)
    inputs[:, 7] *= outlier
    return weight, inputs


def test_a_layer_with_an_outlier_channel_is_scaled_by_input_channel() -> None:
    weight, inputs = sample(outlier=60)
    choice = choose_channels(weight, inputs, 8, False, 32, round_inputs=True)
    assert choice.scales is not None
    assert choice.error < 0.5 * choice.plain_error
    assert choice.scales[7] > 3 * choice.scales.median()


def test_a_layer_with_even_channels_keeps_plain_groups() -> None:
    choice = choose_channels(*sample(outlier=1), 8, False, 32, round_inputs=True)
    assert choice.scales is None
    assert choice.error == choice.plain_error


def test_channels_that_are_never_used_get_finite_scales() -> None:
    weight, inputs = sample(outlier=60)
    inputs[:, 3] = 0
    weight[:, 5] = 0
    scales = choose_channels(weight, inputs, 4, False, 32, round_inputs=True).scales
    assert scales is not None
    assert torch.isfinite(scales).all()
    assert (scales > 0).all()


def test_activations_are_rounded_as_the_kernels_round_them() -> None:
    inputs = torch.randn(5, 96, generator=torch.Generator().manual_seed(0))
    inputs[2] = 0
    codes, scales = reference_quantise(inputs, 32)
    kept = (codes.float().view(5, 3, 32) * scales.unsqueeze(-1)).flatten(1)
    torch.testing.assert_close(round_activations(inputs), kept)
