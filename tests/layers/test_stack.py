"""All layers in one native call give the bits of the layers one by one, and one answer whoever shares the batch."""

from __future__ import annotations

import pytest
import torch

from ramify.engine.core import EngineCore
from ramify.engine.request import EngineRequest
from ramify.kernels.native import extension
from tests.engine.harness import engine, prompt, request
from tests.engine.harness import run as finish

pytestmark = pytest.mark.skipif(extension() is None, reason="there are no native kernels")


def run(core: EngineCore, *requests: EngineRequest) -> list[tuple[tuple[int, float], ...]]:
    """Tokens and log-probabilities of requests that ran to their end."""
    results = finish(core, *requests)
    assert [result.error for result in results] == [None] * len(requests)
    return [result.trace() for result in results]


@pytest.mark.parametrize("family", ["llama2", "mistral", "qwen3"])
@pytest.mark.parametrize("quantization", [None, "w8a8", "w4a16"])
def test_one_call_gives_the_bits_of_layer_by_layer(family: str, quantization: str | None) -> None:
    requests = [request(prompt(n, n), n, temperature=0.9, max_tokens=4) for n in (1, 17, 70)]
    traces = []
    for one_by_one in (False, True):
        core = engine(family, quantization=quantization, max_num_batched_tokens=48)
        decoder = core._runner.decoder
        assert decoder._stack is not None
        if one_by_one:
            decoder._stack = None
        traces.append(run(core, *requests))
    assert traces[0] == traces[1]


def test_a_batch_of_many_rows_gives_the_bits_of_small_ones() -> None:
    wanted = request(prompt(400, 3), 3, temperature=0.9, max_tokens=2)
    (whole,) = run(engine(num_kv_blocks=100, max_num_batched_tokens=512, max_model_len=512), wanted)
    (chunked,) = run(engine(num_kv_blocks=100, max_num_batched_tokens=37, max_model_len=512), wanted)
    assert whole == chunked


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_sequence_is_the_same_bits_in_a_batch_of_128(dtype: str) -> None:
    core = engine("qwen3", dtype=dtype, num_kv_blocks=1000, max_num_seqs=128, max_num_batched_tokens=400)
    wanted = [request(prompt(5 + n % 40, n), n, temperature=0.9, max_tokens=3) for n in range(128)]
    together = run(core, *wanted)
    for chosen in (0, 37, 127):
        (alone,) = run(engine("qwen3", dtype=dtype), wanted[chosen])
        assert together[chosen] == alone


def test_steps_keep_the_number_of_threads_of_the_process() -> None:
    native, before = extension(), torch.get_num_threads()
    assert native is not None
    try:
        torch.set_num_threads(2)
        run(engine(), request(prompt(5), max_tokens=1))
        assert native.num_threads() == 2
    finally:
        torch.set_num_threads(before)
        native.set_num_threads(before)
