"""Counter-based random numbers: every draw is a hash of (branch key, position, stream), never a generator's state.

This is what makes one answer per seed possible: two rows of a batch share nothing, a preempted sequence
repeats its draws, and a fork's draws depend on its path in the tree and not on when it ran.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

UInt64Array = npt.NDArray[np.uint64]
FloatArray = npt.NDArray[np.float64]

_PERSON = b"ramify-branch-01"
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: the increment of SplitMix64
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)  # the two multipliers of SplitMix64's finaliser (Stafford's mix 13)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_STREAM = np.uint64(0xD1B54A32D192ED03)


@dataclass(frozen=True, slots=True)
class BranchKey:
    """128 bits that name a branch: a hash of (seed, problem, path of branch indices)."""

    high: int
    low: int

    @classmethod
    def root(cls, seed: int, problem: str = "") -> BranchKey:
        """The key of the root of `problem` (any text that names it) under `seed`."""
        return _digest(b"root", struct.pack("<q", seed & 0x7FFFFFFFFFFFFFFF), problem.encode())

    def child(self, index: int) -> BranchKey:
        """The key of the `index`-th branch below this one."""
        return _digest(b"child", struct.pack("<QQQ", self.high, self.low, index))

    def named(self, name: str) -> BranchKey:
        """A key for draws that belong to this branch but not to its tokens, e.g. ``"resample"``."""
        return _digest(b"named", struct.pack("<QQ", self.high, self.low), name.encode())


def _digest(*parts: bytes) -> BranchKey:
    digest = hashlib.blake2b(digest_size=16, person=_PERSON)
    for part in parts:
        digest.update(struct.pack("<I", len(part)))
        digest.update(part)
    high, low = struct.unpack("<QQ", digest.digest())
    return BranchKey(high, low)


def key_arrays(keys: Sequence[BranchKey]) -> UInt64Array:
    """Keys as an array of shape [rows, 2], uint64."""
    return np.array([(key.high, key.low) for key in keys], dtype=np.uint64).reshape(-1, 2)


def _mix(x: UInt64Array) -> UInt64Array:
    """SplitMix64's finaliser: a bijection of 64 bits in which every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def uniform(keys: UInt64Array, positions: npt.NDArray[Any], stream: int = 0) -> FloatArray:
    """One number in the open interval (0, 1) per row.

    Args:
        keys: [rows, 2] uint64, from `key_arrays`.
        positions: [rows] integers, the token positions (or any counter).
        stream: tells independent draws of one position apart.

    Returns:
        [rows] float64, a pure function of the three arguments.
    """
    with np.errstate(over="ignore"):
        state = _mix(keys[:, 0] + _GOLDEN * (positions.astype(np.uint64) + np.uint64(1)))
        state = _mix(state ^ (keys[:, 1] + _STREAM * np.uint64(stream + 1)))
        state = _mix(state + _GOLDEN)
    return ((state >> np.uint64(11)).astype(np.float64) + 0.5) * (1.0 / (1 << 53))


def uniform_counters(key: BranchKey, n: int, stream: int = 0) -> FloatArray:
    """`n` numbers of one key: the counters 0 to n-1."""
    keys = np.broadcast_to(key_arrays([key]), (n, 2))
    return uniform(keys, np.arange(n), stream)
