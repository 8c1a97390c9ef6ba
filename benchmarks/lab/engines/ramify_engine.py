"""ramify's `EngineCore`, in each of its weight formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lab.engines.base import Capacity, Logits, MissingError, Request, Token

BLOCK = 16


class RamifyEngine:
    """ramify on one model.

    Args:
        folder: with the checkpoint in `checkpoint`.
        threads: of the kernels.
        quantization: a weight format; "bfloat16" leaves the weights as they are.
    """

    def __init__(self, folder: Path, threads: int, quantization: str) -> None:
        self._folder = folder / "checkpoint"
        self._threads = threads
        self._quantization = quantization
        self._capacity: Capacity | None = None
        self._core: Any = None
        self._places: dict[int, int] = {}
        self._added = 0

    def prepare(self, capacity: Capacity) -> None:
        """Load with a pool for so much, unless it is loaded with one."""
        if self._capacity is not None and self._capacity.holds(capacity):
            self._core.forget_prefixes()
            return
        from ramify.config import EngineConfig
        from ramify.engine.loading import load_engine

        self._core = None  # two would need the memory twice
        known = {field.name for field in fields(EngineConfig)}
        options: dict[str, Any] = {}
        if self._quantization == "bfloat16":
            options["dtype"] = "bfloat16"
        else:
            if "quantization" not in known:
                raise MissingError(f"this ramify has no engine option quantization={self._quantization!r}")
            options["quantization"] = self._quantization
        # The engine copies and keeps blocks beyond what runs: an eighth more than the sequences need.
        blocks = -(-capacity.total // BLOCK) + capacity.sequences
        config = EngineConfig(
            num_kv_blocks=blocks + blocks // 8 + 8,
            max_num_seqs=max(capacity.sequences, 1),
            max_num_batched_tokens=2048,
            num_threads=self._threads,
            **options,
        )
        self._core, _ = load_engine(self._folder, config)
        self._capacity = capacity

    def add(self, request: Request) -> range:
        """One request; its samples are forks of one prompt."""
        from ramify.engine.request import EngineRequest
        from ramify.randomness import BranchKey
        from ramify.sampling import SamplingParams

        params = SamplingParams(
            temperature=request.temperature,
            max_tokens=request.new_tokens,
            n=request.samples,
            ignore_eos=True,
            detokenize=False,
        )
        ids = self._core.add(EngineRequest(request.prompt, params, BranchKey.root(request.seed, str(self._added))))
        numbers = range(self._added, self._added + len(ids))
        self._places.update(zip(ids, numbers, strict=True))
        self._added += len(ids)
        return numbers

    def step(self) -> list[Token]:
        """One step of the engine."""
        came = []
        for output in self._core.step().outputs:
            if output.error is not None:
                raise output.error
            done = output.finish_reason is not None
            came.append(Token(self._places[output.sequence_id], tuple(output.new_token_ids), done))
        return came

    def busy(self) -> bool:
        """Whether the engine has work."""
        return bool(self._core.has_work())

    def logits(self, ids: Sequence[int]) -> Logits:
        """Read from the prompt's rows."""
        from ramify.engine.request import EngineRequest
        from ramify.randomness import BranchKey
        from ramify.sampling import SamplingParams

        vocabulary = tuple(range(self._core.model_config.vocab_size))
        request = EngineRequest(
            tuple(ids),
            SamplingParams(max_tokens=0, detokenize=False),
            BranchKey.root(0),
            score_positions=tuple(range(len(ids))),
            score_token_ids=vocabulary,
        )
        self._core.forget_prefixes()
        self._core.add(request)
        while self._core.has_work():
            for output in self._core.step().outputs:
                if output.error is not None:
                    raise output.error
                if output.scores is not None:
                    return np.asarray(output.scores, np.float32)
        raise RuntimeError("the engine gave no logits")

    def backend(self) -> Any:
        """The engine as a strategy's backend, with what was cached forgotten; closing it leaves the engine as it is."""
        from ramify.backends.local import LocalBackend
        from ramify.text.tokenizer import load_tokenizer

        self._core.forget_prefixes()
        return LocalBackend.on_cores((self._core, load_tokenizer(self._folder)))

    def about(self) -> dict[str, str]:
        """Its version and format."""
        import ramify

        return {"version": f"ramify {ramify.__version__}", "weights": self._quantization}

    def weights_bytes(self) -> int:
        """Of the decoder, each buffer counted once (an embedding may be the head too)."""
        decoder = self._core._runner.decoder
        parts = [getattr(decoder, name) for name in ("embedding", "layers", "norm", "head")]
        buffers = {tensor.data_ptr(): tensor.nbytes for tensor in _tensors(parts)}
        return sum(buffers.values())


def _tensors(holder: Any) -> Iterator[Any]:
    """All tensors that an object of the model holds, however deep."""
    import torch

    if isinstance(holder, torch.Tensor):
        yield holder
        return
    held: list[Any] = []
    if isinstance(holder, dict):
        held = list(holder.values())
    elif isinstance(holder, list | tuple):
        held = list(holder)
    elif type(holder).__module__.startswith("ramify."):
        names = [*getattr(holder, "__dict__", ()), *getattr(type(holder), "__slots__", ())]
        held = [getattr(holder, name, None) for name in names]
    for part in held:
        yield from _tensors(part)
