"""Products with float activations: one order of summation, whatever the rows, the threads and the instruction set."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ramify.kernels.gemm import PackedMatrix, linear, pack_float, pack_int, reference_linear, reference_rows, rows
from ramify.kernels.native import native

OnEveryPath = Callable[[Callable[[], torch.Tensor]], list[torch.Tensor]]

# What is packed, and how: group, minima, type of scales.
KINDS = {
    "float32": None,
    "bfloat16": None,
    "w8a16": (16, False, torch.float32),
    "w8a16 with minima": (128, True, torch.float16),
    "w4a16": (32, False, torch.float16),
    "w4a16 with minima": (64, True, torch.float32),
    "w4a16 in groups of 16": (16, True, torch.float16),
}


def random_weight(kind: str, N: int, K: int) -> PackedMatrix:
    coded = KINDS[kind]
    if coded is None:
        return pack_float(torch.randn(N, K).to(getattr(torch, kind)))
    group, with_mins, scale_type = coded
    bits, groups = int(kind[1]), -(-K // group)
    codes = torch.randint(0, 16, (N, K), dtype=torch.uint8)
    if bits == 8:
        codes = torch.randint(-128, 128, (N, K), dtype=torch.int8)
    scales = (torch.randn(N, groups) / 8).to(scale_type)
    mins = torch.randn(N, groups).to(scale_type) if with_mins else None
    return pack_int(codes, scales, mins, bits=bits, activations="float", group_size=group)


def exact(x: torch.Tensor, weight: PackedMatrix) -> torch.Tensor:
    values = rows(weight, torch.arange(weight.rows)).double()
    return (x.bfloat16() if weight.kind == "bfloat16" else x).double() @ values.T


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_close_to_exact_ones_at_odd_shapes(isa: str, threads: int, kind: str) -> None:
    torch.manual_seed(3)
    for N, K, M in [(1, 1, 1), (17, 33, 3), (100, 300, 7), (160, 777, 40), (70, 1100, 15)]:
        weight, x = random_weight(kind, N, K), torch.randn(M, K)
        bound = x.abs().double() @ rows(weight, torch.arange(N)).abs().double().T
        error = (linear(x, weight).double() - exact(x, weight)).abs()
        tolerance = 2e-5 if KINDS[kind] else 4e-6  # centred codes lose some bits to what is taken off again
        assert bool((error <= tolerance * bound + 1e-4 * tolerance).all()), (N, K, M, float((error / bound).max()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_the_same_bits_among_any_number_of_others(isa: str, threads: int, kind: str) -> None:
    torch.manual_seed(4)
    N, K = 83, 600
    weight, x = random_weight(kind, N, K), torch.randn(40, K)
    bias, residual = torch.randn(N), torch.randn(40, N)
    alone = torch.cat([linear(x[i : i + 1], weight, bias, residual=residual[i : i + 1]) for i in range(40)])
    for M in (2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 18, 24, 25, 40):
        assert torch.equal(linear(x[:M], weight, bias, residual=residual[:M]), alone[:M]), M


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_of_very_many_rows_has_the_same_bits_too(isa: str, kind: str) -> None:
    torch.manual_seed(5)
    weight, x = random_weight(kind, 40, 70), torch.randn(1100, 70)
    together = linear(x, weight)
    assert torch.equal(together[[0, 511, 550, 1099]], linear(x[[0, 511, 550, 1099]], weight))


@pytest.mark.parametrize("kind", KINDS)
def test_every_path_gives_the_same_bits(on_every_path: OnEveryPath, kind: str) -> None:
    torch.manual_seed(6)
    weight, bias = random_weight(kind, 210, 333), torch.randn(210)
    for M in (1, 5, 23):
        x = torch.randn(M, 333)
        results = on_every_path(lambda x=x: linear(x, weight, bias))  # type: ignore[misc]
        if kind == "bfloat16":  # the processor's own product of pairs may round otherwise
            paired = native().available_isas().count("avx512bf16") * 2
            first, last = results[: len(results) - paired], results[len(results) - paired :]
            assert all(torch.equal(group[0], other) for group in (first, last) for other in group)
        else:
            assert all(torch.equal(results[0], other) for other in results)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_a_float_product_is_one_chain_in_the_order_of_the_inputs(isa: str, kind: str) -> None:
    if kind == "bfloat16" and isa == "avx512bf16":
        pytest.skip("pairs of inputs are the processor's own product")
    torch.manual_seed(7)
    weight, x = random_weight(kind, 20, 48), torch.randn(8, 48).bfloat16().float()
    values = rows(weight, torch.arange(20)).bfloat16().float()  # products of two bfloat16 are exact in float32
    weight = pack_float(values.to(getattr(torch, kind)))
    chain = torch.zeros(8, 20)
    for k in range(48):
        chain = chain + x[:, k : k + 1] * values[:, k]
    assert torch.equal(linear(x, weight), chain)


@pytest.mark.parametrize("kind", KINDS)
def test_a_residual_may_be_written_over(isa: str, kind: str) -> None:
    torch.manual_seed(8)
    weight = random_weight(kind, 50, 1500)
    for M in (1, 30):
        x, residual, bias = torch.randn(M, 1500), torch.randn(M, 50), torch.randn(50)
        expected = (linear(x, weight) + bias) + residual
        out = linear(x, weight, bias, residual=residual, out=residual)
        assert out is residual
        assert torch.equal(out, expected)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_rows_of_a_float_weight_are_its_own_values(isa: str, kind: str) -> None:
    weight, ids = random_weight(kind, 45, 37), torch.tensor([0, 44, 15, 16, 16])
    assert torch.equal(rows(weight, ids), reference_rows(weight, ids))


@pytest.mark.parametrize("kind", ["float32", "w4a16 with minima"])
def test_what_is_not_a_number_stays_in_its_row(isa: str, kind: str) -> None:
    weight, x = random_weight(kind, 33, 64), torch.randn(9, 64)
    expected = linear(x, weight)
    x[4, 7] = float("nan")
    out = linear(x, weight)
    assert bool(out[4].isnan().all())
    kept = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(out[kept], expected[kept])


def test_no_rows_give_no_rows(isa: str) -> None:
    assert linear(torch.empty(0, 32), random_weight("bfloat16", 16, 32)).shape == (0, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_the_same_product(kind: str) -> None:
    torch.manual_seed(9)
    weight, x = random_weight(kind, 48, 256), torch.randn(5, 256)
    torch.testing.assert_close(linear(x, weight), reference_linear(x, weight), rtol=1e-4, atol=2e-3)
