"""How many KV blocks fit: a sum in closed form, which the start-up line and `ramify doctor` print.

Models of one process share one budget. Each pool wants what the limits can use; where that is more than the budget,
every pool gets room for the same number of tokens (a reward model reads what the policy writes), and what a model with
a shorter context cannot use of it goes to the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ramify.errors import ConfigError

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_CGROUP_USED = Path("/sys/fs/cgroup/memory.current")


@dataclass(frozen=True, slots=True)
class KVBudget:
    """The sum behind the size of the KV pool. All sizes in bytes.

    Attributes:
        num_blocks: blocks of the pool, the null block included.
        block_bytes: keys and values of one block in all layers.
        free_bytes: free memory that was seen.
        share: part of it that the pool may take.
        useful_blocks: what max_num_seqs sequences of max_model_len tokens can use at most.
        limited_by: "limits", "memory" or "option".
        tokens: what the pool holds.
        pools: how many pools share that part of the memory, this one included.
    """

    num_blocks: int
    block_bytes: int
    free_bytes: int
    share: float
    useful_blocks: int
    limited_by: str
    tokens: int
    pools: int = 1

    @property
    def pool_bytes(self) -> int:
        """Size of the pool."""
        return self.num_blocks * self.block_bytes

    def __str__(self) -> str:
        shared = f", for {self.pools} pools together" if self.pools > 1 else ""
        return (
            f"KV pool: {self.num_blocks:,} blocks x {self.block_bytes / 1024:,.0f} KiB = "
            f"{self.pool_bytes / 2**20:,.0f} MiB, {self.tokens:,} tokens (limited by {self.limited_by}: "
            f"the limits can use {self.useful_blocks:,} blocks; {self.share:.0%} of "
            f"{self.free_bytes / 2**20:,.0f} MiB free memory holds "
            f"{int(self.free_bytes * self.share) // self.block_bytes:,}{shared})"
        )


@dataclass(frozen=True, slots=True)
class PoolWish:
    """What a model's pool is made of, and how much of it could be used.

    Attributes:
        block_bytes: keys and values of one block in all layers.
        useful_blocks: what max_num_seqs sequences of max_model_len tokens can use at most.
    """

    block_bytes: int
    useful_blocks: int


def block_bytes(
    num_layers: int, num_kv_heads: int, head_dim: int, block_size: int, element_bytes: int, row_bytes: int = 0
) -> int:
    """Bytes of one block: keys and values of `block_size` tokens in all layers.

    Args:
        num_layers, num_kv_heads, head_dim: of the model.
        block_size: tokens a block.
        element_bytes: of one element.
        row_bytes: of what is kept beside the elements of one head's key or value, such as a scale.
    """
    return 2 * num_layers * num_kv_heads * block_size * (head_dim * element_bytes + row_bytes)


def free_memory_bytes(device: str = "cpu") -> int:
    """Memory that is free on `device`: on a CPU the machine's, within the control group's limit."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    if _CGROUP_LIMIT.exists() and _CGROUP_USED.exists():
        limit = _CGROUP_LIMIT.read_text().strip()
        if limit != "max":
            free = min(free, max(0, int(limit) - int(_CGROUP_USED.read_text())))
    return free


def size_pools(
    wishes: Sequence[PoolWish], *, block_size: int, free_bytes: int, share: float, num_blocks: int | None = None
) -> list[KVBudget]:
    """Size the pools of the models of one process: what memory allows, never more than the limits can use.

    Args:
        wishes: one a model; blocks of all hold `block_size` tokens.
        free_bytes: free memory, for all of them together.
        share: the part of it that they may take.
        num_blocks: a fixed size of each, asked for by the user (the null blocks not counted).

    Raises:
        ConfigError: not one block of each fits, or the fixed size does not fit the free memory; says what would.
    """
    if num_blocks is not None:
        _check_fixed(wishes, num_blocks, free_bytes)
        sizes = [(num_blocks, "option") for _ in wishes]
    else:
        level = _level(wishes, int(free_bytes * share))
        if level < 1:
            raise ConfigError(_nothing_fits(wishes, free_bytes, share))
        sizes = [
            (wish.useful_blocks, "limits") if wish.useful_blocks <= level else (level, "memory") for wish in wishes
        ]
    return [
        KVBudget(
            chosen + 1,
            wish.block_bytes,
            free_bytes,
            share,
            wish.useful_blocks,
            reason,
            chosen * block_size,
            len(wishes),
        )
        for wish, (chosen, reason) in zip(wishes, sizes, strict=True)
    ]


def _level(wishes: Sequence[PoolWish], budget_bytes: int) -> int:
    """The most blocks that every pool may have, where it can use them, so that all fit."""
    low, high = -1, max(wish.useful_blocks for wish in wishes)
    while low < high:
        level = (low + high + 1) // 2
        needed = sum((min(level, wish.useful_blocks) + 1) * wish.block_bytes for wish in wishes)
        low, high = (level, high) if needed <= budget_bytes else (low, level - 1)
    return low


def _check_fixed(wishes: Sequence[PoolWish], num_blocks: int, free_bytes: int) -> None:
    together = sum(wish.block_bytes for wish in wishes)
    if (num_blocks + 1) * together > free_bytes:
        each = f" in each of {len(wishes)} pools" if len(wishes) > 1 else ""
        raise ConfigError(
            f"num_kv_blocks={num_blocks}{each} needs {num_blocks * together / 2**20:,.0f} MiB and "
            f"{free_bytes / 2**20:,.0f} MiB are free: at most {max(0, free_bytes // together - 1)} blocks fit"
        )


def _nothing_fits(wishes: Sequence[PoolWish], free_bytes: int, share: float) -> str:
    together = sum(wish.block_bytes for wish in wishes)
    subject = (
        "no KV block fits: one needs"
        if len(wishes) == 1
        else f"{len(wishes)} KV pools do not fit: a block of each needs"
    )
    least = math.ceil(2 * together / max(1, free_bytes) * 100) / 100  # a block, and the null block that pads
    remedy = f"raise gpu_memory_utilization to {least:.2f} or more" if least <= 1 else "load fewer or smaller models"
    return (
        f"{subject} {together / 2**20:.1f} MiB, twice that with the block that pads, and {share:.0%} of "
        f"{free_bytes / 2**20:,.1f} MiB are to be used; free memory or {remedy}"
    )
