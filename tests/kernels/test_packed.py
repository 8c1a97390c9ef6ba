"""The layout of packed matrices: what each byte holds, and what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ramify.errors import ConfigError
from ramify.kernels.blocks import packed_codes, unpacked_codes
from ramify.kernels.gemm import reference_linear, reference_rows
from ramify.kernels.packed import (
    PackedMatrix,
    dequantised,
    integer_codes,
    own_activation_group,
    pack_int,
)
from ramify.kernels.quantise import reference_quantise
from tests.kernels.integer_scales import draw


def pack(given: dict[str, Any], **changed: Any) -> PackedMatrix:
    return pack_int(**{**given, **changed})


@pytest.mark.parametrize(("bits", "pairs"), [(4, False), (4, True), (6, False), (8, False)])
def test_codes_are_read_as_they_were_laid_out(bits: int, pairs: bool) -> None:
    codes = torch.randint(0, 2**bits, (32, 192), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    packed = packed_codes(codes, bits, pairs=pairs)
    assert packed.shape == (2, 6 * bits, 16, 4)
    assert torch.equal(unpacked_codes(packed, bits, pairs=pairs), codes)


@pytest.mark.parametrize(("bits", "pairs"), [(4, False), (4, True), (6, False)])
def test_every_code_lies_where_the_kernels_look(bits: int, pairs: bool) -> None:
    codes = torch.randint(0, 2**bits, (32, 128), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    packed = packed_codes(codes, bits, pairs=pairs)

    def at(step: int, row: int, i: int) -> int:
        return int(packed[row // 16, step, row % 16, i])

    for row in range(32):
        for k in range(128):
            i, part, step = k % 4, k // 16, k // 4 % 4
            if pairs:
                second = k // 32 % 2
                place = 8 * (k // 64) + (k % 16 // 2 ^ second)
                found = at(place, row, 2 * second + k % 2) >> (4 * (part % 2)) & 15
            elif bits == 4:
                found = at(4 * (k // 32) + step, row, i) >> (4 * (part % 2)) & 15
            elif step < 3:
                found = at(3 * part + step, row, i) & 63
            else:
                first, second, third = (at(3 * part + place, row, i) >> 6 for place in range(3))
                found = first << 4 | second << 2 | third
            assert found == int(codes[row, k])


@pytest.mark.parametrize("bits", [4, 6])
@pytest.mark.parametrize(("N", "K", "group"), [(1, 1, 64), (33, 130, 64), (70, 300, 128)])
def test_a_weight_is_a_code_times_its_scale_times_its_factor(bits: int, N: int, K: int, group: int) -> None:
    torch.manual_seed(2)
    given = draw(N, K, bits, group)
    weight = pack(given)
    assert weight.kind == f"w{bits}a8"
    centred = given["codes"].int() - (8 if bits == 4 else 0)
    assert torch.equal(integer_codes(weight)[:N, :K].int(), centred)
    assert not integer_codes(weight)[N:].any()
    expected = centred.double() * given["scales"].double().repeat_interleave(32, 1)[:, :K]
    expected *= given["factors"].double().repeat_interleave(group, 1)[:, :K]
    assert torch.equal(dequantised(weight).double(), expected)
    ids = torch.tensor([N - 1, 0])
    assert torch.equal(reference_rows(weight, ids).double(), expected[ids])
    assert weight.nbytes == weight.tensors["codes"].shape[0] * 16 * weight.padded_columns * bits // 8 + sum(
        weight.tensors[name].nbytes for name in ("scales", "factors")
    )


@pytest.mark.parametrize("bits", [4, 6])
@pytest.mark.parametrize("group", [64, 128])
def test_all_inputs_of_a_factor_are_summed_as_integers(bits: int, group: int) -> None:
    torch.manual_seed(3)
    N, K, M = 37, 256, 5
    given = draw(N, K, bits, group)
    x = torch.randn(M, K)
    activations, x_scales = reference_quantise(x, group)
    centred = given["codes"].long() - (8 if bits == 4 else 0)
    scaled = centred * given["scales"].long().repeat_interleave(32, 1)
    out = torch.zeros(M, N)
    for place in range(K // group):
        own = slice(place * group, (place + 1) * group)
        total = (activations[:, own].long() @ scaled[:, own].T).float() * x_scales[:, place, None]
        out = (total.double() * given["factors"][:, place].double() + out).float()
    torch.testing.assert_close(reference_linear(x, pack(given)), out, rtol=3e-7, atol=1e-5)


@pytest.mark.parametrize("bits", [4, 6])
def test_the_largest_sums_are_exact(bits: int) -> None:
    codes = torch.zeros(32, 128, dtype=torch.uint8) if bits == 4 else torch.full((32, 128), 31, dtype=torch.int8)
    scales = torch.full((32, 4), -127, dtype=torch.int8)
    weight = pack_int(codes, scales, factors=torch.ones(32, 1).bfloat16(), bits=bits, activation_group=128)
    expected = -127 * 128 * 127 * (-8 if bits == 4 else 31)
    assert (reference_linear(torch.full((1, 128), 127.0), weight) == float(torch.tensor(expected).float())).all()


@pytest.mark.parametrize(("columns", "group"), [(1, 64), (44, 64), (96, 128), (129, 64), (192, 64), (512, 128)])
def test_no_activation_group_pads_more_than_64(columns: int, group: int) -> None:
    assert own_activation_group(columns) == group


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bits": 8}, "factors go with 4 or 6 bits"),
        ({"activations": "float"}, "factors go with"),
        ({"factors": None}, "scales are torch.int8: give float16"),
        ({"factors": torch.ones(4, 1)}, r"factors \(4, 1\) of torch.float32: give \[4, 1\] of torch.bfloat16"),
        ({"factors": -torch.ones(4, 1).bfloat16()}, "a factor is negative"),
        ({"factors": torch.ones(4, 2).bfloat16()}, r"factors \(4, 2\)"),
        ({"scales": torch.ones(4, 4).half()}, r"scales \(4, 4\) of torch.float16: give \[4, 4\] of torch.int8"),
        ({"scales": torch.full((4, 4), -128, dtype=torch.int8)}, "a scale is -128"),
        ({"group_size": 64}, "group_size=64 does not work with factors"),
        ({"activation_group": 16}, "activation_group=16"),
        ({"activation_group": 32}, r"activation_group=32 does not work with factors: use one of \(64, 128\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pack(draw(4, 128, 4, 128), **changed)


def test_6_bit_codes_have_a_sign_and_no_end_that_the_other_side_lacks() -> None:
    given = draw(4, 128, 6, 128)
    for codes, said in ((given["codes"] + 32, "they go from -31 to 31"), (given["codes"].int(), "torch.int32")):
        with pytest.raises(ConfigError, match=said):
            pack(given, codes=codes)
    with pytest.raises(ConfigError, match="bits=6 does not work without factors"):
        pack(given, factors=None, scales=torch.ones(4, 4))
