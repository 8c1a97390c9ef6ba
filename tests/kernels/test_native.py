from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from ramify.errors import ConfigError
from ramify.kernels import native
from ramify.kernels.norm import rms_norm

OnEveryPath = Callable[[Callable[[], torch.Tensor]], list[torch.Tensor]]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The choice of kernels, to be made anew."""
    native.extension.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    native.extension.cache_clear()


def test_kernels_can_be_turned_off(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("RAMIFY_KERNELS", "torch")
    assert native.extension() is None
    assert "RAMIFY_KERNELS=torch" in native.why_not()
    x, weight = torch.randn(3, 20), torch.randn(20)
    expected = torch.nn.functional.rms_norm(x, (20,), weight, 1e-6)
    assert torch.equal(rms_norm(x, weight, 1e-6)[0], expected)


def test_a_misspelt_choice_is_told(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("RAMIFY_KERNELS", "fast")
    with pytest.raises(ConfigError, match="RAMIFY_KERNELS='fast' does not work: use 'auto', 'native' or 'torch'"):
        native.extension()


def test_an_instruction_set_that_is_not_there_is_told(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("RAMIFY_ISA", "avx1024")
    with pytest.raises(ConfigError, match="RAMIFY_ISA='avx1024' does not work here: use portable"):
        native.extension()


def test_a_build_that_is_missing_is_told_where_it_is_asked_for(fresh: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"no module {name}")

    fresh.setattr(native.importlib, "import_module", missing)
    assert native.extension() is None
    assert "no module" in native.why_not()
    native.extension.cache_clear()
    fresh.setenv("RAMIFY_KERNELS", "native")
    with pytest.raises(ConfigError, match="cannot be loaded: no module"):
        native.extension()


def test_threads_that_call_at_once_do_not_disturb_each_other(threads: int) -> None:
    inputs = [torch.randn(300, 257) for _ in range(4)]
    weight = torch.randn(257)
    expected = [rms_norm(x, weight, 1e-6)[0] for x in inputs]
    faults: list[int] = []

    def call(place: int) -> None:
        wrong = [not torch.equal(rms_norm(inputs[place], weight, 1e-6)[0], expected[place]) for _ in range(50)]
        faults.append(sum(wrong))

    callers = [threading.Thread(target=call, args=(place,)) for place in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert faults == [0] * 4


def test_a_forked_process_has_threads_of_its_own() -> None:
    module = native.native()
    before = module.num_threads()
    module.set_num_threads(2)
    x, weight = torch.randn(400, 300), torch.randn(300)
    expected = rms_norm(x, weight, 1e-6)[0]
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(rms_norm(x, weight, 1e-6)[0], expected) else 1)
    _, status = os.waitpid(child, 0)
    module.set_num_threads(before)
    assert os.waitstatus_to_exitcode(status) == 0
