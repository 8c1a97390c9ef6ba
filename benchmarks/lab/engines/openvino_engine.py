"""OpenVINO GenAI's continuous batching, with its prefix cache, on weights that optimum-intel compressed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lab.engines.base import Capacity, Logits, Request, Token

_SPARE_BYTES = 256 * 2**20


class OpenVINOEngine:
    """OpenVINO GenAI on one model.

    Args:
        folder: with the exported model in `openvino-FORM`.
        threads: of inference.
        form: "int8" or "int4".
    """

    def __init__(self, folder: Path, threads: int, form: str) -> None:
        self._model = folder / f"openvino-{form}"
        self._threads = threads
        self._form = form
        self._capacity: Capacity | None = None
        self._pipeline: Any = None
        self._handles: dict[int, tuple[Any, list[int], int]] = {}
        self._numbers = itertools.count()
        self._request_ids = itertools.count()
        self._plain: Any = None

    def prepare(self, capacity: Capacity) -> None:
        """A pipeline whose cache holds so much, unless there is one; its prefix cache cannot be emptied."""
        if self._capacity is not None and self._capacity.holds(capacity):
            return
        import openvino_genai

        self._pipeline = None
        scheduler = openvino_genai.SchedulerConfig()
        # Blocks of 32 tokens, and one more a sequence; 0 would let the cache grow without a limit.
        scheduler.num_kv_blocks = -(-capacity.total // 32) + 2 * capacity.sequences
        scheduler.cache_size = 0
        scheduler.max_num_batched_tokens = 2048
        scheduler.max_num_seqs = 256
        scheduler.enable_prefix_caching = True
        scheduler.dynamic_split_fuse = True
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(self._model), scheduler, "CPU", {"INFERENCE_NUM_THREADS": self._threads}
        )
        self._capacity = capacity

    def add(self, request: Request) -> range:
        """As many requests as samples: with the prompt in the prefix cache that is faster than one of many samples."""
        import openvino
        import openvino_genai

        ids = openvino.Tensor(np.array([request.prompt], np.int64))
        numbers = []
        for sample in range(request.samples):
            config = openvino_genai.GenerationConfig()
            config.max_new_tokens = request.new_tokens
            config.ignore_eos = True
            config.do_sample = request.temperature > 0
            if config.do_sample:
                config.temperature = request.temperature
                config.top_p = 1.0
                config.rng_seed = request.seed + sample
            number = next(self._numbers)
            handle = self._pipeline.add_request(next(self._request_ids), ids, config)
            self._handles[number] = (handle, [], request.new_tokens)
            numbers.append(number)
        return range(numbers[0], numbers[-1] + 1)

    def step(self) -> list[Token]:
        """One step of the pipeline."""
        self._pipeline.step()
        came = []
        for number, (handle, seen, wanted) in list(self._handles.items()):
            if not handle.can_read():
                continue
            new = [token for output in handle.read().values() for token in output.generated_ids]
            seen += new
            if len(seen) >= wanted:
                del self._handles[number]
            came.append(Token(number, tuple(new), len(seen) >= wanted))
        return came

    def busy(self) -> bool:
        """Whether the pipeline has requests."""
        return bool(self._handles)

    def logits(self, ids: Sequence[int]) -> Logits:
        """By the exported model itself, for the pipeline gives no logits."""
        import openvino

        if self._plain is None:
            core = openvino.Core()
            self._plain = core.compile_model(
                str(self._model / "openvino_model.xml"), "CPU", {"INFERENCE_NUM_THREADS": self._threads}
            ).create_infer_request()
        self._plain.reset_state()
        length = len(ids)
        self._plain.infer(
            {
                "input_ids": np.array([ids], np.int64),
                "attention_mask": np.ones((1, length), np.int64),
                "position_ids": np.arange(length)[None],
                "beam_idx": np.zeros(1, np.int32),
            }
        )
        return np.array(self._plain.get_tensor("logits").data[0], np.float32)

    def about(self) -> dict[str, str]:
        """Its version and format."""
        return {"version": f"OpenVINO GenAI {version('openvino-genai')}", "weights": self._form}

    def weights_bytes(self) -> int:
        """The size of its files."""
        return 0
