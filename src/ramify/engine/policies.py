"""Scheduling policies: who runs next, and who gives way when the KV pool is full."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as AbstractSequence
from typing import Protocol

from ramify.engine.sequence import Sequence
from ramify.registry import register


class Policy(Protocol):
    """Orders waiting sequences and chooses victims. It sees sizes, ages, priorities and programs."""

    def order(self, waiting: Iterable[Sequence]) -> list[Sequence]:
        """Waiting sequences, first to run first."""
        ...

    def victim(self, running: AbstractSequence[Sequence]) -> Sequence:
        """Of the running sequences (not empty), the one that gives its blocks back."""
        ...


@register("fcfs", kind="policy", trade="lossless", page="techniques/scheduling.md")
class FirstComeFirstServed:
    """Oldest first; the youngest gives way. A preempted sequence keeps its age, and so its place."""

    def order(self, waiting: Iterable[Sequence]) -> list[Sequence]:
        """By arrival."""
        return sorted(waiting, key=lambda sequence: sequence.arrival)

    def victim(self, running: AbstractSequence[Sequence]) -> Sequence:
        """The youngest."""
        return max(running, key=lambda sequence: sequence.arrival)


@register("priority", kind="policy", trade="lossless", page="techniques/scheduling.md")
class Priority:
    """Lower priority number first, oldest first among equals; the last in that order gives way."""

    def order(self, waiting: Iterable[Sequence]) -> list[Sequence]:
        """By priority, then arrival."""
        return sorted(waiting, key=lambda sequence: (sequence.priority, sequence.arrival))

    def victim(self, running: AbstractSequence[Sequence]) -> Sequence:
        """The last in order."""
        return max(running, key=lambda sequence: (sequence.priority, sequence.arrival))
