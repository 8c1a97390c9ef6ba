"""The prefix cache: finds the blocks that already hold a prefix of a new sequence.

A full block is named by a 128-bit hash of (parent's name, its tokens); the chain begins at a hash of the tenant's salt,
so tenants with different salts never meet. Blocks stay findable until the pool hands them out again.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

Digest = bytes


def root_digest(salt: str) -> Digest:
    """The name of the empty prefix of a tenant."""
    return hashlib.blake2b(salt.encode(), digest_size=16, person=b"ramify-kv-root").digest()


def child_digest(parent: Digest, tokens: Sequence[int]) -> Digest:
    """The name of the block that holds `tokens` after the prefix named `parent`."""
    return hashlib.blake2b(parent + array("q", tokens).tobytes(), digest_size=16, person=b"ramify-kv-block").digest()


class PrefixCache:
    """Maps names of full blocks to blocks, one to one.

    Attributes:
        query_tokens, hit_tokens: tokens of prompts that were looked up and admitted so far, and those found.
    """

    def __init__(self) -> None:
        self._blocks: dict[Digest, int] = {}
        self._digests: dict[int, Digest] = {}
        self.query_tokens = 0
        self.hit_tokens = 0

    def __len__(self) -> int:
        return len(self._blocks)

    def put(self, digest: Digest, block: int) -> None:
        """Make a computed full block findable. If the prefix is known already, the first block keeps the name."""
        if digest not in self._blocks and block not in self._digests:
            self._blocks[digest] = block
            self._digests[block] = digest

    def holds(self, block: int) -> bool:
        """Whether a block's content can still be found."""
        return block in self._digests

    def forget(self, block: int) -> None:
        """The block's content is about to be overwritten."""
        digest = self._digests.pop(block, None)
        if digest is not None:
            del self._blocks[digest]

    def clear(self) -> None:
        """Forget everything."""
        self._blocks.clear()
        self._digests.clear()

    def match(self, tokens: Sequence[int], block_size: int, salt: str, limit: int) -> tuple[list[int], list[Digest]]:
        """The longest known prefix of `tokens`, in whole blocks and at most `limit` tokens.

        Returns:
            Its blocks and their digests. The caller takes references before anything else is allocated.
        """
        blocks: list[int] = []
        digests: list[Digest] = []
        parent = root_digest(salt)
        for start in range(0, limit - block_size + 1, block_size):
            parent = child_digest(parent, tokens[start : start + block_size])
            block = self._blocks.get(parent)
            if block is None:
                break
            blocks.append(block)
            digests.append(parent)
        return blocks, digests
