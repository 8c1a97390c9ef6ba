"""Products with 4- and 6-bit weights whose scales are integers: the kernels and the reference give the same bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import pytest
import torch

from ramify.kernels.gemm import PackedMatrix, linear, pack_int, reference_linear, rows
from ramify.kernels.packed import dequantised
from tests.kernels.integer_scales import draw

OnEveryPath = Callable[[Callable[[], torch.Tensor]], list[torch.Tensor]]

BITS = pytest.mark.parametrize("bits", [4, 6])


def random_matrix(N: int, K: int, bits: int, activation_group: int) -> PackedMatrix:
    return pack_int(**draw(N, K, bits, activation_group))


def random_rows(M: int, K: int) -> torch.Tensor:
    return torch.randn(M, K) * torch.exp(torch.randn(M, K))


@BITS
@pytest.mark.parametrize("activation_group", [64, 128])
def test_every_path_gives_the_bits_of_the_reference(
    on_every_path: OnEveryPath, bits: int, activation_group: int
) -> None:
    torch.manual_seed(bits + activation_group)
    for M, (N, K) in enumerate([(1, 1), (16, 32), (31, 5), (33, 129), (70, 321), (97, 640), (160, 256)], start=1):
        weight, x = random_matrix(N, K, bits, activation_group), random_rows(2 * M, K)
        expected = reference_linear(x, weight)
        assert all(torch.equal(out, expected) for out in on_every_path(partial(linear, x, weight)))


@BITS
def test_a_row_has_the_same_bits_among_any_number_of_others(isa: str, threads: int, bits: int) -> None:
    torch.manual_seed(2)
    weight, x = random_matrix(70, 321, bits, 128), random_rows(40, 321)
    alone = torch.cat([linear(row, weight) for row in x.split(1)])
    assert torch.equal(alone, reference_linear(x, weight))
    for M in range(1, 41):
        assert torch.equal(linear(x[:M], weight), alone[:M])


@BITS
def test_products_are_those_of_the_weight(isa: str, bits: int) -> None:
    torch.manual_seed(3)
    weight = random_matrix(50, 200, bits, 64)
    x = torch.randn(5, 200).sign() * (1 + torch.rand(5, 200))  # at least half of the largest: off by at most a 127th
    exact = x.double() @ dequantised(weight).double().T
    size = x.double().abs() @ dequantised(weight).double().abs().T
    assert float(((linear(x, weight) - exact).abs() / size).max()) < 1 / 127


@BITS
@pytest.mark.parametrize("rows_together", [1, 9])
def test_the_largest_sums_do_not_overflow(isa: str, bits: int, rows_together: int) -> None:
    lowest, highest = (0, 15) if bits == 4 else (-31, 31)
    zero = 8 if bits == 4 else 0
    for code, scale, sign in itertools.product((lowest, highest), (-127, 127), (-1.0, 1.0)):
        codes = torch.full((32, 256), code, dtype=torch.uint8 if bits == 4 else torch.int8)
        scales = torch.full((32, 8), scale, dtype=torch.int8)
        factors = torch.ones(32, 2).bfloat16()
        weight = pack_int(codes, scales, factors=factors, bits=bits, activation_group=128)
        out = linear(torch.full((rows_together, 256), 127 * sign), weight)
        assert (out == 256 * 127 * sign * scale * (code - zero)).all()


@BITS
def test_single_inputs_meet_their_own_codes(isa: str, bits: int) -> None:
    """Each 16-bit lane begins at what corrects its own inputs, so codes of neighbours must not reach each other."""
    torch.manual_seed(4)
    weight = random_matrix(32, 64, bits, 64)
    assert torch.equal(linear(127 * torch.eye(64), weight), 127 * dequantised(weight).T)


@BITS
def test_a_fault_in_one_row_stays_there_and_shows(isa: str, bits: int) -> None:
    torch.manual_seed(5)
    weight, x = random_matrix(40, 96, bits, 64), random_rows(8, 96)
    clean = linear(x, weight)
    x[1, 40], x[3, 41], x[5], x[6] = torch.nan, -torch.inf, 0, 1e-40
    out = linear(x, weight)
    assert out[[1, 3]].isnan().all()
    assert torch.equal(out[[0, 2, 4, 7]], clean[[0, 2, 4, 7]])
    assert (out[[5, 6]] == 0).all()


@BITS
def test_many_rows_are_taken_in_parts(isa: str, bits: int) -> None:
    torch.manual_seed(6)
    weight, x = random_matrix(5, 4100, bits, 128), random_rows(530, 4100)
    assert torch.equal(linear(x, weight)[[0, 255, 256, 529]], linear(x[[0, 255, 256, 529]], weight))


@BITS
def test_bias_and_residual_are_added_in_this_order(isa: str, bits: int) -> None:
    torch.manual_seed(7)
    weight, x = random_matrix(45, 64, bits, 64), random_rows(7, 64)
    bias, residual = torch.randn(45), torch.randn(7, 45)
    expected = linear(x, weight) + bias + residual
    assert torch.equal(linear(x, weight, bias, residual=residual, out=residual), expected)


@BITS
@pytest.mark.parametrize("K", [1, 47, 150])
def test_rows_are_those_of_the_weight(isa: str, threads: int, bits: int, K: int) -> None:
    torch.manual_seed(8)
    weight = random_matrix(50, K, bits, 128)
    ids = torch.tensor([0, 49, 17, 17, 33])
    assert torch.equal(rows(weight, ids), dequantised(weight)[ids])
