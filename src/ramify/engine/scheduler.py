"""The scheduler: which tokens of which sequences run in the next step, and in which blocks.

Its loop is one: every sequence has `num_computed` tokens that chase its known tokens, and a step gives each scheduled
sequence some rows out of the token budget, running decodes first. Rules it keeps:

- blocks are taken here and nowhere else, and a block is written only by the one sequence that references it;
- when the pool is full, blocks come back from parked sequences first (least recently used), then from waiting ones,
  then from a running victim, so the first sequence in the policy's order always gets on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ramify.engine.policies import Policy
from ramify.engine.sequence import Sequence, Status
from ramify.kv.block_pool import BlockPool
from ramify.kv.prefix_cache import PrefixCache, child_digest, root_digest


@dataclass(slots=True)
class Scheduled:
    """One sequence's part of a step: rows for its tokens `start` to `start + num_rows - 1`.

    Attributes:
        copies: (source, target) blocks to copy before the forward pass.
        forks: siblings that draw their first token from this sequence's last row and share its blocks.
    """

    sequence: Sequence
    start: int
    num_rows: int
    copies: list[tuple[int, int]] = field(default_factory=list)
    forks: list[Sequence] = field(default_factory=list)

    @property
    def reaches_end(self) -> bool:
        """Whether all known tokens are computed after it, so that the next one can be drawn."""
        return self.start + self.num_rows == len(self.sequence.tokens)


class Scheduler:
    """Owns the queues, the block pool and the prefix cache.

    Args:
        num_blocks: of the pool, the null block included.
        block_size: tokens a block.
        max_num_seqs, max_num_batched_tokens: limits of one step.
        policy: order and victims.
        prefix_caching: whether known prefixes are looked up.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        policy: Policy,
        prefix_caching: bool = True,
    ) -> None:
        self.block_size = block_size
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.policy = policy
        self.prefix_caching = prefix_caching
        self.prefix_cache = PrefixCache()
        self.pool = BlockPool(num_blocks, on_reuse=self.prefix_cache.forget)
        self.waiting: dict[int, Sequence] = {}
        self.running: dict[int, Sequence] = {}
        self.parked: dict[int, Sequence] = {}  # least recently parked first
        self.num_preemptions = 0

    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.waiting or self.running)

    def tables(self) -> Iterator[list[int]]:
        """Block tables of all living sequences."""
        for queue in (self.waiting, self.running, self.parked):
            for sequence in queue.values():
                yield sequence.blocks

    # Moves between the queues

    def add(self, sequence: Sequence) -> None:
        """A new sequence, or a parked one that goes on."""
        self.parked.pop(sequence.id, None)
        sequence.status = Status.WAITING
        self.waiting[sequence.id] = sequence

    def park(self, sequence: Sequence) -> None:
        """Keep the blocks of a sequence that may go on later."""
        self._leave(sequence)
        sequence.status = Status.PARKED
        self.parked[sequence.id] = sequence

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence; its blocks are free before the next step (and findable as a cached prefix)."""
        self._leave(sequence)
        sequence.status = Status.FINISHED
        self._free(sequence)

    def run(self, sequence: Sequence, leader: Sequence) -> None:
        """A sibling joins the batch with the blocks of the leader's prompt."""
        self.pool.share(leader.blocks)
        sequence.blocks = list(leader.blocks)
        sequence.digests = list(leader.digests)
        sequence.num_computed = sequence.num_ever_computed = leader.num_computed
        sequence.num_cached = sequence.num_computed
        sequence.status = Status.RUNNING
        self.running[sequence.id] = sequence

    def share(self, source: Sequence, copy: Sequence) -> None:
        """`copy` becomes a parked fork of the parked `source`: O(blocks), no compute."""
        self.pool.share(source.blocks)
        copy.blocks = list(source.blocks)
        copy.digests = list(source.digests)
        copy.num_computed = copy.num_ever_computed = source.num_computed
        copy.status = Status.PARKED
        self.parked[copy.id] = copy

    def truncate(self, sequence: Sequence, num_tokens: int) -> None:
        """Cut a sequence to its first `num_tokens` tokens; the last one is computed anew, to draw from."""
        del sequence.tokens[num_tokens:]
        sequence.num_computed = min(sequence.num_computed, num_tokens - 1)
        needed = -(-sequence.num_computed // self.block_size)
        self.pool.release(reversed(sequence.blocks[needed:]))
        del sequence.blocks[needed:]
        del sequence.digests[sequence.num_computed // self.block_size :]

    def commit(self, item: Scheduled) -> None:
        """The rows of `item` are computed: its full blocks become findable."""
        sequence = item.sequence
        sequence.num_computed = item.start + item.num_rows
        sequence.num_ever_computed = max(sequence.num_ever_computed, sequence.num_computed)
        if not self.prefix_caching:
            return
        size = self.block_size
        for index in range(len(sequence.digests), sequence.num_computed // size):
            parent = sequence.digests[-1] if sequence.digests else root_digest(sequence.cache_salt)
            digest = child_digest(parent, sequence.tokens[index * size : (index + 1) * size])
            sequence.digests.append(digest)
            self.prefix_cache.put(digest, sequence.blocks[index])

    # One step

    def schedule(self, only: int | None = None) -> list[Scheduled]:
        """Give out the rows of one step. Every returned item has its blocks.

        Args:
            only: the id of the one sequence that may run.
        """
        items: dict[int, Scheduled] = {}
        preemptions = self.num_preemptions
        # Decodes first (sorted is stable, so each kind stays in the policy's order).
        order = sorted(self.policy.order(self.running.values()), key=lambda sequence: sequence.num_uncomputed > 1)
        left = self.max_num_batched_tokens
        for sequence in order:
            rows = min(sequence.num_uncomputed, left)
            if only is not None and sequence.id != only:
                continue
            if rows > 0 and sequence.status is Status.RUNNING and self._give(sequence, rows, items):
                left -= rows
        if self.num_preemptions == preemptions:
            self._admit(items, left, only)
        self._place_siblings(items)
        return list(items.values())

    def _admit(self, items: dict[int, Scheduled], left: int, only: int | None) -> None:
        for sequence in self.policy.order(self.waiting.values()):
            if only is not None and sequence.id != only:
                continue
            if left <= 0 or len(self.running) >= self.max_num_seqs:
                return
            if not sequence.blocks:
                self._match_prefix(sequence)
            rows = min(sequence.num_uncomputed, left)
            # Running sequences will want blocks soon: admitting into the last ones would only preempt.
            reserve = min(len(self.running), self.pool.num_usable // 16)
            if not self._has_room(self._blocks_needed(sequence, rows) + reserve, sequence) and self.running:
                return
            del self.waiting[sequence.id]
            sequence.status = Status.RUNNING
            self.running[sequence.id] = sequence
            if sequence.num_cached is None:
                sequence.num_cached = sequence.num_computed
                if sequence.fresh and self.prefix_caching:
                    self.prefix_cache.query_tokens += len(sequence.tokens)
                    self.prefix_cache.hit_tokens += sequence.num_computed
            if self._give(sequence, rows, items):
                left -= rows

    def _place_siblings(self, items: dict[int, Scheduled]) -> None:
        """Forks start with the step that ends their leader's prompt, as far as there are places; the rest wait."""
        for item in items.values():
            siblings = [sibling for sibling in item.sequence.siblings if sibling.status is Status.FORKING]
            if not siblings or not item.reaches_end:
                continue
            places = self.max_num_seqs - len(self.running) - sum(len(other.forks) for other in items.values())
            item.forks = siblings[: max(0, places)]
            for late in siblings[len(item.forks) :]:
                self.add(late)
            item.sequence.siblings = []

    def _give(self, sequence: Sequence, rows: int, items: dict[int, Scheduled]) -> bool:
        """Take the blocks for `rows` more rows; whoever has to give way leaves `items`."""
        while not self._has_room(self._blocks_needed(sequence, rows), sequence):
            victim = self.policy.victim(list(self.running.values()))
            self._preempt(victim)
            items.pop(victim.id, None)
            if victim is sequence:
                return False
        item = Scheduled(sequence, sequence.num_computed, rows)
        first = sequence.num_computed // self.block_size
        if first < len(sequence.blocks):
            self._own(sequence, first, item)
        while len(sequence.blocks) * self.block_size < sequence.num_computed + rows:
            sequence.blocks.append(self.pool.allocate())
        items[sequence.id] = item
        return True

    def _own(self, sequence: Sequence, index: int, item: Scheduled) -> None:
        """Before a half-full block is written: copy it if others share it (copy-on-write)."""
        block = sequence.blocks[index]
        if self.pool.references(block) > 1:
            target = self.pool.allocate()
            item.copies.append((block, target))
            sequence.blocks[index] = target
            self.pool.release([block])
        else:
            self.prefix_cache.forget(block)  # it was full, and findable, before the sequence was cut

    def _blocks_needed(self, sequence: Sequence, rows: int) -> int:
        new = -(-(sequence.num_computed + rows) // self.block_size) - len(sequence.blocks)
        first = sequence.num_computed // self.block_size
        shared = first < len(sequence.blocks) and self.pool.references(sequence.blocks[first]) > 1
        return new + shared

    def _match_prefix(self, sequence: Sequence) -> None:
        if not self.prefix_caching:
            return
        blocks, digests = self.prefix_cache.match(
            sequence.tokens, self.block_size, sequence.cache_salt, sequence.cache_limit
        )
        self.pool.share(blocks)
        sequence.blocks, sequence.digests = blocks, digests
        sequence.num_computed = len(blocks) * self.block_size

    def _has_room(self, needed: int, but: Sequence) -> bool:
        """Whether `needed` blocks are free, after taking back what parked and waiting sequences hold."""
        while self.pool.num_free < needed:
            holder = next((s for s in self.parked.values() if s.blocks), None)
            if holder is None:
                holders = [s for s in self.waiting.values() if s.blocks and s is not but]
                if not holders:
                    return False
                holder = self.policy.victim(holders)
            self._free(holder)
        return True

    def _preempt(self, victim: Sequence) -> None:
        """The victim's blocks go back (to the prefix cache, where they may still be found); it waits and recomputes."""
        self.num_preemptions += 1
        del self.running[victim.id]
        victim.status = Status.WAITING
        self.waiting[victim.id] = victim
        self._free(victim)

    def _free(self, sequence: Sequence) -> None:
        self.pool.release(reversed(sequence.blocks))
        sequence.blocks = []
        sequence.digests = []
        sequence.num_computed = 0

    def _leave(self, sequence: Sequence) -> None:
        for queue in (self.waiting, self.running, self.parked):
            queue.pop(sequence.id, None)
