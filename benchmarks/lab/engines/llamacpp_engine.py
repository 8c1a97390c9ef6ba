"""llama.cpp through llama-cpp-python's C API, driven like its own server: slots, chunks of 2,048 rows, cached prompts.

A new prompt goes to the free slot that holds its longest known beginning. Where prompts share long beginnings the slots
have one memory, and a slot takes over the beginning of any other without computing it (the server does not do that by
itself; here it is given the benefit).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lab.engines.base import Capacity, Logits, Request, Token

_ROWS = 2048
_MOST_SEQUENCES = 256


@dataclass(slots=True)
class _Slot:
    """A sequence of llama.cpp: what it holds, and what it works on."""

    index: int
    tokens: list[int] = field(default_factory=list)
    number: int = -1
    goal: list[int] = field(default_factory=list)
    left: int = 0
    sampler: Any = None
    used: int = 0

    @property
    def free(self) -> bool:
        return self.left == 0


_kept: list[Any] = []
"""What llama.cpp calls for the rest of the process."""


def silence() -> None:
    """Nothing of llama.cpp's own log."""
    import llama_cpp

    if not _kept:
        _kept.append(llama_cpp.llama_log_callback(lambda level, text, data: None))
    llama_cpp.llama_log_set(_kept[0], None)


class LlamaCppEngine:
    """llama.cpp on one model.

    Args:
        folder: with the file `FORM.gguf`.
        threads: of the computation.
        form: "Q8_0" or "Q4_0", or "F32" as written.
    """

    def __init__(self, folder: Path, threads: int, form: str) -> None:
        import llama_cpp

        self._api = llama_cpp
        self._threads = threads
        self._form = form
        silence()
        llama_cpp.llama_backend_init()
        path = str(folder / f"{form}.gguf").encode()
        self._model = llama_cpp.llama_model_load_from_file(path, llama_cpp.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp could not load {path.decode()}")
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._context: Any = None
        self._batch = llama_cpp.llama_batch_init(_ROWS, 0, 1)
        self._slots: list[_Slot] = []
        self._waiting: list[tuple[int, Request, int]] = []
        self._added = 0
        self._clock = 0

    def prepare(self, capacity: Capacity) -> None:
        """A new context: one memory for all slots where they share, else one a slot."""
        api = self._api
        if self._context is not None:
            api.llama_free(self._context)
        # Spare slots keep what finished sequences held for those that go on from them.
        slots = min(_MOST_SEQUENCES, capacity.sequences * 2) if capacity.shared else capacity.sequences
        options = api.llama_context_default_params()
        options.n_ctx = capacity.sequences * (-(-(capacity.tokens + 8) // 256) * 256)
        options.n_batch, options.n_ubatch = _ROWS, 512
        options.n_seq_max = slots
        options.n_threads = options.n_threads_batch = self._threads
        options.kv_unified = capacity.shared
        self._shared = capacity.shared
        self._context = api.llama_init_from_model(self._model, options)
        if not self._context:
            raise RuntimeError(f"llama.cpp could not make a context of {options.n_ctx} tokens")
        self._memory = api.llama_get_memory(self._context)
        self._slots = [_Slot(index) for index in range(slots)]

    def add(self, request: Request) -> range:
        """One slot a sample."""
        numbers = range(self._added, self._added + request.samples)
        self._added += request.samples
        self._waiting += [(number, request, place) for place, number in enumerate(numbers)]
        return numbers

    def busy(self) -> bool:
        """Whether something runs or waits."""
        return bool(self._waiting) or any(not slot.free for slot in self._slots)

    def step(self) -> list[Token]:
        """One `llama_decode`: a row of each running slot, the rest filled with prompts."""
        self._admit()
        rows: list[tuple[_Slot, int]] = []
        running = [slot for slot in self._slots if not slot.free]
        for slot in sorted(running, key=lambda slot: len(slot.goal) - len(slot.tokens)):
            todo = slot.goal[len(slot.tokens) : len(slot.tokens) + _ROWS - len(rows)]
            rows += [(slot, token) for token in todo]
        reading = self._decode(rows)
        came = []
        for slot, row in reading:
            token = self._api.llama_sampler_sample(slot.sampler, self._context, row)
            slot.goal.append(token)
            slot.left -= 1
            came.append(Token(slot.number, (token,), slot.free))
            if slot.free:
                self._api.llama_sampler_free(slot.sampler)
        return came

    def _admit(self) -> None:
        """Give waiting sequences their slots."""
        still = []
        leaders: set[tuple[int, ...]] = set()
        for number, request, place in self._waiting:
            free = [slot for slot in self._slots if slot.free]
            # The first of several with one prompt computes it; the others wait a step and take it over.
            known = self._best(request.prompt, self._slots if self._shared else free)
            unread = len(request.prompt) - 1 - (known[1] if known else 0)
            if not free or (self._shared and unread > 64 and request.prompt in leaders):
                still.append((number, request, place))
                continue
            leaders.add(request.prompt)
            self._start(free, number, request, place)
        self._waiting = still

    def _best(self, prompt: Sequence[int], slots: Sequence[_Slot]) -> tuple[_Slot, int] | None:
        found = [(slot, min(_common(slot.tokens, prompt), len(prompt) - 1)) for slot in slots]
        return max(found, key=lambda pair: pair[1], default=None)

    def _start(self, free: list[_Slot], number: int, request: Request, place: int) -> None:
        api = self._api
        source = self._best(request.prompt, self._slots if self._shared else free)
        assert source is not None
        length = source[1]
        if source[0].free and (not self._shared or length == len(source[0].tokens)):
            slot = source[0]
        else:
            slot = min(free, key=lambda slot: slot.used)
        if slot is source[0]:
            api.llama_memory_seq_rm(self._memory, slot.index, length, -1)
        else:
            api.llama_memory_seq_rm(self._memory, slot.index, -1, -1)
            if length:
                api.llama_memory_seq_cp(self._memory, source[0].index, slot.index, 0, length)
        self._clock += 1
        slot.tokens, slot.goal = list(request.prompt[:length]), list(request.prompt)
        slot.number, slot.left, slot.used = number, request.new_tokens, self._clock
        slot.sampler = self._sampler(request, place)

    def _sampler(self, request: Request, place: int) -> Any:
        api = self._api
        if request.temperature == 0:
            return api.llama_sampler_init_greedy()
        chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_temp(request.temperature))
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_dist(request.seed + place))
        return chain

    def _decode(self, rows: list[tuple[_Slot, int]]) -> list[tuple[_Slot, int]]:
        """Run rows; the slots whose last known token was among them, with the row that says what comes next."""
        batch, reading = self._batch, []
        batch.n_tokens = len(rows)
        for row, (slot, token) in enumerate(rows):
            batch.token[row] = token
            batch.pos[row] = len(slot.tokens)
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = slot.index
            slot.tokens.append(token)
            last = len(slot.tokens) == len(slot.goal)
            batch.logits[row] = last
            if last:
                reading.append((slot, row))
        code = self._api.llama_decode(self._context, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode failed with code {code} on {len(rows)} rows")
        return reading

    def logits(self, ids: Sequence[int]) -> Logits:
        """One pass in a context of its own size."""
        self.prepare(Capacity(1, len(ids)))
        slot = self._slots[0]
        batch = self._batch
        batch.n_tokens = len(ids)
        for row, token in enumerate(ids):
            batch.token[row], batch.pos[row], batch.n_seq_id[row], batch.logits[row] = token, row, 1, True
            batch.seq_id[row][0] = slot.index
        if self._api.llama_decode(self._context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        pointer = self._api.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, (len(ids), self._vocabulary)).copy()

    def about(self) -> dict[str, str]:
        """Its version and format."""
        return {"version": f"llama-cpp-python {version('llama-cpp-python')}", "weights": self._form}

    def weights_bytes(self) -> int:
        """The size of its files."""
        return 0


def _common(held: Sequence[int], prompt: Sequence[int]) -> int:
    """Length of the common beginning."""
    limit = min(len(held), len(prompt))
    if list(held[:limit]) == list(prompt[:limit]):
        return limit
    return next(place for place in range(limit) if held[place] != prompt[place])
