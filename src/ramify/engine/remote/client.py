"""`RemoteEngine`: an engine in a process of its own, as an `Engine` of this one.

What is asked in one turn of the event loop goes over in one message, and all that one step brought comes back in one.
When the process ends, for whatever reason, all that runs on it fails at once; a new process is a new `RemoteEngine`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec
import zmq

from ramify.config import EngineConfig
from ramify.engine.engine import Listener, tell
from ramify.engine.remote import messages
from ramify.engine.remote.child import COMMAND, Child, private_folder
from ramify.engine.remote.messages import (
    Add,
    Append,
    Command,
    Drop,
    Failed,
    Finish,
    Forget,
    Fork,
    Hello,
    Map,
    Message,
    News,
    Numbered,
    ProtocolError,
    Ready,
    Start,
    Stop,
)
from ramify.engine.request import EngineRequest, SequenceOutput, TextStart
from ramify.engine.stats import EngineStats
from ramify.errors import EngineDiedError, RamifyError
from ramify.models.config import ModelConfig
from ramify.models.reward_head import RewardHead
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams, TokenIds

HEARTBEAT_S = 0.5
SILENCE_S = 15.0
"""Without a sign of life for so long a process counts as dead. It gives them during a step too, from a thread."""
FIRST_SIGN_S = 60.0
"""The same for the first one, for which Python has to be started and to find its modules."""
_FRAMES_AT_ONCE = 64
_log = logging.getLogger(__name__)


class RemoteEngine:
    """Made by `start`; used from the event loop that started it.

    Attributes:
        folder: of the checkpoint, for the tokenizer.
        pid: of the process.
        died: done when the process has ended without being asked; holds why. Cancelled by `close`.
    """

    def __init__(self, model: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._model = model
        self._ready: asyncio.Future[Ready] = self._loop.create_future()
        self.died: asyncio.Future[EngineDiedError] = self._loop.create_future()
        self._welcome = False
        self._token = secrets.token_bytes(32)
        self._numbers = itertools.count()
        self._names = itertools.count()
        self._listeners: dict[int, Listener] = {}
        self._answers: dict[int, asyncio.Future[str]] = {}
        self._outbox: list[Numbered] = []
        self._last_words: RamifyError | None = None
        self._closed = False
        self._closing: asyncio.Future[None] | None = None

    @classmethod
    async def start(
        cls,
        model: str | os.PathLike[str],
        config: EngineConfig,
        reward: RewardHead | None = None,
        *,
        silence_s: float = SILENCE_S,
        first_sign_s: float = FIRST_SIGN_S,
        command: Sequence[str] = COMMAND,
    ) -> RemoteEngine:
        """Start a process, and wait until its model is loaded.

        Args:
            model: a bundled name, a checkpoint's folder, or a hub id.
            config: the engine's options.
            reward: set if it shall score.
            silence_s: without a sign of life for so long it counts as dead.
            first_sign_s: the same before its first sign of life.
            command: what is run.

        Raises:
            ModelError, ConfigError: see `load_engine`.
            EngineDiedError: the process ended before it was ready.
        """
        engine = cls(os.fspath(model))
        folder = private_folder()
        try:
            address = f"ipc://{folder}/engine"
            engine._listen(address)
            level = logging.getLogger().getEffectiveLevel()
            heartbeat_s = min(HEARTBEAT_S, silence_s / 4)
            told = Start(address, engine._token, messages.VERSION, engine._model, reward, config, level, heartbeat_s)
            engine._child = Child(told, folder, engine._on_end, silence_s, first_sign_s, command)
        except BaseException:
            engine._hang_up()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        try:
            engine._facts = await engine._ready
        except BaseException:
            await engine.close()
            raise
        engine.folder = Path(engine._facts.folder)
        engine._stats = engine._facts.stats
        _log.info("%s: process %d, %s", engine._model, engine.pid, engine._facts.kv_pool)
        return engine

    _child: Child
    _facts: Ready
    _stats: EngineStats
    folder: Path

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._child.pid

    @property
    def config(self) -> EngineConfig:
        """Its options."""
        return self._facts.config

    @property
    def model_config(self) -> ModelConfig:
        """Shape and options of its model."""
        return self._facts.model_config

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        return self._facts.max_model_len

    @property
    def busy_s(self) -> float:
        """How long its present step takes already, at its last sign of life."""
        return self._child.busy_s

    def stats(self) -> EngineStats:
        """What it had done after its last message, and held then."""
        return self._stats

    async def kv_map(self) -> str:
        """The state of each KV block."""
        return await self._post(Map())

    async def forget_prefixes(self) -> None:
        """Empty the prefix cache."""
        await self._post(Forget())

    async def add(self, request: EngineRequest, listener: Listener, text: TextStart | None = None) -> list[int]:
        """Take a request on; `listener` hears of all its sequences (see `Engine.add`)."""
        names = self._take_names(request.params.n)
        return await self._begin(names, Add(names[0], request, text), listener)

    async def fork_and_extend(
        self,
        sequence_id: int,
        key: BranchKey,
        n: int,
        first_child: int,
        params: SamplingParams,
        listener: Listener,
        append: TokenIds = (),
        score_positions: tuple[int, ...] = (),
        score_token_ids: tuple[int, ...] = (),
        text: TextStart | None = None,
    ) -> list[int]:
        """Fork a parked sequence `n` times and let the forks run on (see `EngineCore.fork` and `extend`)."""
        names = self._take_names(n)
        command = Fork(
            names[0], sequence_id, key, n, first_child, params, append, score_positions, score_token_ids, text
        )
        return await self._begin(names, command, listener)

    async def append(self, sequence_id: int, tokens: TokenIds) -> None:
        """Put known tokens behind a parked sequence (see `EngineCore.append`)."""
        await self._post(Append(sequence_id, tokens))

    def finish(self, sequence_id: int) -> None:
        """End a sequence before the next step. Where its text ends, the process did so already."""
        self._post_and_forget(Finish(sequence_id))

    def drop(self, sequence_ids: Collection[int]) -> None:
        """Forget sequences; their blocks are free before the next step that hears of it."""
        if sequence_ids:
            self._post_and_forget(Drop(tuple(sequence_ids)), lambda: self._unlisten(sequence_ids))

    async def dropped(self, sequence_ids: Collection[int]) -> None:
        """The same; returns when nothing will be heard of them any more."""
        if not self._over:
            with contextlib.suppress(EngineDiedError):
                await self._post(Drop(tuple(sequence_ids)))
        self._unlisten(sequence_ids)

    async def close(self) -> None:
        """End the process; what runs fails. Nothing of it is left."""
        if self._closing is None:
            self._closed = True
            self._closing = asyncio.ensure_future(self._end())
        await asyncio.shield(self._closing)

    async def _end(self) -> None:
        if self._is_ready and not self.died.done():
            self._queue(Stop())
            self._flush()
        else:
            self._child.kill()
        self.died.cancel()
        self._fail_all(self._closed_error())
        await self._child.gone()
        self._hang_up()

    @property
    def _is_ready(self) -> bool:
        return self._ready.done() and not self._ready.cancelled() and self._ready.exception() is None

    @property
    def _over(self) -> bool:
        return self._closed or self.died.done()

    # Out

    def _take_names(self, n: int) -> list[int]:
        return list(itertools.islice(self._names, n))

    async def _begin(self, names: list[int], command: Command, listener: Listener) -> list[int]:
        done = self._post(command)
        self._listeners.update(dict.fromkeys(names, listener))
        try:
            await done
        except asyncio.CancelledError:
            await self.dropped(names)  # what runs until then is still heard of
            raise
        except BaseException:
            self._unlisten(names)
            raise
        return names

    def _post(self, command: Command) -> asyncio.Future[str]:
        """Send a command with this turn's message; the future is its answer."""
        self._check_alive()
        answer: asyncio.Future[str] = self._loop.create_future()
        self._answers[self._queue(command)] = answer
        return answer

    def _post_and_forget(self, command: Command, then: Callable[[], None] | None = None) -> None:
        """The same for a command that cannot fail; for an engine that is gone there is nothing to do."""
        if self._over:
            return
        answer = self._post(command)

        def settled(answer: asyncio.Future[str]) -> None:
            if not answer.cancelled():
                answer.exception()
            if then is not None:
                then()

        answer.add_done_callback(settled)

    def _queue(self, command: Command) -> int:
        raw = msgspec.Raw(messages.encode(command))
        number = next(self._numbers)
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(Numbered(number, raw))
        return number

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        if outbox and not self._socket.closed:
            self._socket.send(messages.encode(outbox), zmq.NOBLOCK)
            self._receive()  # the socket's descriptor tells of news only once, and sending may have taken that

    def _check_alive(self) -> None:
        if self._closed:
            raise self._closed_error()
        if self.died.done():
            raise self.died.result()

    def _closed_error(self) -> EngineDiedError:
        return EngineDiedError(f"the engine of {self._model} was closed")

    # In

    def _listen(self, address: str) -> None:
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, messages.MAX_FRAME_BYTES)
        self._socket.bind(address)
        self._loop.add_reader(self._socket.fileno(), self._receive)

    def _hang_up(self) -> None:
        if hasattr(self, "_socket") and not self._socket.closed:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._context.term()

    def _receive(self) -> None:
        """Take what has come, all of it, so that whoever is behind gets several steps' news at once."""
        for _ in range(_FRAMES_AT_ONCE):
            if isinstance(self._last_words, ProtocolError):  # nothing that it says counts any more
                return
            try:
                frame = self._socket.recv(zmq.NOBLOCK)
            except zmq.ZMQError:  # nothing more, or closed meanwhile
                return
            try:
                self._take(messages.read_message(frame))
            except ProtocolError as error:
                self._last_words = error
                self._child.kill()
                return
        self._loop.call_soon(self._receive)

    def _take(self, message: Message) -> None:
        if not self._welcome and not isinstance(message, Hello):
            raise ProtocolError("who connected did not say hello")
        match message:
            case News():
                self._take_news(message)
            case Hello():
                if not hmac.compare_digest(message.token, self._token) or message.version != messages.VERSION:
                    raise ProtocolError(f"who connected is not the process that was started ({message.version!r})")
                self._welcome = True
            case Ready():
                if not self._ready.done():
                    self._ready.set_result(message)
            case Failed():
                self._last_words = messages.error_of(message.fault)

    def _take_news(self, news: News) -> None:
        self._stats = news.stats
        for answer in news.answers:
            waiting = self._answers.pop(answer.number, None)
            if waiting is None or waiting.done():
                continue
            if answer.fault is None:
                waiting.set_result(answer.text)
            else:
                waiting.set_exception(messages.error_of(answer.fault))
        for output in news.outputs:
            self._tell(output)

    def _tell(self, output: SequenceOutput) -> None:
        listener = self._listeners.get(output.sequence_id)
        if output.finish_reason is not None:
            self._listeners.pop(output.sequence_id, None)
        if listener is not None:
            tell(listener, output, self.drop)

    def _unlisten(self, sequence_ids: Collection[int]) -> None:
        for sequence_id in sequence_ids:
            self._listeners.pop(sequence_id, None)

    # The end

    def _on_end(self, reason: str) -> None:
        """The process has ended without being asked: all that runs fails with it."""
        self._receive()  # its last words
        why = f": {self._last_words}" if self._last_words is not None else ""
        error = EngineDiedError(f"the engine process of {self._model} {reason}{why}")
        _log.error("%s", error)
        self.died.set_result(error)
        if not self._ready.done():
            self._ready.set_exception(self._last_words or error)
        self._fail_all(error)

    def _fail_all(self, error: EngineDiedError) -> None:
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_exception(error)
        listeners, self._listeners = self._listeners, {}
        for sequence_id, listener in listeners.items():
            tell(listener, SequenceOutput(sequence_id, finish_reason="error", error=error), self.drop)
