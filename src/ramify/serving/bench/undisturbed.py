"""What keeps a generator of load on time on a machine that it shares with the server."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MOST_POLLED = 0.25
"""Share of the time that a thread which goes before all others may spend polling: that core is lost to the server."""


@contextmanager
def undisturbed(polled: float) -> Iterator[None]:
    """Inside, the thread is not held up: no garbage is searched for, and on Linux it runs before others as soon as it
    has something to do, if it may (root, or CAP_SYS_NICE).

    Args:
        polled: share of the time in which it will poll; above `MOST_POLLED` it stays in line with the others.
    """
    with _no_collections():
        is_first = polled <= MOST_POLLED and _go_first()
        try:
            yield
        finally:
            if is_first:
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _go_first() -> bool:
    if not sys.platform.startswith("linux") or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False  # who has chosen a class for this process keeps it
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return False  # as most users; how late requests were sent is measured either way
    return True


@contextmanager
def _no_collections() -> Iterator[None]:
    """On a heap of some size a collection takes milliseconds."""
    gc.collect()
    gc.freeze()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
        gc.unfreeze()
