"""The engine's process: ``python -m ramify.engine.remote.process``, started by its client and by nobody else.

One loop: all commands that have come, then one step, then one message with all that it brought. It never waits while
there is work. It ends when its client says so, and at once when its client is gone: its standard input is a pipe that
closes with the client, however that ends.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import zmq

from ramify.engine.remote import messages
from ramify.engine.remote.messages import Answer, Beat, Failed, Hello, LogLine, Message, News, Ready, Start

_LINGER_MS = 2000
"""How long last words may take to reach the client."""
_LONGEST_TEXT = 20_000
"""Characters of a log record that are handed on; of a longer one, the end."""
_log = logging.getLogger("ramify.engine.remote.process")  # which is not __name__ when it runs


class Pipe:
    """The pipe to the client for signs of life and log lines, which may not wait for a step."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing else that prints gets into it

    def write(self, line: Beat | LogLine) -> None:
        """One line. A client that is gone hears nothing."""
        rest = messages.write_line(line)
        with self._lock, contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]


class PipeHandler(logging.Handler):
    """Hands log records to the client, which writes them in its own format."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, its traceback included."""
        self._pipe.write(LogLine(record.levelno, record.name, self.format(record)[-_LONGEST_TEXT:]))


class Pulse:
    """Shows that the process lives, also during a long step."""

    def __init__(self, pipe: Pipe, interval_s: float) -> None:
        self._pipe = pipe
        self._interval_s = interval_s
        self._since: float | None = None
        threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def busy(self, since: float | None) -> None:
        """A step began then; None: there is none."""
        self._since = since

    def _run(self) -> None:
        while True:
            since = self._since
            self._pipe.write(Beat(0.0 if since is None else time.monotonic() - since))
            time.sleep(self._interval_s)


class Line:
    """The socket to the client."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, messages.MAX_FRAME_BYTES)
        self._socket.connect(address)

    def send(self, message: Message) -> None:
        """Send; the queue has no bound, for the client reads at once what comes."""
        self._socket.send(messages.encode(message))

    def receive(self, wait: bool) -> list[bytes]:
        """All frames that have come; with `wait`, at least one."""
        frames: list[bytes] = []
        if wait:
            frames.append(self._socket.recv())
        with contextlib.suppress(zmq.Again):
            while True:
                frames.append(self._socket.recv(zmq.NOBLOCK))
        return frames

    def close(self) -> None:
        """Send what is left and end."""
        self._socket.close(linger=_LINGER_MS)
        self._context.term()


def serve(start: Start, line: Line, pulse: Pulse) -> None:
    """Load the model and run until the client says stop."""
    import torch

    from ramify.engine.loading import ModelToLoad, load_engines
    from ramify.engine.remote.desk import Desk
    from ramify.text.constraints import Vocabulary
    from ramify.text.tokenizer import load_tokenizer

    ((core, folder),) = load_engines([ModelToLoad(start.model, start.reward)], start.config)
    tokenizer = load_tokenizer(folder)
    if core.grammars is not None and core.model_config.head == "vocabulary" and core.model_config.reward is None:
        core.grammars.warm(Vocabulary.of(tokenizer, core.model_config.eos_token_ids))
    desk = Desk(core, tokenizer)
    line.send(Ready(core.config, core.model_config, core.max_model_len, str(folder), str(core.kv_budget), core.stats()))
    _log.info("%s runs in process %d, %d threads", start.model, os.getpid(), torch.get_num_threads())
    while not desk.stopping:
        answers: list[Answer] = []
        for frame in line.receive(wait=not core.has_work()):
            answers += map(desk.carry_out, messages.read_frame(frame))
        outputs = []
        if core.has_work():
            pulse.busy(time.monotonic())
            outputs = desk.step()
            pulse.busy(None)
        if answers or outputs:
            line.send(News(answers, outputs, core.stats()))


def _end_with_client(address: str) -> None:
    """Wait for the end of standard input, on a thread: the client is gone, and so shall be all that is its."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    shutil.rmtree(Path(address.removeprefix("ipc://")).parent, ignore_errors=True)
    os._exit(0)


def _read_start() -> Start:
    size = int.from_bytes(sys.stdin.buffer.read(8), "big")
    return messages.read_start(sys.stdin.buffer.read(size))


def main() -> int:
    """Run the process; returns its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the client, which ends this process when it is time
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    start = _read_start()
    pipe = Pipe()
    threading.Thread(target=_end_with_client, args=(start.address,), name="watch", daemon=True).start()
    logging.basicConfig(level=start.log_level, handlers=[PipeHandler(pipe)], force=True)
    pulse = Pulse(pipe, start.heartbeat_s)
    line = Line(start.address)
    line.send(Hello(start.token, messages.VERSION))
    try:
        serve(start, line, pulse)
    except Exception as error:
        _log.exception("the engine's process of %s ends", start.model)
        line.send(Failed(messages.fault_of(error)))
        return 1
    finally:
        line.close()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # nothing is left to be done, and a thread of a library may not keep it
