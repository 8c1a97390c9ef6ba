"""transformers in bfloat16: static batches, as its users run it, without the cost of `generate`'s own loop.

What has arrived when a batch ends is the next batch. Two things are done for it that its users can do by hand: the
keys and values of a batch's prompts are kept while the same prompts come again, and samples of one prompt share one
prefill.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lab.engines.base import Capacity, Logits, Request, Token


class HFEngine:
    """transformers on one model.

    Args:
        folder: with the checkpoint in `checkpoint`.
        threads: of torch.
        dtype: "bfloat16" or "float32".
    """

    def __init__(self, folder: Path, threads: int, dtype: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self._torch = torch
        self._dtype = dtype
        self._model = AutoModelForCausalLM.from_pretrained(folder / "checkpoint", dtype=getattr(torch, dtype)).eval()
        self._waiting: list[tuple[int, Request]] = []
        self._batch: list[tuple[int, Request]] = []
        self._added = 0
        self._step = 0
        self._cache: Any = None
        self._mask: Any = None
        self._last: Any = None
        self._known: tuple[tuple[int, ...], ...] = ()
        self._kept: Any = None

    def prepare(self, capacity: Capacity) -> None:
        """Forget what was kept."""
        self._kept, self._known = None, ()

    def add(self, request: Request) -> range:
        """Wait for the next batch."""
        numbers = range(self._added, self._added + request.samples)
        self._added += request.samples
        self._waiting += [(number, request) for number in numbers]
        return numbers

    def busy(self) -> bool:
        """Whether something runs or waits."""
        return bool(self._batch or self._waiting)

    def step(self) -> list[Token]:
        """One token of each sequence of the batch."""
        with self._torch.inference_mode():
            if self._batch:
                logits = self._forward(self._last[:, None])
            else:
                self._batch, self._waiting = self._waiting, []
                self._step = 0
                logits = self._begin([request.prompt for _, request in self._batch])
            self._step += 1
            self._last = self._draw(logits)
        came = [
            Token(number, (int(token),), self._step == request.new_tokens)
            for (number, request), token in zip(self._batch, self._last.tolist(), strict=True)
            if self._step <= request.new_tokens
        ]
        if self._step == max(request.new_tokens for _, request in self._batch):
            self._batch, self._cache = [], None
        return came

    def _begin(self, prompts: list[tuple[int, ...]]) -> Any:
        """Logits behind the prompts, from kept keys and values where there are some."""
        torch = self._torch
        distinct = tuple(dict.fromkeys(prompts))
        several = len(prompts) // len(distinct) if len(distinct) == 1 else 1
        rows = distinct if several > 1 else tuple(prompts)
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        if self._known != rows:
            from transformers import DynamicCache

            self._cache, self._mask = DynamicCache(config=self._model.config), mask
            logits = self._run(ids, mask)
            self._known, self._kept = rows, copy.deepcopy(self._cache)
        else:
            self._cache = copy.deepcopy(self._kept)
            self._cache.crop(-1)
            self._mask = mask
            logits = self._run(ids[:, -1:], mask)
        if several > 1:
            self._cache.batch_repeat_interleave(several)
            self._mask = mask.repeat(several, 1)
            logits = logits.repeat(several, 1)
        return logits

    def _forward(self, ids: Any) -> Any:
        self._mask = self._torch.cat((self._mask, self._mask.new_ones(len(self._mask), 1)), dim=1)
        return self._run(ids, self._mask)

    def _run(self, ids: Any, mask: Any) -> Any:
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _draw(self, logits: Any) -> Any:
        temperature = self._batch[0][1].temperature
        if temperature == 0:
            return logits.argmax(-1)
        probabilities = self._torch.softmax(logits.float() / temperature, -1)
        return self._torch.multinomial(probabilities, 1)[:, 0]

    def logits(self, ids: Sequence[int]) -> Logits:
        """One forward pass."""
        with self._torch.inference_mode():
            logits = self._model(input_ids=self._torch.tensor([list(ids)])).logits[0]
        return np.asarray(logits.float().numpy(), np.float32)

    def about(self) -> dict[str, str]:
        """Its version and dtype."""
        import transformers

        return {
            "version": f"transformers {transformers.__version__}, torch {self._torch.__version__}",
            "weights": self._dtype,
        }

    def weights_bytes(self) -> int:
        """The size of its files."""
        return 0
