"""What stands between the matrix products of a layer: against torch, and the same bits alone and on every path."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ramify.kernels.activation import reference_silu_and_multiply, silu_and_multiply
from ramify.kernels.embedding import gather, reference_gather
from ramify.kernels.kv_layer import KVLayer
from ramify.kernels.rotary import Heads, place_heads, reference_place_heads

OnEveryPath = Callable[[Callable[[], torch.Tensor]], list[torch.Tensor]]
Placed = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Scene:
    """Rows of a fused projection, and an empty cache to place them in."""

    def __init__(self, rows: int, query_heads: int, kv_heads: int, dim: int, norms: bool, dtype: torch.dtype) -> None:
        torch.manual_seed(rows + dim)
        weights = (torch.randn(dim), torch.randn(dim)) if norms else (None, None)
        self.heads = Heads(query_heads, kv_heads, dim, *weights, eps=1e-6)
        self.qkv = torch.randn(rows, self.heads.width)
        angles = torch.rand(rows, dim // 2) * 6
        self.rotary = angles.cos(), angles.sin()
        self.slots = torch.randperm(16 * (rows // 16 + 2))[:rows]
        self.shape = (kv_heads, rows // 16 + 2, 16, dim)
        self.dtype = dtype

    def place(self, rows: slice = slice(None), operator: Callable[..., torch.Tensor] = place_heads) -> Placed:
        """Queries, keys and values after some of the rows were placed."""
        kv_heads, blocks, size, dim = self.shape
        keys = torch.zeros(kv_heads, blocks, dim, size, dtype=self.dtype)
        layer = KVLayer(keys, torch.zeros(self.shape, dtype=self.dtype))
        rotary = (self.rotary[0][rows], self.rotary[1][rows])
        query = operator(self.qkv[rows], self.heads, rotary, self.slots[rows], layer)
        return query, layer.keys, layer.values


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (3, 5, 1, 18), (7, 4, 2, 64), (40, 14, 2, 64), (5, 3, 3, 96)])
@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heads_are_placed_as_in_torch(
    isa: str, threads: int, shape: tuple[int, int, int, int], norms: bool, dtype: torch.dtype
) -> None:
    scene = Scene(*shape, norms, dtype)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-5}
    query, keys, values = scene.place()
    expected_query, expected_keys, expected_values = scene.place(operator=reference_place_heads)
    torch.testing.assert_close(query, expected_query, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(keys, expected_keys, **close)
    assert torch.equal(values, expected_values)


def test_rows_of_heads_are_the_same_bits_alone_and_on_every_path(on_every_path: OnEveryPath) -> None:
    scene = Scene(33, 5, 2, 40, True, torch.bfloat16)

    def alone() -> torch.Tensor:
        return torch.cat([scene.place(slice(i, i + 1))[0] for i in range(33)])

    found = on_every_path(lambda: scene.place()[0]) + on_every_path(alone)
    assert all(torch.equal(found[0], other) for other in found)
    stored = on_every_path(lambda: scene.place()[1])
    assert all(torch.equal(stored[0], other) for other in stored)


@pytest.mark.parametrize("shape", [(1, 1), (3, 15), (2, 33), (9, 4864), (1, 9000)])
def test_silu_agrees_with_torch(isa: str, threads: int, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape[0], 2 * shape[1]) * 20
    torch.testing.assert_close(silu_and_multiply(x), reference_silu_and_multiply(x), rtol=1e-5, atol=1e-6)


def test_silu_of_extremes() -> None:
    x = torch.tensor([[-1e30, -200.0, 0.0, 200.0, torch.nan, 1.0, 1.0, 1.0, 1.0, 1.0]])
    out = silu_and_multiply(x)[0]
    assert out[:2].abs().max() < 1e-6
    assert out[2:4].tolist() == [0.0, 200.0]
    assert out[4].isnan()


def test_rows_of_silu_are_the_same_bits_alone_and_on_every_path(on_every_path: OnEveryPath) -> None:
    x = torch.randn(40, 2 * 333)
    found = on_every_path(lambda: silu_and_multiply(x))
    found += on_every_path(lambda: torch.cat([silu_and_multiply(row) for row in x.split(1)]))
    assert all(torch.equal(found[0], other) for other in found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 17, 896])
def test_rows_of_a_table(isa: str, threads: int, dtype: torch.dtype, size: int) -> None:
    table, ids = torch.randn(50, size).to(dtype), torch.tensor([3, 49, 0, 3, *range(40)])
    found = gather(table, ids)
    assert found.dtype == torch.float32
    assert torch.equal(found, reference_gather(table, ids))
