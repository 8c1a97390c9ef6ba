"""Scales of groups, and rounding that makes up for itself."""

from __future__ import annotations

import pytest
import torch

from ramify.quantization.compensation import BLOCK_COLUMNS, compensated, second_moments
from ramify.quantization.formats import W4A8, W6A8, W8A8
from ramify.quantization.scales import Rounding, expected_factors, fit_grid

EIGHT, SIX, FOUR, FOUR_WITH_MINS = Rounding(8, 32), Rounding(6, 32, False, 64), Rounding(4, 32), Rounding(4, 32, True)
FOUR_INTEGERS = Rounding(4, 32, False, 64)
BOUNDS = {EIGHT: (-127, 127), SIX: (-31, 31), FOUR: (-8, 7), FOUR_INTEGERS: (-8, 7), FOUR_WITH_MINS: (0, 15)}


def error(weight: torch.Tensor, rounding: Rounding, search: bool = True) -> float:
    grid = fit_grid(weight, rounding, search=search)
    return float((grid.values(grid.codes(weight)) - weight).square().sum())


@pytest.mark.parametrize(
    ("rounding", "gain"), [(EIGHT, 0.9), (SIX, 0.95), (FOUR, 0.95), (FOUR_INTEGERS, 0.95), (FOUR_WITH_MINS, 0.95)]
)
def test_a_searched_scale_rounds_with_less_error_than_the_plain_one(rounding: Rounding, gain: float) -> None:
    weight = torch.randn(64, 5, 32, generator=torch.Generator().manual_seed(0))
    assert error(weight, rounding) < gain * error(weight, rounding, search=False)


def test_a_min_lessens_the_error_of_weights_that_are_not_centred() -> None:
    weight = torch.randn(32, 3, 32, generator=torch.Generator().manual_seed(0)) + 2
    assert error(weight, FOUR_WITH_MINS) < 0.3 * error(weight, FOUR)


def test_integer_scales_cost_next_to_nothing_even_where_groups_of_one_factor_differ() -> None:
    weight = torch.randn(64, 6, 32, generator=torch.Generator().manual_seed(0))
    weight[:, ::2] *= torch.rand(64, 3, 1, generator=torch.Generator().manual_seed(1)) + 0.3
    assert error(weight, FOUR_INTEGERS) < 1.02 * error(weight, FOUR)


@pytest.mark.parametrize("rounding", [FOUR_INTEGERS, SIX])
def test_the_largest_scale_of_a_factor_fits_in_its_integers(rounding: Rounding) -> None:
    weight = torch.randn(200, 5, 32, generator=torch.Generator().manual_seed(0))
    weight *= torch.logspace(-15, 15, 200)[:, None, None]
    free = fit_grid(weight, Rounding(rounding.bits, 32, False, 32)).sizes.abs()  # each with its own factor
    grid = fit_grid(weight, rounding)
    assert grid.scales.dtype == torch.int8
    assert grid.factors is not None
    assert grid.factors.dtype == torch.bfloat16
    assert torch.equal(grid.factors[:, 0::2][:, :2], grid.factors[:, 1::2])  # two groups share one; the fifth is alone
    largest = torch.maximum(free[:, 0:4:2], free[:, 1:4:2])
    reached = 127 * grid.factors[:, :4:2].float() / largest
    assert 1 < float(reached.min()) < float(reached.max()) < 1.1
    assert (grid.scales.int().abs().view(200, -1)[:, :4].view(200, 2, 2).amax(-1) >= 115).all()


@pytest.mark.parametrize("rounding", [FOUR_INTEGERS, SIX])
def test_a_factor_of_scales_that_are_not_chosen_yet_leaves_room_for_them(rounding: Rounding) -> None:
    weight = torch.randn(200, 2, 32, generator=torch.Generator().manual_seed(0))
    factors = expected_factors(weight, rounding)
    grid = fit_grid(weight, rounding, factors=factors)
    assert grid.factors is factors
    reached = grid.scales.int().abs().amax(1)
    assert int(reached.min()) > 80
    assert float((reached == 127).float().mean()) < 0.1
    alone = expected_factors(weight[:, :1], rounding), expected_factors(weight[:, 1:], rounding)
    assert torch.equal(factors[:, 0], torch.maximum(*alone)[:, 0])


def test_importance_moves_the_error_to_columns_that_matter_less() -> None:
    weight = torch.randn(64, 2, 32, generator=torch.Generator().manual_seed(0))
    importance = torch.ones(2, 32)
    importance[:, :4] = 1000
    plain, weighed = fit_grid(weight, FOUR), fit_grid(weight, FOUR, importance)
    ours, theirs = ((grid.values(grid.codes(weight)) - weight)[..., :4].square().sum() for grid in (weighed, plain))
    assert ours < 0.7 * theirs


@pytest.mark.parametrize("rounding", [FOUR, FOUR_WITH_MINS, FOUR_INTEGERS, SIX])
@pytest.mark.parametrize("value", [0.0, 0.75, -3.0, 1e-30, 6e4])
def test_groups_of_equal_weights_stay_finite_and_close(rounding: Rounding, value: float) -> None:
    weight = torch.full((3, 2, 32), value)
    grid = fit_grid(weight, rounding)
    kept = grid.values(grid.codes(weight))
    torch.testing.assert_close(kept, weight, rtol=6e-3 if rounding.factor_size else 2e-3, atol=1e-7)


@pytest.mark.parametrize("rounding", [FOUR_WITH_MINS, FOUR_INTEGERS])
def test_rows_are_rounded_alike_however_many_there_are(rounding: Rounding, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(37, 3, 32, generator=torch.Generator().manual_seed(1))
    whole = fit_grid(weight, rounding)
    monkeypatch.setattr("ramify.quantization.scales._ROWS_TIMES_COLUMNS", 100)
    parts = fit_grid(weight, rounding)
    assert torch.equal(whole.scales, parts.scales)
    for ours, theirs in ((whole.mins, parts.mins), (whole.factors, parts.factors)):
        assert (ours is None) == (theirs is None)
        assert ours is None or theirs is None or torch.equal(ours, theirs)


@pytest.mark.parametrize("rounding", BOUNDS)
def test_compensated_rounding_changes_outputs_less_where_inputs_go_together(rounding: Rounding) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 96, generator=generator)
    inputs = torch.randn(500, 12, generator=generator) @ torch.randn(12, 96, generator=generator)
    inputs += 0.05 * torch.randn(500, 96, generator=generator)
    codes, grid = compensated(weight, [inputs.t() @ inputs / 500], rounding)
    grouped = weight.view(48, 3, 32)
    plain = fit_grid(grouped, rounding)
    ours = grid.values(codes.view(48, 3, 32)).flatten(1)
    theirs = plain.values(plain.codes(grouped)).flatten(1)
    wanted = inputs @ weight.t()
    assert (inputs @ ours.t() - wanted).square().sum() < 0.3 * (inputs @ theirs.t() - wanted).square().sum()
    low, high = BOUNDS[rounding]
    assert codes.min() >= low
    assert codes.max() <= high
    assert torch.equal(codes, codes.round())


@pytest.mark.parametrize("rounding", [FOUR, FOUR_INTEGERS])
def test_without_correlation_nothing_is_compensated(rounding: Rounding) -> None:
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    codes, grid = compensated(weight, [torch.eye(64)], rounding)
    assert torch.equal(codes.view(16, 2, 32), grid.codes(weight.view(16, 2, 32)))


def test_blocks_of_columns_are_rounded_as_if_each_were_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, columns = torch.randn(6, BLOCK_COLUMNS + 64, generator=generator), [BLOCK_COLUMNS, 64]
    inputs = torch.randn(40, BLOCK_COLUMNS + 50, generator=generator).cumsum(1)  # the weight is padded to whole groups
    moments = second_moments(inputs)
    codes, grid = compensated(weight, moments, FOUR_WITH_MINS)
    alone = [
        compensated(part, [own], FOUR_WITH_MINS) for part, own in zip(weight.split(columns, 1), moments, strict=True)
    ]
    assert torch.equal(codes, torch.cat([each for each, _ in alone], dim=1))
    assert torch.equal(grid.scales, torch.cat([each.scales for _, each in alone], dim=1))
    assert grid.mins is not None
    assert grid.mins.shape == grid.scales.shape


def test_a_factor_is_chosen_for_the_weights_as_compensation_has_made_them() -> None:
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(400, 1, generator=generator)
    inputs = common + 0.01 * torch.randn(400, 128, generator=generator)
    weight = torch.randn(16, 128, generator=generator)
    weight[:, 64:] *= 1e-4  # next to nothing, before the errors of the columns in front are put into them
    rounding = Rounding(4, 32, False, 64)
    _, grid = compensated(weight, second_moments(inputs), rounding)
    assert grid.factors is not None
    plain = expected_factors(weight.view(16, 4, 32), rounding)
    assert torch.equal(grid.factors[:, :2], plain[:, :2])
    assert grid.factors[:, 2].float().mean() > 10 * plain[:, 2].float().mean()
    assert torch.equal(grid.factors[:, 2], grid.factors[:, 3])


def test_few_inputs_are_believed_less_about_columns_that_go_together() -> None:
    inputs = torch.ones(50, 4)
    (few,), (many,) = second_moments(inputs), second_moments(inputs.repeat(100, 1))
    assert torch.equal(few.diagonal(), torch.ones(4))
    assert few[0, 1] == 0.5
    assert 0.98 < float(many[0, 1]) < 1


def test_inputs_that_never_occur_do_not_break_the_compensation() -> None:
    moments = torch.zeros(64, 64)
    moments[:10, :10] = 1.0
    codes, grid = compensated(torch.randn(8, 64), [moments], FOUR)
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
    six = sum(float((W6A8().quantise(weight).dequantised() - weight).square().sum()) for weight in nano_weights)
    assert six < ours[4] / 10
    assert ours[8] < 0.95 * theirs[8]
    assert ours[4] < 0.95 * theirs[4]
