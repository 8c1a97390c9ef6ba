"""The block pool: who owns which KV block. Reference counts only; it knows no tensors and no tokens.

Rule: a block is in exactly one of two states. Referenced (count above 0), or free. A free block may still hold a
cached prefix; it is then found again through the prefix cache, or reused when its turn comes (least recently used).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

NULL_BLOCK = 0
"""Rows that pad a batch write here; it is never handed out."""


class BlockPool:
    """`num_blocks` blocks, of which block 0 is the null block.

    Args:
        num_blocks: at least 2.
        on_reuse: called with a block when it is handed out again, so that what was cached in it is forgotten.
    """

    def __init__(self, num_blocks: int, on_reuse: Callable[[int], None] | None = None) -> None:
        if num_blocks < 2:
            raise ValueError(f"num_blocks={num_blocks}: a pool needs the null block and at least one more")
        self.num_blocks = num_blocks
        self.on_reuse = on_reuse
        self._references = [0] * num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_blocks))

    @property
    def num_usable(self) -> int:
        """Blocks that sequences can hold in all."""
        return self.num_blocks - 1

    @property
    def num_free(self) -> int:
        """Blocks nobody references (cached ones included)."""
        return len(self._free)

    def references(self, block: int) -> int:
        """How many tables hold `block`."""
        return self._references[block]

    def allocate(self) -> int:
        """A free block, the least recently used one, with one reference.

        Raises:
            IndexError: no block is free; callers check `num_free` first.
        """
        if not self._free:
            raise IndexError("the block pool is empty")
        block, _ = self._free.popitem(last=False)
        if self.on_reuse is not None:
            self.on_reuse(block)
        self._references[block] = 1
        return block

    def share(self, blocks: Iterable[int]) -> None:
        """One more reference to each block, free cached ones included."""
        for block in blocks:
            if self._references[block] == 0:
                del self._free[block]
            self._references[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """One reference less to each block.

        Callers pass a table's blocks last to first, so that a prefix outlives its continuations in the cache.

        Raises:
            ValueError: a block is released more often than it was taken.
        """
        for block in blocks:
            count = self._references[block]
            if count <= 0:
                raise ValueError(f"block {block} is released but nobody holds it")
            self._references[block] = count - 1
            if count == 1:
                self._free[block] = None

    def check(self, tables: Iterable[Iterable[int]]) -> None:
        """Assert that the references are exactly those of `tables` (used by tests and debug mode).

        Raises:
            AssertionError: a block leaked or is held without being counted.
        """
        counted = [0] * self.num_blocks
        for table in tables:
            for block in table:
                counted[block] += 1
        assert counted == self._references, "block references differ from the tables that exist"
        assert all((count == 0) == (block in self._free) for block, count in enumerate(counted) if block != NULL_BLOCK)
