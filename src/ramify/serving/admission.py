"""Who starts, who waits and who is sent away: a bounded and fair queue in front of one engine.

`AdmissionQueue` is pure: it owns no clock and no task, and is told of everything. `admissions` has the asyncio of it.
Rules it keeps: what waits is never more than the bounds; no tenant holds more than its share of the queue; lower
priority numbers go first, then whoever has least running, then whoever came first; requests of batches start only when
nobody else waits, and leave some slots free.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ramify.serving.pace import Pace

Reason = Literal["requests", "tokens", "share", "wait"]
RESERVE_OF_SLOTS = 8
"""Batches leave one slot in so many free, for requests that somebody waits for."""


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """Bounds of one engine's queue.

    Attributes:
        slots: sequences that run at once.
        max_requests: that wait at most.
        max_tokens: prompt tokens that wait at most; None for no bound.
        max_share: of both, for one tenant.
    """

    slots: int
    max_requests: int
    max_tokens: int | None = None
    max_share: float = 1.0


@dataclass(frozen=True, slots=True)
class Work:
    """What a request asks of an engine.

    Attributes:
        prompt_tokens: to read.
        sequences: to run at once.
    """

    prompt_tokens: int
    sequences: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A request at the door.

    Attributes:
        owner: whose share it takes; "" where there are no tenants.
        work: what it asks for.
        priority: lower goes first.
        background: of a batch: nobody waits for it.
        number: order of arrival.
    """

    owner: str
    work: Work
    priority: int = 0
    background: bool = False
    number: int = field(default_factory=itertools.count().__next__)

    @property
    def place(self) -> tuple[bool, int, int]:
        """Order among the requests of one owner."""
        return self.background, self.priority, self.number


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue now.

    Attributes:
        waiting: requests in it.
        expected_wait_s: of a request that came now; None if nothing is known yet.
    """

    waiting: int
    expected_wait_s: float | None


class Refused(Exception):  # noqa: N818 - an answer rather than a fault
    """A request was not let in.

    Attributes:
        reason: "requests" or "tokens" (the queue is full), "share" (its owner's part of it is), "wait" (too long).
        wait_s: what it would have had to wait; None if nothing is known yet.
    """

    def __init__(self, reason: Reason, wait_s: float | None) -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.wait_s = wait_s

    @property
    def retry_after_s(self) -> int:
        """For the header of that name: whole seconds, one at least."""
        return max(1, math.ceil(self.wait_s or 0.0))


class AdmissionQueue:
    """The queue in front of one engine.

    Args:
        limits: its bounds.
        pace: of the engine, for estimates.

    Attributes:
        paused: nothing starts; everything waits.
    """

    def __init__(self, limits: AdmissionLimits, pace: Pace) -> None:
        self.limits = limits
        self.pace = pace
        self._waiting: dict[str, list[Ticket]] = {}
        self._running: dict[Ticket, int] = {}
        self._running_of: Counter[str] = Counter()
        self.paused = False

    @property
    def num_waiting(self) -> int:
        """Requests in the queue, those of batches included."""
        return sum(len(tickets) for tickets in self._waiting.values())

    @property
    def num_running(self) -> int:
        """Sequences in their slots."""
        return sum(self._running.values())

    def state(self) -> QueueState:
        """What a scrape is told."""
        expected_s = self._wait_s(Ticket("", Work(0)), list(self._all_waiting()))
        return QueueState(self.num_waiting, expected_s)

    def offer(self, ticket: Ticket, patience_s: float | None = None) -> None:
        """Put a request into the queue, or refuse it. `start` says whose turn it is.

        Args:
            patience_s: how long it may wait; None for however long.

        Raises:
            Refused: it would have to wait, and the queue is full or the wait too long.
        """
        ahead = [other for other in self._all_waiting() if other.place < ticket.place]
        must_wait = bool(ahead) or not self._fits(ticket)
        wait_s = self._wait_s(ticket, ahead)
        if must_wait and not ticket.background:
            self._check_bounds(ticket, wait_s)
        if patience_s is not None and wait_s is not None and wait_s > patience_s:
            raise Refused("wait", wait_s)
        bisect.insort(self._waiting.setdefault(ticket.owner, []), ticket, key=lambda each: each.place)

    def start(self) -> list[Ticket]:
        """Move those whose turn it is into their slots, and name them."""
        started = []
        while (head := self._head()) is not None and self._fits(head):
            self._remove_waiting(head)
            self._running[head] = self._slots(head)
            self._running_of[head.owner] += self._slots(head)
            started.append(head)
        return started

    def leave(self, ticket: Ticket) -> None:
        """A request ended, or gave up waiting."""
        slots = self._running.pop(ticket, None)
        if slots is None:
            self._remove_waiting(ticket)
            return
        self._running_of[ticket.owner] -= slots
        if not self._running_of[ticket.owner]:
            del self._running_of[ticket.owner]

    def _check_bounds(self, ticket: Ticket, wait_s: float | None) -> None:
        waiting = [other for other in self._all_waiting() if not other.background]
        own = [other for other in waiting if other.owner == ticket.owner]
        limits, share = self.limits, self.limits.max_share if ticket.owner else 1.0
        if len(waiting) + 1 > limits.max_requests:
            raise Refused("requests", wait_s)
        if len(own) + 1 > math.ceil(limits.max_requests * share):
            raise Refused("share", wait_s)
        if limits.max_tokens is None:
            return
        if _tokens(waiting) + ticket.work.prompt_tokens > limits.max_tokens:
            raise Refused("tokens", wait_s)
        if _tokens(own) + ticket.work.prompt_tokens > math.ceil(limits.max_tokens * share):
            raise Refused("share", wait_s)

    def _wait_s(self, ticket: Ticket, ahead: list[Ticket]) -> float | None:
        free = self.limits.slots - self.num_running
        sequences = sum(map(self._slots, ahead)) + self._slots(ticket) - free
        return self.pace.wait_s(max(0, sequences) + self.pace.backlog, _tokens(ahead), self.limits.slots)

    def _head(self) -> Ticket | None:
        """The next to start: by kind and priority, then of the owner with the fewest slots, then the oldest."""
        heads = [tickets[0] for tickets in self._waiting.values()]
        return min(
            heads,
            key=lambda each: (each.background, each.priority, self._running_of[each.owner], each.number),
            default=None,
        )

    def _fits(self, ticket: Ticket) -> bool:
        if self.paused:
            return False
        slots = self.limits.slots
        usable = slots - slots // RESERVE_OF_SLOTS if ticket.background else slots
        return self.num_running + self._slots(ticket) <= usable or self.num_running == 0

    def _slots(self, ticket: Ticket) -> int:
        """What it takes; one that is larger than the engine takes all of it."""
        return min(ticket.work.sequences, self.limits.slots)

    def _all_waiting(self) -> Iterator[Ticket]:
        return itertools.chain.from_iterable(self._waiting.values())

    def _remove_waiting(self, ticket: Ticket) -> None:
        tickets = self._waiting.get(ticket.owner, [])
        if ticket in tickets:
            tickets.remove(ticket)
        if not tickets:
            self._waiting.pop(ticket.owner, None)


def _tokens(tickets: list[Ticket]) -> int:
    return sum(ticket.work.prompt_tokens for ticket in tickets)
