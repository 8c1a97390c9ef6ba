from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ramify.kernels.norm import reference_rms_norm, rms_norm

OnEveryPath = Callable[[Callable[[], torch.Tensor]], list[torch.Tensor]]


@pytest.mark.parametrize("shape", [(1, 1), (3, 15), (5, 16), (2, 33), (40, 896), (2, 3, 64)])
@pytest.mark.parametrize("with_residual", [False, True])
def test_agrees_with_torch(isa: str, threads: int, shape: tuple[int, ...], with_residual: bool) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(shape), torch.randn(shape[-1])
    residual = torch.randn(shape) if with_residual else None
    out, total = rms_norm(x, weight, 1e-6, residual)
    expected, expected_total = reference_rms_norm(x, weight, 1e-6, residual)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(total, expected_total)


def test_rows_are_the_same_bits_alone_and_on_every_path(on_every_path: OnEveryPath) -> None:
    torch.manual_seed(1)
    x, weight = torch.randn(70, 193), torch.randn(193)
    together = on_every_path(lambda: rms_norm(x, weight, 1e-5)[0])
    alone = on_every_path(lambda: torch.cat([rms_norm(row, weight, 1e-5)[0] for row in x.split(1)]))
    assert all(torch.equal(together[0], other) for other in together + alone)
