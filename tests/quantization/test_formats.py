"""The weight formats as an extension point."""

from __future__ import annotations

import pytest
import torch

from ramify.errors import ConfigError, UnsupportedModelError
from ramify.kernels.gemm import linear
from ramify.kernels.packed import dequantised
from ramify.quantization.formats import (
    KIND,
    W4A8,
    W4A16,
    W6A8,
    W8A8,
    W8A16,
    BFloat16,
    IntegerFormat,
    WeightFormat,
    format_names,
    pack_weight,
    parse_format,
)
from ramify.quantization.weight import QuantisedWeight
from ramify.registry import techniques

INTEGER_FORMATS = [
    W8A8(),
    W8A8(group_size=128),
    W8A16(group_size=16),
    W6A8(),
    W6A8(group_size=128),
    W4A8(),
    W4A8(group_size=64),
    W4A8(group_size=128),
    W4A8(group_size=16),
    W4A8(group_size=64, asymmetric=True),
    W4A16(group_size=16, asymmetric=True),
    W4A16(group_size=128),
]


def test_every_format_is_registered_under_its_name() -> None:
    assert {entry.name for entry in techniques(KIND)} == set(format_names())


@pytest.mark.parametrize("made", [BFloat16(), *INTEGER_FORMATS], ids=lambda made: made.spec)
def test_a_spec_reads_back_as_the_same_format(made: WeightFormat) -> None:
    assert parse_format(made.spec) == made


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("w4a9", "w4a8"),
        ("w4a8:group=64", "group_size"),
        ("w4a8:group_size=48", "16, 32, 64, 128"),
        ("w6a8:group_size=16", "32, 64, 128"),
        ("w6a8:asymmetric=true", "asymmetric"),
        ("w8a8:calibration=maybe", "auto, text, none"),
        ("w8a8:asymmetric=true", "asymmetric"),
    ],
)
def test_a_spec_that_cannot_be_names_what_can(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_format(spec)


@pytest.mark.parametrize("made", INTEGER_FORMATS, ids=lambda made: made.spec)
@pytest.mark.parametrize("shape", [(33, 128), (5, 300), (70, 44)])
def test_what_is_packed_is_what_was_rounded(made: IntegerFormat, shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    rounded = made.quantise(weight)
    assert rounded.codes.shape == weight.shape
    torch.testing.assert_close(dequantised(made.pack(weight)), rounded.dequantised())
    scales = rounded.scales.float() * (1 if rounded.factors is None else rounded.factors.float())
    step = (scales.abs() * 1.01).repeat_interleave(made.group_size, dim=1)[:, : shape[1]]
    ends_cut = {4: 3, 6: 4, 8: 1}[made.bits]
    assert ((rounded.dequantised() - weight).abs() <= ends_cut * step).all()


@pytest.mark.parametrize("made", [BFloat16(), *INTEGER_FORMATS], ids=lambda made: made.spec)
def test_a_row_of_a_product_has_the_same_bits_whatever_shares_the_batch(made: WeightFormat) -> None:
    generator = torch.Generator().manual_seed(0)
    packed = made.pack(torch.randn(50, 160, generator=generator))
    inputs = torch.randn(40, 160, generator=generator)
    whole = linear(inputs, packed)
    for rows in (slice(0, 1), slice(7, 8), slice(3, 36), slice(39, 40)):
        assert torch.equal(linear(inputs[rows].contiguous(), packed), whole[rows])


def test_parts_of_one_product_are_the_parts_alone() -> None:
    first, second = torch.randn(20, 64), torch.randn(12, 64)
    together = W4A8().quantise(torch.cat([first, second]))
    joined = QuantisedWeight.joined([W4A8().quantise(first), W4A8().quantise(second)])
    assert joined is not None
    assert torch.equal(joined.codes, together.codes)
    assert torch.equal(joined.scales, together.scales)
    assert joined.factors is not None
    assert together.factors is not None
    assert torch.equal(joined.factors, together.factors)


@pytest.mark.parametrize("other", [W4A8(asymmetric=True), W8A8(), W6A8()])
def test_parts_with_integer_scales_join_others_unchanged(other: IntegerFormat) -> None:
    parts = [made.quantise(torch.randn(8, 64, generator=torch.Generator().manual_seed(0))) for made in (W4A8(), other)]
    joined = QuantisedWeight.joined(parts)
    assert joined is not None
    expected = torch.cat([part.dequantised() for part in parts])
    torch.testing.assert_close(joined.dequantised(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("made", "columns", "activation_group"),
    [(W4A8(), 192, 64), (W4A8(group_size=128), 160, 64), (W6A8(group_size=64), 100, 128), (W6A8(), 40, 64)],
)
def test_a_factor_belongs_to_the_inputs_that_share_a_scale_of_the_activation(
    made: IntegerFormat, columns: int, activation_group: int
) -> None:
    packed = made.pack(torch.randn(40, columns, generator=torch.Generator().manual_seed(0)))
    assert (packed.kind, packed.group_size, packed.activation_group) == (made.name, 32, activation_group)
    assert packed.padded_columns == -(-columns // 64) * 64
    assert packed.tensors["factors"].shape == (4, packed.padded_columns // activation_group, 16)


@pytest.mark.parametrize("made", [W4A8(group_size=16), W4A8(asymmetric=True), W4A16(), W8A8()])
def test_other_roundings_keep_scales_of_float16(made: IntegerFormat) -> None:
    packed = made.pack(torch.randn(40, 192, generator=torch.Generator().manual_seed(0)))
    assert packed.tensors["scales"].dtype == torch.float16
    assert "factors" not in packed.tensors
    assert made.head.name == ("w8a16" if made.activations == "float" else "w8a8")


@pytest.mark.parametrize(("columns", "group_size"), [(512, 256), (300, 300), (96, 48)])
def test_groups_of_other_sizes_are_split_without_a_change(columns: int, group_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (6, columns), generator=generator, dtype=torch.int8)
    weight = QuantisedWeight(codes, torch.rand(6, -(-columns // group_size), generator=generator), None, group_size, 8)
    torch.testing.assert_close(dequantised(pack_weight(weight, "int8")), weight.dequantised())


def test_groups_that_no_kernel_reads_are_refused() -> None:
    weight = QuantisedWeight(torch.zeros(4, 40, dtype=torch.int8), torch.ones(4, 4), None, 10, 8)
    with pytest.raises(UnsupportedModelError, match="groups of 10"):
        pack_weight(weight, "float")
