"""What the threads of the operators do where something is wrong: no memory for an operator, or a mode that flushes."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ramify.kernels.gemm import linear, pack_float
from ramify.kernels.norm import rms_norm


def holds_in_a_child(law: Callable[[], bool]) -> bool:
    """Whether a law holds in a process whose threads and limits nobody else has."""
    child = os.fork()
    if child == 0:
        os._exit(0 if law() else 1)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def said_without_memory(call: Callable[[], object]) -> str:
    """The error of a call for which there is no memory: all that the process has is taken, and it gets no more."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used, before[1]))
    taken: list[bytearray] = []
    with contextlib.suppress(MemoryError):
        while True:
            taken.append(bytearray(1 << 22))
    try:
        call()
    except MemoryError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    return "nothing"


def test_an_operator_without_memory_says_how_much_it_needs_and_works_when_it_is_there(threads: int) -> None:
    M, K = 512, 8192
    weight, x, out = pack_float(torch.ones(16, K)), torch.ones(M, K), torch.empty(M, 16)
    rows, norm = torch.randn(400, 300), torch.ones(300)
    expected = rms_norm(rows, norm, 1e-6)[0]

    def law() -> bool:
        rms_norm(rows, norm, 1e-6)  # starts the threads
        said = said_without_memory(lambda: linear(x, weight, out=out))
        others_work = torch.equal(rms_norm(rows, norm, 1e-6)[0], expected)
        return f"{M * K * 4} bytes" in said and others_work and bool((linear(x, weight, out=out) == K).all())

    assert holds_in_a_child(law)


@pytest.mark.parametrize("flush", [False, True])
def test_no_thread_takes_subnormal_numbers_for_zero(isa: str, threads: int, flush: bool) -> None:
    tiny, weight = torch.full((300, 64), 1e-40), pack_float(torch.eye(64))
    torch.set_flush_denormal(flush)
    found = linear(tiny, weight)
    torch.set_flush_denormal(False)
    assert torch.equal(found, tiny)
