"""A Python that has imported the heavy libraries already, and forks for each program: starting one costs nothing more.

The pages of the docs run some sixty programs, each of which would spend seconds on importing torch. A program runs
as it would by itself: in a process, a folder and an environment of its own, with its own standard streams.

    python -m tests.warm_python SOCKET          serve
    python -m tests.warm_python SOCKET ARGS...  run: `-c CODE`, a script's path, or `ramify` and its arguments
"""

from __future__ import annotations

import json
import os
import runpy
import socket
import struct
import sys

_STATUS = struct.Struct("!i")


def serve(path: str) -> None:
    """Take programs until the end of standard input."""
    import matplotlib.figure  # noqa: F401
    import torch  # noqa: F401

    import ramify.backends.local
    import ramify.cli.main
    import ramify.evals.runner
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
    _, status = os.waitpid(child, 0)
    caller.sendall(_STATUS.pack(os.waitstatus_to_exitcode(status)))
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


def ask(path: str, arguments: list[str]) -> int:
    """Have a program run; its exit code."""
    asked = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        socket.send_fds(server, [json.dumps(asked).encode()], [0, 1, 2])
        status = server.recv(_STATUS.size)
    return int(_STATUS.unpack(status)[0])


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    sys.exit(ask(sys.argv[1], sys.argv[2:]))
