"""Scales of groups, and rounding that makes up for itself."""

from __future__ import annotations

import pytest
import torch

from ramify.quantization.compensation import BLOCK_COLUMNS, compensated, second_moments
from ramify.quantization.formats import W4A8, W8A8
from ramify.quantization.scales import fit_grid


def error(weight: torch.Tensor, **options: object) -> float:
    grid = fit_grid(weight, **options)  # type: ignore[arg-type]
    return float((grid.values(grid.codes(weight)) - weight).square().sum())


@pytest.mark.parametrize(("bits", "asymmetric", "gain"), [(8, False, 0.9), (4, False, 0.95), (4, True, 0.95)])
def test_a_searched_scale_rounds_with_less_error_than_the_plain_one(bits: int, asymmetric: bool, gain: float) -> None:
    weight = torch.randn(64, 5, 32, generator=torch.Generator().manual_seed(0))
    plain = error(weight, bits=bits, asymmetric=asymmetric, search=False)
    assert error(weight, bits=bits, asymmetric=asymmetric) < gain * plain


def test_a_min_lessens_the_error_of_weights_that_are_not_centred() -> None:
    weight = torch.randn(32, 3, 32, generator=torch.Generator().manual_seed(0)) + 2
    assert error(weight, bits=4, asymmetric=True) < 0.3 * error(weight, bits=4, asymmetric=False)


def test_importance_moves_the_error_to_columns_that_matter_less() -> None:
    weight = torch.randn(64, 2, 32, generator=torch.Generator().manual_seed(0))
    importance = torch.ones(2, 32)
    importance[:, :4] = 1000
    plain, weighed = fit_grid(weight, 4, False), fit_grid(weight, 4, False, importance)
    ours, theirs = ((grid.values(grid.codes(weight)) - weight)[..., :4].square().sum() for grid in (weighed, plain))
    assert ours < 0.7 * theirs


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("value", [0.0, 0.75, -3.0, 1e-30, 6e4])
def test_groups_of_equal_weights_stay_finite_and_close(asymmetric: bool, value: float) -> None:
    weight = torch.full((3, 2, 16), value)
    grid = fit_grid(weight, 4, asymmetric)
    kept = grid.values(grid.codes(weight))
    torch.testing.assert_close(kept, weight, rtol=2e-3, atol=1e-7)


def test_rows_are_rounded_alike_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(37, 3, 32, generator=torch.Generator().manual_seed(1))
    whole = fit_grid(weight, 4, True)
    monkeypatch.setattr("ramify.quantization.scales._ROWS_TIMES_COLUMNS", 100)
    parts = fit_grid(weight, 4, True)
    assert torch.equal(whole.scales, parts.scales)
    assert whole.mins is not None
    assert parts.mins is not None
    assert torch.equal(whole.mins, parts.mins)


@pytest.mark.parametrize(("bits", "asymmetric"), [(8, False), (4, False), (4, True)])
def test_compensated_rounding_changes_outputs_less_where_inputs_go_together(bits: int, asymmetric: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 96, generator=generator)
    inputs = torch.randn(500, 12, generator=generator) @ torch.randn(12, 96, generator=generator)
    inputs += 0.05 * torch.randn(500, 96, generator=generator)
    codes, grid = compensated(weight, [inputs.t() @ inputs / 500], bits, asymmetric, 32)
    grouped = weight.view(48, 3, 32)
    plain = fit_grid(grouped, bits, asymmetric)
    ours = grid.values(codes.view(48, 3, 32)).flatten(1)
    theirs = plain.values(plain.codes(grouped)).flatten(1)
    wanted = inputs @ weight.t()
    assert (inputs @ ours.t() - wanted).square().sum() < 0.3 * (inputs @ theirs.t() - wanted).square().sum()
    low, high = (0, 15) if asymmetric else (-127, 127) if bits == 8 else (-8, 7)
    assert codes.min() >= low
    assert codes.max() <= high
    assert torch.equal(codes, codes.round())


def test_without_correlation_nothing_is_compensated() -> None:
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    codes, grid = compensated(weight, [torch.eye(64)], 4, False, 32)
    assert torch.equal(codes.view(16, 2, 32), grid.codes(weight.view(16, 2, 32)))


def test_blocks_of_columns_are_rounded_as_if_each_were_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, columns = torch.randn(6, BLOCK_COLUMNS + 64, generator=generator), [BLOCK_COLUMNS, 64]
    inputs = torch.randn(40, BLOCK_COLUMNS + 50, generator=generator).cumsum(1)  # the weight is padded to whole groups
    moments = second_moments(inputs)
    codes, grid = compensated(weight, moments, 4, True, 32)
    alone = [compensated(part, [own], 4, True, 32) for part, own in zip(weight.split(columns, 1), moments, strict=True)]
    assert torch.equal(codes, torch.cat([each for each, _ in alone], dim=1))
    assert torch.equal(grid.scales, torch.cat([each.scales for _, each in alone], dim=1))
    assert grid.mins is not None
    assert grid.mins.shape == grid.scales.shape


def test_few_inputs_are_believed_less_about_columns_that_go_together() -> None:
    inputs = torch.ones(50, 4)
    (few,), (many,) = second_moments(inputs), second_moments(inputs.repeat(100, 1))
    assert torch.equal(few.diagonal(), torch.ones(4))
    assert few[0, 1] == 0.5
    assert 0.98 < float(many[0, 1]) < 1


def test_inputs_that_never_occur_do_not_break_the_compensation() -> None:
    moments = torch.zeros(64, 64)
    moments[:10, :10] = 1.0
    codes, grid = compensated(torch.randn(8, 64), [moments], 4, False, 32)
    assert torch.isfinite(grid.scales).all()
    assert torch.isfinite(codes).all()


def test_weights_are_nearer_than_by_the_rules_of_q8_0_and_q4_0(nano_weights: list[torch.Tensor]) -> None:
    """llama.cpp's formats of the same size: groups of 32, a float16 scale, the longest weight at the last code."""
    ours, theirs = {4: 0.0, 8: 0.0}, {4: 0.0, 8: 0.0}
    for weight in nano_weights:
        grouped = weight.view(len(weight), -1, 32)
        longest = grouped.gather(-1, grouped.abs().argmax(-1, keepdim=True))
        for bits, made, end in ((8, W8A8(), 127), (4, W4A8(), -8)):
            scale = longest / end
            inverse = torch.where(scale != 0, 1 / scale, 0)
            codes = (grouped * inverse).round() if bits == 8 else (grouped * inverse + 8.5).floor().clamp(max=15) - 8
            theirs[bits] += float((codes * scale.half().float() - grouped).square().sum())
            ours[bits] += float((made.quantise(weight).dequantised() - weight).square().sum())
    assert ours[8] < 0.95 * theirs[8]
    assert ours[4] < 0.95 * theirs[4]
