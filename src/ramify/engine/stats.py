"""`EngineStats`: what an engine has done since it was made, and what it holds now; for metrics and for admission."""

from __future__ import annotations

import msgspec

STEP_ROWS = tuple(2**power for power in range(15))
"""Bounds of the histogram of steps by their rows."""


class EngineStats(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot. Tokens, steps, rows and times count up from the engine's start; the others are the present state.

    Attributes:
        running, waiting, parked: sequences in the batch, before their turn, and kept between two steps of a method.
        blocks_used, blocks_total: of the KV pool; cached blocks that nobody references count as free.
        prefix_query_tokens, prefix_hit_tokens: prompt tokens looked up in the prefix cache, and found there.
        prompt_tokens, cached_tokens: of prompts that are done; of these, those whose KV was there already.
        appended_tokens: known tokens put behind parked sequences.
        generation_tokens: drawn.
        recomputed_tokens: run a second time after a preemption.
        preemptions: how often a sequence lost its blocks to another.
        steps, rows: forward passes, and rows of their flat batches.
        timings_s: seconds by phase of a step: schedule, build, forward, sample, commit.
        steps_by_rows: steps of at most `STEP_ROWS` [i] rows and more than the bound before; larger ones are in none.
    """

    running: int = 0
    waiting: int = 0
    parked: int = 0
    blocks_used: int = 0
    blocks_total: int = 0
    prefix_query_tokens: int = 0
    prefix_hit_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    appended_tokens: int = 0
    generation_tokens: int = 0
    recomputed_tokens: int = 0
    preemptions: int = 0
    steps: int = 0
    rows: int = 0
    timings_s: dict[str, float] = {}
    steps_by_rows: tuple[int, ...] = ()

    @property
    def blocks_free(self) -> int:
        """Blocks that no sequence holds."""
        return self.blocks_total - self.blocks_used
