"""What crosses between an engine's process and its client: msgspec structs as msgpack, and nothing else (no pickle).

Whatever arrives is checked against its type. A command that cannot be read costs that command alone; a frame that
cannot be read is a `ProtocolError`, never a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Protocol, TypeVar, get_origin

import msgspec
import numpy as np

import ramify.errors
from ramify.config import EngineConfig
from ramify.engine.request import EngineRequest, SequenceOutput, TextStart
from ramify.engine.stats import EngineStats
from ramify.errors import EngineError, RamifyError, RequestError
from ramify.models.config import ModelConfig
from ramify.models.reward_head import RewardHead
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams, TokenIds

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
VERSION = version("ramify")
"""Both sides are of one installation; anything else is refused at the handshake."""
MAX_FRAME_BYTES = 1 << 30
"""Longer frames are not even received: a million prompt tokens with 20 log-probabilities each are a third of it."""


class ProtocolError(EngineError):
    """The other side sent what it should not."""


class Start(msgspec.Struct, frozen=True):
    """All that a process is told, through its standard input, before it does anything.

    Attributes:
        address: where the client listens.
        token: shows the client who connects.
        version: of the client.
        model: a bundled name, a checkpoint's folder, or a hub id.
        reward: set if it shall score.
        config: options of the engine.
        log_level: least severe of what is logged.
        heartbeat_s: how often to show that it lives.
    """

    address: str
    token: bytes
    version: str
    model: str
    reward: RewardHead | None
    config: EngineConfig
    log_level: int
    heartbeat_s: float


# From the client


class Add(msgspec.Struct, frozen=True, tag="add", array_like=True):
    """`Engine.add`; the sequences are called `first_id`, `first_id` + 1, and so on."""

    first_id: int
    request: EngineRequest
    text: TextStart | None


class Fork(msgspec.Struct, frozen=True, tag="fork", array_like=True):
    """`Engine.fork_and_extend`, likewise."""

    first_id: int
    sequence_id: int
    key: BranchKey
    n: int
    first_child: int
    params: SamplingParams
    append: TokenIds
    score_positions: tuple[int, ...]
    score_token_ids: tuple[int, ...]
    text: TextStart | None


class Append(msgspec.Struct, frozen=True, tag="append", array_like=True):
    """`Engine.append`."""

    sequence_id: int
    tokens: TokenIds


class Finish(msgspec.Struct, frozen=True, tag="finish", array_like=True):
    """`Engine.finish`."""

    sequence_id: int


class Drop(msgspec.Struct, frozen=True, tag="drop", array_like=True):
    """`Engine.drop`."""

    sequence_ids: tuple[int, ...]


class Map(msgspec.Struct, frozen=True, tag="map", array_like=True):
    """`Engine.kv_map`."""


class Forget(msgspec.Struct, frozen=True, tag="forget", array_like=True):
    """`Engine.forget_prefixes`."""


class Stop(msgspec.Struct, frozen=True, tag="stop", array_like=True):
    """End the process."""


Command = Add | Fork | Append | Finish | Drop | Map | Forget | Stop


class Numbered(msgspec.Struct, frozen=True, array_like=True):
    """A command that is still to be read, and the number that its answer will carry."""

    number: int
    command: msgspec.Raw


# From the process


class Fault(msgspec.Struct, frozen=True, array_like=True):
    """An exception, by the name of its class."""

    name: str
    message: str


class Hello(msgspec.Struct, frozen=True, tag="hello", array_like=True):
    """The first word."""

    token: bytes
    version: str


class Ready(msgspec.Struct, frozen=True, tag="ready", array_like=True):
    """The model is loaded.

    Attributes:
        folder: of the checkpoint, for the tokenizer.
        kv_pool: how the KV pool was sized, for people.
    """

    config: EngineConfig
    model_config: ModelConfig
    max_model_len: int
    folder: str
    kv_pool: str
    stats: EngineStats


class Failed(msgspec.Struct, frozen=True, tag="failed", array_like=True):
    """It could not start, or cannot go on; the last word."""

    fault: Fault


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """A command was carried out, or refused; `text` is what it asked for, if anything."""

    number: int
    fault: Fault | None = None
    text: str = ""


class News(msgspec.Struct, frozen=True, tag="news", array_like=True):
    """All that came since the last message: commands carried out, then what one step brought."""

    answers: list[Answer]
    outputs: list[SequenceOutput]
    stats: EngineStats


Message = Hello | Ready | Failed | News


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """A line of the process's pipe: it lives.

    Attributes:
        busy_s: how long the present step runs already.
    """

    busy_s: float


class LogLine(msgspec.Struct, frozen=True, tag="log"):
    """A line of the process's pipe: something for the log."""

    level: int
    name: str
    text: str


def fault_of(error: BaseException) -> Fault:
    """An exception as it crosses: ramify's own keep their class and message."""
    if isinstance(error, RamifyError) and getattr(ramify.errors, type(error).__name__, None) is type(error):
        return Fault(type(error).__name__, str(error))
    return Fault("EngineError", f"{type(error).__name__}: {error}")


def error_of(fault: Fault) -> RamifyError:
    """The exception on the other side."""
    kind = getattr(ramify.errors, fault.name, None)
    if isinstance(kind, type) and issubclass(kind, RamifyError):
        return kind(fault.message)
    return EngineError(f"{fault.name}: {fault.message}")


def encode(value: Any) -> bytes:
    """A message as bytes.

    Raises:
        RequestError: something in it is no number, text or list of these, or is a number beyond 64 bits.
    """
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RequestError(f"the request cannot be handed to the engine's process: {error}") from error


def read_frame(frame: bytes) -> list[Numbered]:
    """The commands in a frame, unread. Raises `ProtocolError`."""
    return _read(_frames, frame)


def read_command(raw: msgspec.Raw) -> Command:
    """One command. Raises `RequestError`: what it says cannot be, which is no fault of the others."""
    try:
        return _read(_commands, raw)
    except ProtocolError as error:
        raise RequestError(f"the engine's process cannot take the request: {error.__cause__}") from error


def read_message(frame: bytes) -> Message:
    """A message of the process. Raises `ProtocolError`."""
    return _read(_messages, frame)


def read_start(frame: bytes) -> Start:
    """What a process is told first. Raises `ProtocolError`."""
    return _read(_starts, frame)


def read_line(line: bytes) -> Beat | LogLine:
    """A line of the pipe. Raises `ProtocolError`."""
    return _read(_lines, line)


def write_line(line: Beat | LogLine) -> bytes:
    """A line of the pipe, with its end."""
    return msgspec.json.encode(line) + b"\n"


class _Decoder(Protocol[T_co]):
    def decode(self, data: Any, /) -> T_co: ...


def _read(decoder: _Decoder[T], data: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, RamifyError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"what arrived cannot be read: {error}") from error


def _to_plain(value: Any) -> Any:
    """Arrays and exceptions as msgpack knows them."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, np.integer | np.floating):
        return value.item()
    if isinstance(value, RamifyError):
        return fault_of(value)
    raise TypeError(f"{type(value).__name__} has no place in a message")


def _from_plain(kind: type, value: Any) -> Any:
    if (get_origin(kind) or kind) is np.ndarray:
        return _array(value)
    if kind is RamifyError:
        return error_of(msgspec.convert(value, Fault))
    raise NotImplementedError(f"{kind} has no place in a message")


def _array(value: Sequence[Any]) -> Any:
    dtype, shape, data = msgspec.convert(value, tuple[str, tuple[int, ...], bytes])
    if dtype not in _DTYPES:
        raise ValueError(f"an array of {dtype!r}")
    return np.frombuffer(data, dtype).reshape(shape)


_DTYPES = ("<f4", "<f8", "<i4", "<i8")
_encoder = msgspec.msgpack.Encoder(enc_hook=_to_plain)
_frames: msgspec.msgpack.Decoder[list[Numbered]] = msgspec.msgpack.Decoder(list[Numbered])
_commands: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_messages: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message, dec_hook=_from_plain)
_starts: msgspec.msgpack.Decoder[Start] = msgspec.msgpack.Decoder(Start)
_lines: msgspec.json.Decoder[Beat | LogLine] = msgspec.json.Decoder(Beat | LogLine)
