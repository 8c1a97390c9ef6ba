"""How many KV blocks fit: a sum in closed form, which the start-up line and `ramify doctor` print."""

from __future__ import annotations

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
    """

    num_blocks: int
    block_bytes: int
    free_bytes: int
    share: float
    useful_blocks: int
    limited_by: str
    tokens: int

    @property
    def pool_bytes(self) -> int:
        """Size of the pool."""
        return self.num_blocks * self.block_bytes

    def __str__(self) -> str:
        return (
            f"KV pool: {self.num_blocks:,} blocks x {self.block_bytes / 1024:,.0f} KiB = "
            f"{self.pool_bytes / 2**20:,.0f} MiB, {self.tokens:,} tokens (limited by {self.limited_by}: "
            f"the limits can use {self.useful_blocks:,} blocks; {self.share:.0%} of "
            f"{self.free_bytes / 2**20:,.0f} MiB free memory holds "
            f"{int(self.free_bytes * self.share) // self.block_bytes:,})"
        )


def block_bytes(num_layers: int, num_kv_heads: int, head_dim: int, block_size: int, element_bytes: int) -> int:
    """Bytes of one block: keys and values of `block_size` tokens in all layers."""
    return 2 * num_layers * num_kv_heads * head_dim * block_size * element_bytes


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


def size_pool(
    *,
    block_bytes: int,
    block_size: int,
    max_num_seqs: int,
    max_model_len: int,
    free_bytes: int,
    share: float,
    num_blocks: int | None = None,
) -> KVBudget:
    """Size the pool: what memory allows, never more than the limits can use.

    Args:
        num_blocks: a fixed size asked for by the user (the null block not counted).

    Raises:
        ConfigError: not one block fits, or the fixed size does not fit the free memory.
    """
    useful = max_num_seqs * -(-max_model_len // block_size)
    affordable = int(free_bytes * share) // block_bytes - 1
    if num_blocks is not None:
        if (num_blocks + 1) * block_bytes > free_bytes:
            raise ConfigError(
                f"num_kv_blocks={num_blocks} needs {num_blocks * block_bytes / 2**20:,.0f} MiB and "
                f"{free_bytes / 2**20:,.0f} MiB are free: at most {max(0, free_bytes // block_bytes - 1)} blocks fit"
            )
        chosen, reason = num_blocks, "option"
    elif useful <= affordable:
        chosen, reason = useful, "limits"
    else:
        chosen, reason = affordable, "memory"
    if chosen < 1:
        raise ConfigError(
            f"no KV block fits: one needs {block_bytes / 2**20:.1f} MiB and {share:.0%} of "
            f"{free_bytes / 2**20:,.0f} MiB are to be used; free memory or raise gpu_memory_utilization"
        )
    return KVBudget(chosen + 1, block_bytes, free_bytes, share, useful, reason, chosen * block_size)
