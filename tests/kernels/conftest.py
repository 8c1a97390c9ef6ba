"""What the tests of operators share: each test that asks for `isa` runs with every variant that this processor has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from ramify.kernels.native import extension

_NATIVE = extension()


@pytest.fixture(params=_NATIVE.available_isas() if _NATIVE is not None else [])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """One variant of the native operators, in use for this test."""
    assert _NATIVE is not None
    before = _NATIVE.isa()
    _NATIVE.set_isa(request.param)
    yield request.param
    _NATIVE.set_isa(before)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Threads of the native operators."""
    assert _NATIVE is not None
    before = _NATIVE.num_threads()
    _NATIVE.set_num_threads(request.param)
    yield request.param
    _NATIVE.set_num_threads(before)


@pytest.fixture
def on_every_path() -> Callable[[Callable[[], torch.Tensor]], list[torch.Tensor]]:
    """Runs an operator with every variant, on one thread and on two; the law is that all results are the same bits."""

    def run(operator: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
        assert _NATIVE is not None
        before, results = (_NATIVE.isa(), _NATIVE.num_threads()), []
        for name in _NATIVE.available_isas():
            for count in (1, 2):
                _NATIVE.set_isa(name)
                _NATIVE.set_num_threads(count)
                results.append(operator())
        _NATIVE.set_isa(before[0])
        _NATIVE.set_num_threads(before[1])
        return results

    return run
