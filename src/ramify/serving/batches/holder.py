"""Names of servers on leases, from which a later server on the same machine can tell that one was killed.

Elsewhere a killed server's lease simply expires.
"""

from __future__ import annotations

import os
import platform
import secrets
import uuid
from pathlib import Path

import psutil

_SAME_START_S = 2.0
"""A process's start is known to about the clock's own corrections."""


def holder_name(pid: int | None = None) -> str:
    """A new name for this process (or another one): where it runs, its number, its start, and something of its own."""
    process = psutil.Process(pid)
    return f"{_place()}/{process.pid}/{process.create_time():.2f}/{secrets.token_hex(8)}"


def is_gone(holder: str) -> bool:
    """Whether the process of a name has surely ended; False where that cannot be seen from here."""
    parts = holder.split("/")
    if len(parts) != 4:
        return False
    place, pid, started, _ = parts
    if place != _place():
        return False
    try:
        process = psutil.Process(int(pid))
        ended = process.status() == psutil.STATUS_ZOMBIE
        return ended or abs(process.create_time() - float(started)) > _SAME_START_S
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _place() -> str:
    """Where process numbers mean the same: a machine between two starts, and a container on it."""
    if platform.system() == "Linux":
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{os.readlink('/proc/self/ns/pid')}"
    return f"{platform.node()}:{uuid.getnode():x}".replace("/", "_")
