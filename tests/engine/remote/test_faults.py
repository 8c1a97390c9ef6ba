"""A process that dies, hangs, lies or cannot start: what ran on it fails at once and says why, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.backends.local import LocalBackend, Served
from ramify.config import EngineConfig
from ramify.engine.engine import settle
from ramify.engine.remote import client, messages
from ramify.engine.remote.child import private_folder
from ramify.engine.remote.client import RemoteEngine
from ramify.engine.remote.messages import ProtocolError
from ramify.engine.request import EngineRequest, SequenceOutput
from ramify.errors import CheckpointError, EngineDiedError, EngineError, ModelNotFoundError, RamifyError, RequestError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from ramify.text.tokenizer import load_tokenizer

REQUEST = EngineRequest((5, 6), SamplingParams(max_tokens=None), BranchKey.root(0))
PRETENDER = str(Path(__file__).with_name("pretender.py"))


async def pretend(way: str, silence_s: float = 20.0, first_sign_s: float = 20.0) -> RemoteEngine:
    async with asyncio.timeout(30):
        return await RemoteEngine.start(
            "nano",
            EngineConfig(),
            silence_s=silence_s,
            first_sign_s=first_sign_s,
            command=(sys.executable, PRETENDER, way),
        )


def assert_nothing_left(engine: RemoteEngine) -> None:
    """No process (not even a zombie), no socket, no folder."""
    assert not psutil.pid_exists(engine.pid)
    assert not engine._child._folder.exists()
    assert engine._socket.closed


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("raises", "device caught fire"),
        ("garbage", "cannot be read"),
        ("not a message", "cannot be read"),
        ("stopped", "no sign of life"),
    ],
)
async def test_all_that_runs_fails_at_once_with_the_reason(
    way: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    engine = await pretend(way, silence_s=1.0 if way == "stopped" else 20.0)
    done: asyncio.Future[SequenceOutput] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(20):
        await engine.add(REQUEST, settle(done))
        error = (await done).error
        assert isinstance(error, EngineDiedError)
        assert why in str(error)
        assert await engine.died is error
        with pytest.raises(EngineDiedError):
            await engine.add(REQUEST, settle(done))
        engine.drop([0])
        engine.finish(0)
        await engine.dropped([0])
        await engine.close()
    assert_nothing_left(engine)
    if way == "raises":
        assert "about to fail" in caplog.messages


@pytest.mark.parametrize(
    ("way", "kind", "why"),
    [
        ("wrong token", EngineError, "not the process that was started"),
        ("wrong version", EngineError, "not the process that was started"),
        ("no hello", EngineError, "did not say hello"),
        ("cannot load", CheckpointError, "a tensor is missing"),
        ("silent at the start", EngineDiedError, "no sign of life"),
    ],
)
async def test_what_does_not_start_as_it_should_is_an_error_and_leaves_nothing(
    way: str, kind: type[RamifyError], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [private_folder()]
    monkeypatch.setattr(client, "private_folder", lambda: folders[0])
    with pytest.raises(kind, match=why):
        await pretend(way, first_sign_s=1.0 if way.startswith("silent") else 20.0)
    assert not folders[0].exists()
    assert not [child for child in psutil.Process().children() if PRETENDER in child.cmdline()]


async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    starting = asyncio.create_task(pretend("silent at the start"))
    await asyncio.sleep(0.1)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert not [child for child in psutil.Process().children() if PRETENDER in child.cmdline()]


async def test_a_closed_engine_refuses_and_ends_its_process() -> None:
    engine = await pretend("obeys")
    assert stat.S_IMODE(engine._child._folder.stat().st_mode) == 0o700
    waiting: asyncio.Future[SequenceOutput] = asyncio.get_running_loop().create_future()
    await engine.add(REQUEST, settle(waiting))
    await engine.close()
    await engine.close()
    assert isinstance((await waiting).error, EngineDiedError)
    with pytest.raises(EngineDiedError, match="closed"):
        await engine.add(REQUEST, settle(waiting))
    assert_nothing_left(engine)


def test_the_process_goes_with_its_client_however_that_ends() -> None:
    program = (
        "import asyncio, sys\n"
        "from ramify.config import EngineConfig\n"
        "from ramify.engine.remote.client import RemoteEngine\n"
        "async def main():\n"
        f"    command = (sys.executable, {PRETENDER!r}, 'obeys')\n"
        "    engine = await RemoteEngine.start('nano', EngineConfig(), command=command)\n"
        "    print(engine.pid, engine._child._folder, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    client = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    pid, folder = client.stdout.readline().split()
    process = psutil.Process(int(pid))
    client.kill()
    client.wait()
    process.wait(timeout=20)
    assert not Path(folder).exists()


async def test_killing_the_process_fails_trees_in_flight_and_spares_nobody_elses() -> None:
    engine = await pretend("obeys")
    tokenizer = load_tokenizer(engine.folder)
    backend = LocalBackend.sharing(Served(engine, tokenizer))
    root = await backend.root("Tom", BranchKey.root(0))

    async def grow() -> None:
        async for _ in backend.extend(root, SamplingParams(), 3):
            pass

    growing = asyncio.create_task(grow())
    await asyncio.sleep(0.2)
    os.kill(engine.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        with pytest.raises(EngineDiedError, match="SIGKILL"):
            await growing
        backend.release([root])
        await backend.close()
        await engine.close()
    assert_nothing_left(engine)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_an_error(data: bytes) -> None:
    for read in (messages.read_frame, messages.read_message, messages.read_start, messages.read_line):
        with contextlib.suppress(ProtocolError):
            read(data)
    with contextlib.suppress(RequestError):
        messages.read_command(msgspec.Raw(data))


def test_lengths_that_lie_and_tags_that_nobody_knows_are_errors() -> None:
    news = messages.encode(messages.News([], [], messages.EngineStats()))
    for bad in (news[:-3], news + b"\x00", b"\xdd\xff\xff\xff\xff", b"\x91" * 100_000, messages.encode(["gossip", 1])):
        with pytest.raises(ProtocolError):
            messages.read_message(bad)
    scores = messages.encode(["news", [], [{"sequence_id": 1, "scores": ["<f4", [9, 9], b"1234"]}], []])
    with pytest.raises(ProtocolError):
        messages.read_message(scores)
    for dtype in ("O", "|O8", "V4"):
        with pytest.raises(ProtocolError):
            messages.read_message(
                messages.encode(["news", [], [{"sequence_id": 1, "scores": [dtype, [1], b"12345678"]}], []])
            )


def test_errors_keep_their_class_and_their_message() -> None:
    for error in (RequestError("a"), ModelNotFoundError("b"), EngineError("c")):
        back = messages.error_of(messages.fault_of(error))
        assert type(back) is type(error)
        assert str(back) == str(error)
    assert str(messages.error_of(messages.fault_of(KeyError("x")))) == "KeyError: 'x'"
    assert type(messages.error_of(messages.Fault("SystemExit", "no"))) is EngineError


def test_a_socket_has_a_folder_that_only_its_user_can_enter() -> None:
    folder = private_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(str(folder)) < 90
    folder.rmdir()
