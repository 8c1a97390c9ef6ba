"""The run: every session starts at its own time, whether or not the server keeps up, and the server is watched.

One thread does it all: it sends what is due, stamps what comes, and only while nothing comes reads the answers and
prepares the requests of the next moments. It sleeps until shortly before a request is due and then polls.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from ramify.errors import ConfigError
from ramify.serving.bench.address import Address
from ramify.serving.bench.client import Measured, Target, read_answer
from ramify.serving.bench.connection import Exchange
from ramify.serving.bench.plan import Session, Turn
from ramify.serving.bench.undisturbed import undisturbed
from ramify.serving.bench.watch import Moment, Watch
from ramify.serving.bench.wire import Wire

AHEAD_S = 0.5
"""How long before it is due a request is prepared, and a connection is there for it."""
POLL_S = 0.002
"""How long before something is due the generator stops sleeping: waits end up to a millisecond late, and then some."""
CLOSE_S = 0.0001
"""How long before its time a request is taken in hand."""
_LOOK_UP_S = 0.1
"""Longest sleep; how exact time limits are."""
_SAMPLE_WORDS = "river stone garden window paper silver morning engine " * 8


@dataclass(slots=True)
class Load:
    """A run that has ended.

    Attributes:
        requests: in the order in which they were intended.
        started_s: of `time.perf_counter`; the plan's times count from here.
        duration_s: from the start to the end of the last answer.
        moments: the server's own state over time; empty if it has no metrics that are known.
    """

    requests: list[Measured] = field(default_factory=list)
    started_s: float = 0.0
    duration_s: float = 0.0
    moments: list[Moment] = field(default_factory=list)


def drive(
    address: Address,
    target: Target,
    sessions: Sequence[Session],
    max_concurrency: int | None = None,
    on_request: Callable[[Measured], None] | None = None,
    watched: bool = True,
) -> Load:
    """Send all sessions; blocks until the last answer has ended.

    Args:
        max_concurrency: requests in flight at once; more of them wait here, and their wait counts in their latencies.
        on_request: called with each request that has ended, while nothing else is to be done.
        watched: read the server's metrics now and then.

    Raises:
        ConfigError: max_concurrency is not positive.
    """
    if max_concurrency is not None and max_concurrency < 1:
        raise ConfigError(f"max_concurrency={max_concurrency} does not work: it must be 1 or more")
    span_s = max((session.at_s for session in sessions), default=0.0)
    polled = POLL_S * len(sessions) / max(span_s, POLL_S)
    with closing(Wire(address)) as wire, undisturbed(polled):
        run = _Run(wire, address, target, sessions, max_concurrency, on_request)
        run.go(Watch(address) if watched else None)
    load = run.load
    load.requests.sort(key=lambda each: each.intended_s)
    ends = [each.intended_s if each.ended_s is None else each.ended_s for each in load.requests]
    load.duration_s = max(ends, default=load.started_s) - load.started_s
    return load


def tokens_per_word(address: Address, target: Target) -> float:
    """How many tokens of the server's model a word of our prompts takes, by its own count of two prompts.

    Raises:
        ConfigError: it cannot be asked, or does not count tokens.
    """
    counts = []
    for text in (_SAMPLE_WORDS.strip(), (_SAMPLE_WORDS * 2).strip()):
        [measured] = drive(address, target, [Session(0.0, (Turn(text, 1),))], watched=False).requests
        if not measured.ok:
            raise ConfigError(f"{address} does not answer a first request: {measured.error}")
        counts.append(measured.prompt_tokens)
    if counts[1] <= counts[0]:
        raise ConfigError(
            f"{address} does not say how many tokens a prompt has (usage in streams): give --tokens-per-word"
        )
    return (counts[1] - counts[0]) / len(_SAMPLE_WORDS.split())


@dataclass(slots=True)
class _Talk:
    """A session while it runs: which turn is next, and the bytes of its request."""

    session: Session
    turn: int = 0
    said: list[str] = field(default_factory=list)
    data: bytes = b""


class _Run:
    """The state of one run. Times are seconds after its start, except those of requests."""

    def __init__(
        self, wire: Wire, address: Address, target: Target, sessions: Sequence[Session], most: int | None,
        on_request: Callable[[Measured], None] | None,
    ) -> None:  # fmt: skip
        self.load = Load()
        self._wire, self._address, self._target = wire, address, target
        self._most, self._on_request = most, on_request
        self._planned = deque(sorted(sessions, key=lambda session: session.at_s))
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._held: deque[Exchange] = deque()
        self._in_flight: dict[int, tuple[float, Exchange]] = {}
        self._unread: deque[Iterator[None]] = deque()
        self._left = len(sessions)

    def go(self, watch: Watch | None) -> None:
        """All of it."""
        while self._planned and self._planned[0].at_s <= AHEAD_S:
            self._prepare_next()
        warm = len(self._due) if self._most is None else min(self._most, len(self._due))
        if watch is not None:
            self._schedule(watch.first_s, lambda at_s: self._look(watch, at_s))
        self._wire.warm(warm)
        self.load.started_s = time.perf_counter()
        while self._left:
            if not self._wire.wait(self._patience_s()):
                self._use_quiet()
            self._start_due()
            self._check_limits()
        if watch is not None:
            self.load.moments = watch.moments()

    def _now_s(self) -> float:
        return time.perf_counter() - self.load.started_s

    def _schedule(self, at_s: float, start: Callable[[float], None]) -> None:
        heapq.heappush(self._due, (at_s, next(self._numbers), start))

    def _quiet_s(self) -> float:
        """How long nothing is due."""
        next_s = min(self._due[0][0] if self._due else 1e9, self._planned[0].at_s if self._planned else 1e9)
        return next_s - self._now_s()

    def _patience_s(self) -> float:
        """How long to sleep."""
        if self._unread or (self._planned and self._planned[0].at_s - AHEAD_S <= self._now_s()):
            return 0.0
        return min(_LOOK_UP_S, max(0.0, self._quiet_s() - POLL_S))

    def _use_quiet(self) -> None:
        """Nothing has come: do a little of what can wait."""
        if self._planned and self._planned[0].at_s - AHEAD_S <= self._now_s():
            self._prepare_next()
            self._wire.keep_spare(len(self._due) if self._most is None else min(self._most, len(self._due)))
        elif self._unread:
            try:
                next(self._unread[0])
            except StopIteration:
                self._unread.popleft()

    def _prepare_next(self) -> None:
        session = self._planned.popleft()
        self._prepare(_Talk(session), session.at_s)

    def _prepare(self, talk: _Talk, at_s: float) -> None:
        turn = talk.session.turns[talk.turn]
        talk.said.append(turn.text)
        talk.data = self._target.request(self._address, talk.said, turn.max_tokens)
        self._schedule(at_s, lambda at_s: self._send(talk, at_s))

    def _start_due(self) -> None:
        soon_s = self._now_s() + CLOSE_S
        while self._planned and self._planned[0].at_s <= soon_s:
            self._prepare_next()
        while self._due and self._due[0][0] <= soon_s:
            at_s, _, start = heapq.heappop(self._due)
            start(at_s)

    def _send(self, talk: _Talk, at_s: float) -> None:
        measured = Measured(self.load.started_s + at_s, talk.turn)
        exchange = Exchange(talk.data, lambda exchange: self._ended(talk, measured, exchange))
        if self._most is not None and len(self._in_flight) >= self._most:
            self._held.append(exchange)
        else:
            while self._now_s() < at_s:
                pass  # nothing else is done in these last moments
            self._start(exchange)

    def _start(self, exchange: Exchange) -> None:
        self._in_flight[id(exchange)] = (time.perf_counter() + self._address.timeout_s, exchange)
        self._wire.start(exchange)

    def _ended(self, talk: _Talk, measured: Measured, exchange: Exchange) -> None:
        del self._in_flight[id(exchange)]
        if self._held:
            self._start(self._held.popleft())
        self._unread.append(self._read(talk, measured, exchange))

    def _read(self, talk: _Talk, measured: Measured, exchange: Exchange) -> Iterator[None]:
        """Read an answer, a step at a time, and go on with its session."""
        yield from read_answer(measured, exchange)
        self.load.requests.append(measured)
        if self._on_request is not None:
            self._on_request(measured)
        talk.turn += 1
        if not measured.ok or measured.ended_s is None or talk.turn == len(talk.session.turns):
            self._left -= 1
            return
        talk.said.append(measured.text)
        self._prepare(talk, measured.ended_s - self.load.started_s + talk.session.turns[talk.turn].think_s)

    def _check_limits(self) -> None:
        """Give up what takes too long; those in flight stand in the order of their limits."""
        while self._in_flight:
            limit_s, exchange = next(iter(self._in_flight.values()))
            if time.perf_counter() < limit_s:
                return
            self._wire.give_up(exchange, f"no whole answer within {self._address.timeout_s:g} s")

    def _look(self, watch: Watch, at_s: float) -> None:
        def again(exchange: Exchange) -> None:
            if watch.take(exchange, self.load.started_s):
                self._schedule(max(at_s + watch.interval_s, self._now_s()), lambda at_s: self._look(watch, at_s))

        self._wire.start(Exchange(watch.request, again))
