"""`EngineCore`: owns weights, KV and the running batch. One thread drives it; it knows no text and no strategies."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterable

import numpy as np
import torch

from ramify.config import EngineConfig
from ramify.engine.admission import check_request, limits_of, new_sequence
from ramify.engine.grammars import Grammars
from ramify.engine.guides import Guides
from ramify.engine.request import EngineCounters, EngineRequest, SequenceOutput, StepOutput
from ramify.engine.runner import ModelRunner
from ramify.engine.sampler import Draw, sample, token_logprobs
from ramify.engine.scheduler import Scheduled, Scheduler
from ramify.engine.sequence import Sequence, Status
from ramify.engine.stats import EngineStats
from ramify.errors import EngineError, RamifyError, RequestError
from ramify.kv.cache import KVCache
from ramify.kv.sizing import KVBudget
from ramify.models.decoder import Decoder
from ramify.randomness import BranchKey
from ramify.registry import technique
from ramify.sampling import SamplingParams, StructuredOutputsParams, TokenIds

_WAIT_FOR_GRAMMAR_S = 0.02
"""A step that has nothing else to do waits so long for a grammar; calls that come meanwhile wait with it."""


class EngineCore:
    """Runs sequences, many at a time.

    Args:
        decoder: the model.
        cache: its keys and values.
        config: limits.
        max_model_len: context in tokens.
        kv_budget: how the cache was sized (for reports).
        grammars: the forms of answers over its vocabulary; without, it takes no `structured_outputs`.
    """

    def __init__(
        self,
        decoder: Decoder,
        cache: KVCache,
        config: EngineConfig,
        max_model_len: int,
        kv_budget: KVBudget,
        grammars: Grammars | None = None,
    ) -> None:
        self.model_config = decoder.config
        self.config = config
        self.max_model_len = max_model_len
        self.kv_budget = kv_budget
        self.counters = EngineCounters()
        self.scheduler = Scheduler(
            kv_budget.num_blocks,
            config.block_size,
            config.max_num_seqs,
            config.max_num_batched_tokens,
            technique("policy", config.scheduling_policy).factory(),
            config.enable_prefix_caching,
        )
        self._runner = ModelRunner(decoder, cache)
        self._cache = cache
        self._sequences: dict[int, Sequence] = {}
        self._ids = itertools.count()
        self._arrivals = itertools.count()
        self._suspects: list[int] = []
        self.grammars = grammars
        self._guides = Guides(grammars)

    # Requests

    def add(self, request: EngineRequest) -> list[int]:
        """Take a request on.

        Returns:
            The ids of its ``params.n`` sequences. The first runs the prompt, the others fork from it.

        Raises:
            RequestError, PromptTooLongError, PoolTooSmallError: it cannot be served; nothing was changed.
        """
        check_request(request, self.model_config, self.max_model_len, self.scheduler)
        self._guides.check(request.params)
        limits = limits_of(
            request.params, len(request.prompt_ids), self.model_config, self.max_model_len, self.scheduler
        )
        sequences = [
            new_sequence(request, i, next(self._ids), next(self._arrivals), limits, self.model_config.pooling)
            for i in range(request.params.n)
        ]
        leader, siblings = sequences[0], sequences[1:]
        for sibling in siblings:
            sibling.status = Status.FORKING
        leader.siblings = siblings
        for sequence in sequences:
            self._sequences[sequence.id] = sequence
        self._start(leader)
        return [sequence.id for sequence in sequences]

    def read_forms(self, forms: Iterable[StructuredOutputsParams | None]) -> None:
        """Read the forms of answers before anything runs. Raises `ConfigError` for one that cannot be used."""
        self._guides.read(forms)

    def fork(self, sequence_id: int, key: BranchKey, n: int, first_child: int = 0) -> list[int]:
        """`n` parked forks of a parked sequence. They share its blocks; nothing is computed.

        Fork i draws with ``key.child(first_child + i)``.
        """
        source = self._parked(sequence_id, "fork")
        ids: list[int] = []
        for i in range(n):
            copy = source.forked(next(self._ids), key.child(first_child + i))
            self._sequences[copy.id] = copy
            self.scheduler.share(source, copy)
            ids.append(copy.id)
        return ids

    def extend(
        self,
        sequence_id: int,
        params: SamplingParams,
        append: TokenIds = (),
        score_positions: tuple[int, ...] = (),
        score_token_ids: tuple[int, ...] = (),
    ) -> None:
        """A parked sequence goes on, after `append` if given. Its next draws continue its own positions.

        Args:
            sequence_id: a parked one.
            params: how it goes on.
            append: known tokens that come next.
            score_positions, score_token_ids: logits to read at positions of `append` (see `EngineRequest`).

        Raises:
            RequestError: it is not parked, or there is no room left in the context.
        """
        sequence = self._parked(sequence_id, "extend")
        length = len(sequence.tokens) + len(append)
        self._guides.check(params)
        max_total, stop_ids = limits_of(params, length, self.model_config, self.max_model_len, self.scheduler)
        self.append(sequence_id, append)
        sequence.params = params
        sequence.num_prompt = length
        sequence.num_cached = None
        sequence.score_positions, sequence.score_token_ids = score_positions, score_token_ids
        sequence.scores = {}
        sequence.first_needed_row = min(score_positions, default=None)
        sequence.max_total, sequence.stop_ids = max_total, stop_ids
        sequence.arrival = next(self._arrivals)
        self._start(sequence)

    def append(self, sequence_id: int, tokens: TokenIds) -> None:
        """Put known tokens behind a parked sequence. They are computed when it goes on."""
        self._parked(sequence_id, "append to").tokens.extend(tokens)
        self.counters.appended += len(tokens)

    def finish(self, sequence_id: int, num_tokens: int | None = None) -> None:
        """End a sequence now (its text met a stop string), cut to `num_tokens` tokens; parked if it is to be kept."""
        sequence = self._sequences.get(sequence_id)
        if sequence is None:
            return
        if num_tokens is not None and num_tokens < len(sequence.tokens):
            self.scheduler.truncate(sequence, num_tokens)
            if sequence.guide is not None:
                sequence.guide.rewind()
        self._retire(sequence)

    def drop(self, sequence_ids: Collection[int]) -> None:
        """Forget sequences, running or parked; unknown ids are ignored. Their blocks are free at once."""
        for sequence_id in sequence_ids:
            sequence = self._sequences.pop(sequence_id, None)
            if sequence is not None:
                self._orphan_siblings(sequence)
                self.scheduler.remove(sequence)

    def tokens(self, sequence_id: int) -> TokenIds:
        """All tokens of a living sequence."""
        return tuple(self._sequences[sequence_id].tokens)

    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return self.scheduler.has_work() or bool(self._guides)

    @property
    def num_free_blocks(self) -> int:
        """Blocks that no sequence holds."""
        return self.scheduler.pool.num_free

    # One step

    def step(self) -> StepOutput:
        """Schedule, run, draw and commit once."""
        timings: dict[str, float] = {}
        clock = _Clock(timings)
        outputs = self._admit_guided()
        items = self.scheduler.schedule(only=self._suspect())
        clock.lap("schedule")
        if items:
            outputs += self._run(items, clock)
        elif self._suspects:
            self._suspects.pop(0)
        pool = self.scheduler.pool
        rows = sum(item.num_rows for item in items)
        for output in outputs:
            output.step = self.counters.steps
        for phase, seconds in timings.items():
            self.counters.timings_s[phase] = self.counters.timings_s.get(phase, 0.0) + seconds
        return StepOutput(outputs, rows, timings, pool.num_usable - pool.num_free, pool.num_usable)

    def stats(self) -> EngineStats:
        """What it has done so far and holds now."""
        scheduler, counters, cache = self.scheduler, self.counters, self.scheduler.prefix_cache
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            parked=len(scheduler.parked),
            blocks_used=scheduler.pool.num_usable - scheduler.pool.num_free,
            blocks_total=scheduler.pool.num_usable,
            prefix_query_tokens=cache.query_tokens,
            prefix_hit_tokens=cache.hit_tokens,
            prompt_tokens=counters.prompt,
            cached_tokens=counters.prompt_cached,
            appended_tokens=counters.appended,
            generation_tokens=counters.generated,
            recomputed_tokens=counters.recomputed,
            preemptions=counters.preemptions,
            steps=counters.steps,
            rows=counters.rows,
            timings_s=dict(counters.timings_s),
            steps_by_rows=tuple(counters.steps_by_rows),
        )

    def kv_map(self) -> str:
        """The state of each KV block, a letter each: see `Engine.kv_map`."""
        pool, cached = self.scheduler.pool, self.scheduler.prefix_cache.holds
        counts = [(block, pool.references(block)) for block in range(1, pool.num_blocks)]
        return "".join("s" if n > 1 else "h" if n else "c" if cached(block) else "f" for block, n in counts)

    def forget_prefixes(self) -> None:
        """Empty the prefix cache."""
        self.scheduler.prefix_cache.clear()

    def _run(self, items: list[Scheduled], clock: _Clock) -> list[SequenceOutput]:
        copies = [pair for item in items for pair in item.copies]
        if copies:
            self._cache.copy_blocks(copies)
        try:
            batch = self._runner.build(items)
            clock.lap("build")
            logits = self._runner.execute(batch, self._read_rows)
            clock.lap("forward")
            draws = [] if logits is None else sample(logits, batch.drawing)
            clock.lap("sample")
        except Exception as fault:
            return self._blame(items, fault)
        outputs = self._commit(items, dict(zip((s.id for s in batch.drawing), draws, strict=True)))
        clock.lap("commit")
        ran = {item.sequence.id for item in items}
        self._suspects = [suspect for suspect in self._suspects if suspect not in ran]
        self.counters.stepped(sum(item.num_rows for item in items))
        self.counters.preemptions = self.scheduler.num_preemptions
        return outputs

    def _start(self, sequence: Sequence) -> None:
        """A sequence is to run, now or when the grammar of its answer has been read."""
        if self._guides.ready(sequence):
            self.scheduler.add(sequence)
        else:
            sequence.status = Status.WAITING

    def _admit_guided(self) -> list[SequenceOutput]:
        """Sequences whose grammars have been read may run; those whose cannot be used have failed."""
        if not self._guides:
            return []
        patience_s = 0.0 if self.scheduler.has_work() else _WAIT_FOR_GRAMMAR_S
        ready, failed = self._guides.settle(self._sequences, patience_s)
        for sequence in ready:
            self.scheduler.add(sequence)
        return [self._fail(sequence, error) for sequence, error in failed]

    def _suspect(self) -> int | None:
        """While the culprit of a failed step is looked for, the suspects run one at a time."""
        self._suspects = [suspect for suspect in self._suspects if suspect in self._sequences]
        return self._suspects[0] if self._suspects else None

    def _blame(self, items: list[Scheduled], fault: Exception) -> list[SequenceOutput]:
        """A step failed. A sequence that ran alone is the culprit; of several, each gets a step of its own."""
        for item in items:
            item.sequence.siblings.extend(item.forks)
        if len(items) > 1:
            self._suspects = [item.sequence.id for item in items]
            return []
        error = EngineError(f"the request failed in the engine: {type(fault).__name__}: {fault}")
        error.__cause__ = fault
        return [self._fail(items[0].sequence, error)]

    def _read_rows(self, rows: list[tuple[Sequence, int]], logits: torch.Tensor) -> None:
        wanted: list[int] = []
        for row, (sequence, position) in enumerate(rows):
            if position in sequence.score_positions:
                sequence.scores[position] = logits[row, list(sequence.score_token_ids)].cpu().numpy()
            if sequence.wants_prompt_logprob(position + 1):
                wanted.append(row)
        if not wanted:
            return
        read = [rows[row] for row in wanted]
        told = token_logprobs(
            logits if len(wanted) == len(logits) else logits[wanted],
            [sequence.tokens[position + 1] for sequence, position in read],
            [sequence.params.prompt_logprobs or 0 for sequence, _ in read],
        )
        for (sequence, position), entry in zip(read, told, strict=True):
            sequence.prompt_logprobs[position + 1] = entry

    def _commit(self, items: list[Scheduled], draws: dict[int, Draw]) -> list[SequenceOutput]:
        outputs: list[SequenceOutput] = []
        for item in items:
            sequence = item.sequence
            ended = item.start + item.num_rows
            self.counters.recomputed += max(0, min(sequence.num_ever_computed, ended) - item.start)
            self.scheduler.commit(item)
            if not item.reaches_end:
                continue
            for fork in item.forks:
                self.scheduler.run(fork, leader=sequence)
            outputs += [self._advance(drawer, draws.get(drawer.id)) for drawer in (sequence, *item.forks)]
        return outputs

    def _advance(self, sequence: Sequence, draw: Draw | None) -> SequenceOutput:
        """Append a drawn token and see whether the sequence ends with it."""
        output = SequenceOutput(sequence.id)
        if sequence.num_output == 0:
            self._report_prompt(sequence, output)
            if sequence.pooler is not None:
                try:
                    output.embedding = sequence.pooler.vector()
                except EngineError as error:
                    return self._fail(sequence, error)
        if draw is None:
            output.finish_reason = "length"
        elif draw.error is not None:
            return self._fail(sequence, draw.error)
        elif draw.ended:
            output.finish_reason = "stop"
        else:
            sequence.tokens.append(draw.token)
            self.counters.generated += 1
            output.new_token_ids.append(draw.token)
            if draw.logprobs is not None:
                output.new_logprobs.append(draw.logprobs)
            if draw.token in sequence.stop_ids:
                output.finish_reason, output.stop_token = "stop", draw.token
            elif len(sequence.tokens) >= sequence.max_total:
                output.finish_reason = "length"
        if output.finish_reason is not None:
            self._retire(sequence)
        return output

    def _report_prompt(self, sequence: Sequence, output: SequenceOutput) -> None:
        output.num_cached_tokens = sequence.num_cached or 0
        if sequence.fresh:
            self.counters.prompt += sequence.num_prompt
            self.counters.prompt_cached += output.num_cached_tokens
        sequence.fresh = False
        if sequence.first_needed_row is None:
            return
        if sequence.params.prompt_logprobs is not None:
            start = sequence.prompt_logprobs_start
            output.prompt_logprobs = [sequence.prompt_logprobs.get(i) for i in range(start, sequence.num_prompt)]
        if sequence.score_positions:
            output.scores = np.stack([sequence.scores[position] for position in sequence.score_positions])

    def _retire(self, sequence: Sequence) -> None:
        if sequence.keep:
            self.scheduler.park(sequence)
        else:
            del self._sequences[sequence.id]
            self._orphan_siblings(sequence)
            self.scheduler.remove(sequence)

    def _fail(self, sequence: Sequence, error: RamifyError) -> SequenceOutput:
        """End one sequence with an error. What it left in its blocks is wiped, lest it reach whoever gets them next."""
        own = [block for block in sequence.blocks if self.scheduler.pool.references(block) == 1]
        for block in own:
            self.scheduler.prefix_cache.forget(block)
        self._cache.scrub(own)
        self.drop([sequence.id])
        return SequenceOutput(sequence.id, finish_reason="error", error=error)

    def _orphan_siblings(self, sequence: Sequence) -> None:
        """The leader is gone before its prompt was done: its first sibling leads the others."""
        siblings = [s for s in sequence.siblings if s.id in self._sequences]
        sequence.siblings = []
        if siblings:
            siblings[0].siblings = siblings[1:]
            self._start(siblings[0])

    def _parked(self, sequence_id: int, verb: str) -> Sequence:
        sequence = self._sequences.get(sequence_id)
        if sequence is None or sequence.status is not Status.PARKED:
            state = "unknown" if sequence is None else sequence.status.name.lower()
            raise RequestError(f"cannot {verb} sequence {sequence_id}: it is {state}; only a kept, finished one can be")
        return sequence


class _Clock:
    """Named times of a step's phases."""

    def __init__(self, timings: dict[str, float]) -> None:
        self._timings = timings
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self._timings[phase] = self._timings.get(phase, 0.0) + now - self._last
        self._last = now
