"""Products with packed integer weights: the kernels and the torch reference give the same bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from ramify.errors import ConfigError
from ramify.kernels.gemm import PackedMatrix, linear, pack_int, reference_linear, reference_rows, rows
from ramify.kernels.packed import dequantised

OnEveryPath = Callable[[Callable[[], torch.Tensor]], list[torch.Tensor]]


def random_matrix(
    N: int,
    K: int,
    bits: int,
    group: int,
    activation_group: int,
    mins: bool = False,
    scale_type: torch.dtype = torch.float32,
) -> PackedMatrix:
    G = -(-K // group)
    codes = torch.randint(0, 16, (N, K), dtype=torch.uint8)
    if bits == 8:
        codes = torch.randint(-128, 128, (N, K), dtype=torch.int8)
    minima = torch.randn(N, G).to(scale_type) if mins else None
    scales = torch.randn(N, G).to(scale_type)
    return pack_int(codes, scales, minima, bits=bits, group_size=group, activation_group=activation_group)


def random_rows(M: int, K: int) -> torch.Tensor:
    return torch.randn(M, K) * torch.exp(torch.randn(M, K))


GROUPS = list(itertools.product([16, 32, 64, 128], [32, 64, 128]))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("mins", [False, True])
def test_every_path_gives_the_bits_of_the_reference_for_every_grouping(
    on_every_path: OnEveryPath, bits: int, mins: bool
) -> None:
    torch.manual_seed(bits + mins)
    for index, (group, activation_group) in enumerate(GROUPS):
        N, K, M = 33 + 7 * index, 130 + 61 * index, 1 + 3 * index
        scale_type = torch.float16 if index % 2 else torch.float32
        weight = random_matrix(N, K, bits, group, activation_group, mins, scale_type)
        x = random_rows(M, K)
        expected = reference_linear(x, weight)
        assert all(torch.equal(out, expected) for out in on_every_path(lambda x=x, w=weight: linear(x, w)))  # type: ignore[misc]


@pytest.mark.parametrize("bits", [8, 4])
def test_a_row_has_the_same_bits_among_any_number_of_others(isa: str, threads: int, bits: int) -> None:
    torch.manual_seed(2)
    weight = random_matrix(70, 321, bits, 32, 32)
    x = random_rows(40, 321)
    alone = torch.cat([linear(row, weight) for row in x.split(1)])
    for M in range(1, 41):
        assert torch.equal(linear(x[:M], weight), alone[:M])


@pytest.mark.parametrize(("N", "K"), [(1, 1), (1, 33), (31, 5), (16, 32), (97, 128)])
@pytest.mark.parametrize("bits", [8, 4])
def test_odd_shapes(isa: str, bits: int, N: int, K: int) -> None:
    torch.manual_seed(3)
    weight, x = random_matrix(N, K, bits, 32, 32), random_rows(3, K)
    assert torch.equal(linear(x, weight), reference_linear(x, weight))
    x = torch.randn(3, K).sign() * (1 + torch.rand(3, K))  # at least half of the largest: off by at most a 127th
    exact = x.double() @ dequantised(weight).double().T
    scale = x.double().abs() @ dequantised(weight).double().abs().T
    assert float(((linear(x, weight) - exact).abs() / scale).max()) < 1 / 127


def test_many_rows_are_taken_in_parts(isa: str) -> None:
    torch.manual_seed(4)
    weight, x = random_matrix(5, 4100, 8, 128, 128), random_rows(530, 4100)
    assert torch.equal(linear(x, weight)[[0, 255, 256, 529]], linear(x[[0, 255, 256, 529]], weight))


def test_extreme_codes_do_not_overflow(isa: str) -> None:
    x = torch.ones(2, 256) * torch.tensor([[1.0], [-1.0]])
    for bits, code in itertools.product([8, 4], [0, 1]):
        lowest = -128 if bits == 8 else 0
        value = (lowest, 127 if bits == 8 else 15)[code]
        codes = torch.full((32, 256), value, dtype=torch.int8 if bits == 8 else torch.uint8)
        weight = pack_int(codes, torch.ones(32, 2), bits=bits, group_size=128, activation_group=128)
        expected = 256.0 * (value - weight.zero)
        out = linear(x, weight)
        torch.testing.assert_close(out, torch.tensor([[expected], [-expected]]).expand(2, 32), rtol=1e-6, atol=0)


def test_bias_and_residual_are_added_in_this_order_and_the_residual_may_be_the_output(isa: str) -> None:
    torch.manual_seed(5)
    weight, x = random_matrix(45, 64, 8, 32, 32), random_rows(5, 64)
    bias, residual = torch.randn(45), torch.randn(5, 45)
    expected = linear(x, weight) + bias + residual
    assert torch.equal(linear(x, weight, bias, residual=residual), expected)
    assert linear(x, weight, bias, residual=residual, out=residual) is residual
    assert torch.equal(residual, expected)


def test_a_fault_in_one_row_stays_there_and_shows(isa: str) -> None:
    torch.manual_seed(6)
    weight, x = random_matrix(40, 96, 4, 32, 32), random_rows(6, 96)
    clean = linear(x, weight)
    x[1, 40], x[3, 41], x[5] = torch.nan, -torch.inf, 0
    out = linear(x, weight)
    assert out[[1, 3]].isnan().all()
    assert torch.equal(out[[0, 2, 4]], clean[[0, 2, 4]])
    assert (out[5] == 0).all()


def test_tiny_and_huge_activations(isa: str) -> None:
    weight = random_matrix(8, 32, 8, 32, 32)
    x = torch.stack([torch.full((32,), 1e-40), torch.full((32,), 1e-29), torch.full((32,), 1e37)])
    out = linear(x, weight)
    assert (out[0] == 0).all()
    assert torch.equal(out, reference_linear(x, weight))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("mins", [False, True])
@pytest.mark.parametrize("activations", ["int8", "float"])
def test_rows_are_those_of_the_weight(isa: str, threads: int, bits: int, mins: bool, activations: str) -> None:
    torch.manual_seed(7)
    G, K = 5, 150
    codes = torch.randint(0, 16, (50, K), dtype=torch.uint8)
    codes = codes if bits == 4 else codes.view(torch.int8) - 8
    scales, minima = torch.rand(50, G).half(), torch.randn(50, G)
    weight = pack_int(codes, scales, minima if mins else None, bits=bits, activations=activations)  # type: ignore[arg-type]
    ids = torch.tensor([0, 49, 17, 17, 33])
    expected = (codes.float() - weight.zero) * scales.float().repeat_interleave(32, 1)[:, :K]
    if mins:
        expected = expected + minima.repeat_interleave(32, 1)[:, :K]
    assert torch.equal(rows(weight, ids), expected[ids])
    assert torch.equal(reference_rows(weight, ids), expected[ids])


def test_unsigned_8_bit_codes_with_minima_are_the_same_weight(isa: str) -> None:
    torch.manual_seed(8)
    codes = torch.randint(0, 256, (20, 64), dtype=torch.uint8)
    scales, minima = torch.rand(20, 2) + 0.5, torch.randn(20, 2)
    weight = pack_int(codes, scales, minima, bits=8)
    expected = codes.float() * scales.repeat_interleave(32, 1) + minima.repeat_interleave(32, 1)
    torch.testing.assert_close(dequantised(weight), expected, rtol=1e-5, atol=1e-4)
    x = random_rows(3, 64)
    assert torch.equal(linear(x, weight), reference_linear(x, weight))


def test_what_does_not_fit_is_refused_by_name() -> None:
    codes, scales = torch.zeros(4, 64, dtype=torch.int8), torch.ones(4, 2)
    weight = pack_int(codes, scales, bits=8)
    with pytest.raises(ConfigError, match="bits=5"):
        pack_int(codes, scales, bits=5)
    with pytest.raises(ConfigError, match="group_size=None does not fit 1 groups of 8 inputs"):
        pack_int(codes[:, :8], scales[:, :1], bits=8)
    with pytest.raises(ConfigError, match="4-bit code is 16"):
        pack_int(torch.full((4, 64), 16, dtype=torch.uint8), scales, bits=4)
    with pytest.raises(ConfigError, match="scales are torch.float64"):
        pack_int(codes, scales.double(), bits=8)
    with pytest.raises(ConfigError, match=r"\(2, 63\).*\[4, 64\]"):
        linear(torch.zeros(2, 63), weight)
    with pytest.raises(ConfigError, match="torch.bfloat16"):
        linear(torch.zeros(2, 64, dtype=torch.bfloat16), weight)
    with pytest.raises(ConfigError, match="rows 0 to 3"):
        rows(weight, torch.tensor([4]))
