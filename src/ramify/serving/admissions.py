"""`Admissions`: the queue in front of each engine of a server, for tasks; see `admission` for its rules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ramify.engine.engine import Engine
from ramify.serving.admission import AdmissionLimits, AdmissionQueue, QueueState, Ticket
from ramify.serving.config import ServerConfig
from ramify.serving.models import ServedModel
from ramify.serving.pace import Pace

OBSERVE_EVERY_S = 0.25


class Admission:
    """The queue of one engine, for tasks.

    Args:
        limits: its bounds.
    """

    def __init__(self, limits: AdmissionLimits) -> None:
        self.pace = Pace()
        self.queue = AdmissionQueue(limits, self.pace)
        self._turns: dict[Ticket, asyncio.Future[None]] = {}
        self._observed_s = 0.0

    def observe(self, engine: Engine) -> None:
        """Learn the engine's pace; cheap enough for every request."""
        if time.monotonic() - self._observed_s >= OBSERVE_EVERY_S:
            self._observed_s = time.monotonic()
            self.pace.observe(engine.stats())

    @asynccontextmanager
    async def slot(self, ticket: Ticket, patience_s: float | None = None) -> AsyncIterator[None]:
        """Wait for a turn, and hold the slot inside.

        Raises:
            Refused: at once, if it is not let in.
        """
        self.queue.offer(ticket, patience_s)
        turn = self._turns[ticket] = asyncio.get_running_loop().create_future()
        self._start()
        try:
            await turn
            yield
        finally:
            self._turns.pop(ticket, None)
            self.queue.leave(ticket)
            self._start()

    def set_paused(self, paused: bool) -> None:
        """Start nothing new; or go on."""
        self.queue.paused = paused
        self._start()

    def _start(self) -> None:
        for ticket in self.queue.start():
            turn = self._turns[ticket]
            if not turn.done():
                turn.set_result(None)


class Admissions:
    """The queues of all engines of a server, made as they are asked for.

    Args:
        config: the server's.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._by_model: dict[str, Admission] = {}
        self.paused = False

    def set_paused(self, paused: bool) -> None:
        """Start nothing new at any engine, so that requests wait in their queues; or go on."""
        self.paused = paused
        for admission in self._by_model.values():
            admission.set_paused(paused)

    def of(self, model: ServedModel) -> Admission:
        """The queue of a model's engine, with what is known of its pace by now."""
        if model.name not in self._by_model:
            config = self._config
            limits = AdmissionLimits(
                model.engine.config.max_num_seqs,
                config.max_waiting,
                config.max_waiting_tokens,
                config.max_waiting_share,
            )
            self._by_model[model.name] = Admission(limits)
            self._by_model[model.name].set_paused(self.paused)
        admission = self._by_model[model.name]
        admission.observe(model.engine)
        return admission

    def states(self) -> dict[str, QueueState]:
        """Of the queues, by public name."""
        return {name: admission.queue.state() for name, admission in self._by_model.items()}
