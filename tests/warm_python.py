"""A Python that has imported the heavy libraries already, and forks for each program: starting one costs nothing more.

The pages of the docs run some sixty programs, other tests kill theirs again and again, and each would spend seconds
on importing torch. A program runs as it would by itself: in a process, a folder and an environment of its own, with its
own standard streams.

    python -m tests.warm_python SOCKET          serve
    python -m tests.warm_python SOCKET ARGS...  run: `-c CODE`, a script's path, or `ramify` and its arguments

`Program` is the second for tests that want its process.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import struct
import sys
from collections.abc import Mapping, Sequence

_NUMBER = struct.Struct("!i")


def serve(path: str) -> None:
    """Take programs until the end of standard input."""
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_svg  # noqa: F401
    import torch  # noqa: F401

    import ramify.backends.local
    import ramify.cli.main
    import ramify.evals.runner
    import ramify.serving.launch
    import ramify.strategies  # noqa: F401

    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen()
        print("ready", flush=True)
        while True:
            caller, _ = door.accept()
            if os.fork() == 0:
                _serve_one(caller)
            caller.close()
            _reap()


def _serve_one(caller: socket.socket) -> None:
    data, streams, _, _ = socket.recv_fds(caller, 1 << 20, 3)
    asked = json.loads(data)
    child = os.fork()
    if child == 0:
        caller.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        os._exit(_run(asked["arguments"]))
    caller.sendall(_NUMBER.pack(child))
    _, status = os.waitpid(child, 0)
    caller.sendall(_NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _run(arguments: list[str]) -> int:
    """Run a program as the interpreter would; its exit code."""
    name, *rest = arguments
    try:
        if name == "ramify":
            from ramify.cli.main import app

            sys.argv = arguments
            app()
        elif name == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<block>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = arguments
            runpy.run_path(name, run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _reap() -> None:
    """Forget programs that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


class Program:
    """A program that runs.

    Args:
        path: the socket of the Python that forks it.
        arguments: see above.
        environment: ours unless told otherwise.
        streams: its standard ones, as file descriptors.

    Attributes:
        pid: its process.
    """

    def __init__(
        self,
        path: str,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        streams: Sequence[int] = (0, 1, 2),
    ) -> None:
        asked = {"arguments": [*arguments], "folder": os.getcwd(), "environment": {**(environment or os.environ)}}
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(path)
        socket.send_fds(self._server, [json.dumps(asked).encode()], [*streams])
        self.pid = self._number()
        self._code: int | None = None

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit code when it has ended; minus the signal's number if one ended it.

        Raises:
            TimeoutError: it runs on.
        """
        if self._code is None:
            self._server.settimeout(timeout_s)
            self._code = self._number()
            self._server.close()
        return self._code

    def poll(self) -> int | None:
        """The same; None while it runs."""
        try:
            return self.wait(0.0)
        except (BlockingIOError, TimeoutError):
            return None

    def send_signal(self, number: signal.Signals) -> None:
        """Send one unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without warning."""
        self.send_signal(signal.SIGKILL)

    def _number(self) -> int:
        return int(_NUMBER.unpack(self._server.recv(_NUMBER.size))[0])


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    sys.exit(Program(sys.argv[1], sys.argv[2:]).wait())
