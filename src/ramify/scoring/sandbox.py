"""Running untrusted Python: a process of its own behind walls that hold for root too, and an honest word on its end.

Whoever judges programs (code equivalence, rule checks, tests as scorers) runs them here. A program gets an own process
tree, root file system, user and empty network, limits on everything it could use up, and nothing of the caller's
environment. What cannot be given is an error, never a weaker wall without a word.
"""

from __future__ import annotations

import json
import os
import platform
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from ramify.errors import CapabilityError, ConfigError

Outcome = Literal["ok", "error", "timeout", "memory", "output", "forbidden"]
Isolation = Literal["full", "process"]

MIB = 1024 * 1024
SETUP_S = 60.0  # for building the walls, before the program's own clock starts
END_S = 10.0  # for the kernel to take everything down
_CHUNK = 65536
_LAUNCHER = Path(__file__).with_name("sandbox_launcher.py")
_SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache")
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}  # sets print alike in every run
_ARGUMENTS = ["-s", "-S", "-P", "-B", "-X", "utf8"]
_MEMORY = re.compile(r"(?:\w+\.)*MemoryError\b")
_FORBIDDEN = re.compile(
    r"PermissionError\b|BlockingIOError: \[Errno 11\]|RuntimeError: can't start new thread"
    r"|OSError: \[Errno (?:24|27|28|30|101)\]"
)


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """How a program ended.

    Attributes:
        outcome: "ok" (exit status 0), "error" (another one, or a signal), "timeout" (wall or CPU time), "memory" (it
            ended on a MemoryError), "output" (it wrote more than the limit), "forbidden" (it ended on the refusal of
            something that the sandbox does not give). A program that catches a refusal and goes on is "ok".
        stdout, stderr: what it wrote, at most the limit, undecodable bytes replaced.
        exit_code: its exit status; None where it was killed.
        signal: what killed it, where it was killed.
        isolation: the walls it ran behind.
    """

    outcome: Outcome
    stdout: str
    stderr: str
    exit_code: int | None
    signal: int | None
    isolation: Isolation


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Walls and limits for programs; `run` may be called from several threads.

    Attributes:
        wall_s: seconds from its start.
        cpu_s: seconds of CPU time, for each process.
        memory_bytes: address space, for each process.
        processes: processes and threads at a time, its own included.
        file_bytes: the largest file.
        disk_bytes: all files in its folder together; they are in memory.
        open_files: file descriptors.
        output_bytes: standard output and error together.
        isolation: "full": own PID, mount, network, IPC and host namespaces, a root of read-only mounts, an
            unprivileged user, limits and a system call filter. "process", where the machine forbids namespaces: limits
            and the filter only (no network, no signals, no new processes), but the program can read the user's files,
            and write them unless the caller is root (then it runs as an unprivileged user).

    Raises:
        ConfigError: a limit cannot work.
    """

    wall_s: float = 5.0
    cpu_s: int = 5
    memory_bytes: int = 256 * MIB
    processes: int = 1
    file_bytes: int = 4 * MIB
    disk_bytes: int = 16 * MIB
    open_files: int = 32
    output_bytes: int = MIB
    isolation: Isolation = "full"

    def __post_init__(self) -> None:
        for name in ("wall_s", "cpu_s", "processes", "file_bytes", "disk_bytes", "output_bytes"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}={getattr(self, name)} does not work: it must be above 0")
        if self.memory_bytes < 32 * MIB:
            raise ConfigError(f"memory_bytes={self.memory_bytes} does not work: Python itself needs {32 * MIB}")
        if self.open_files < 8:
            raise ConfigError(f"open_files={self.open_files} does not work: Python itself needs 8")
        if self.isolation == "process" and self.processes != 1:
            raise ConfigError(
                f"processes={self.processes} needs isolation=full: without a PID namespace what is left running cannot "
                "be found"
            )

    def run(self, source: str, stdin: str = "") -> ProgramRun:
        """Run a program to its end; it has the standard library and its own folder, the current one.

        Raises:
            CapabilityError: this machine cannot build the walls asked for; nothing was run.
        """
        _check_platform()
        with _folder() as folder, _readable(stdin) as input_fd, _readable(self._order(source, folder)) as order_fd:
            report_fd, their_report_fd = os.pipe()
            launched = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", str(_LAUNCHER), str(order_fd), str(their_report_fd)],
                stdin=input_fd,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(order_fd, their_report_fd),
                start_new_session=True,
                env=_ENVIRONMENT,
            )
            os.close(their_report_fd)
            try:
                return _Watch(self, launched, report_fd).to_the_end()
            finally:
                _take_down(launched)
                os.close(report_fd)

    def _order(self, source: str, folder: str) -> str:
        python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
        here = folder if self.isolation == "process" else "/box"
        order = {
            "source": source,
            "folder": folder,
            "isolation": self.isolation,
            "processes": self.processes,
            "cpu_s": self.cpu_s,
            "memory_bytes": self.memory_bytes,
            "file_bytes": self.file_bytes,
            "disk_bytes": self.disk_bytes,
            "open_files": self.open_files,
            "python": python,
            "arguments": _ARGUMENTS,
            "environment": {**_ENVIRONMENT, "HOME": here, "TMPDIR": here},
            "readable": _readable_paths(os.path.realpath(sys.base_prefix)),
        }
        return json.dumps(order)


class _Watch:
    """Reads a running program's output and its launcher's reports until the end, a limit or the deadline."""

    def __init__(self, sandbox: Sandbox, launched: subprocess.Popen[bytes], report_fd: int) -> None:
        assert launched.stdout is not None
        assert launched.stderr is not None
        self._sandbox = sandbox
        self._report_fd = report_fd
        self._streams: dict[int, bytearray] = {report_fd: bytearray()}
        self._out, self._err = launched.stdout.fileno(), launched.stderr.fileno()
        for fd in (self._out, self._err):
            self._streams[fd] = bytearray()
        self._started_s: float | None = None

    def to_the_end(self) -> ProgramRun:
        """Watch, then say what happened."""
        stopped: Outcome | None = None
        launched_s = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for fd in self._streams:
                selector.register(fd, selectors.EVENT_READ)
            while selector.get_map() and stopped is None:
                if self._started_s is None:
                    left = launched_s + SETUP_S - time.monotonic()
                else:
                    left = self._started_s + self._sandbox.wall_s - time.monotonic()
                if left <= 0:
                    stopped = "timeout"
                    break
                for key, _ in selector.select(left):
                    if not self._read(key.fd):
                        selector.unregister(key.fd)
                if len(self._streams[self._out]) + len(self._streams[self._err]) > self._sandbox.output_bytes:
                    stopped = "output"
        return self._verdict(stopped)

    def _read(self, fd: int) -> bool:
        data = os.read(fd, _CHUNK)
        self._streams[fd] += data
        if fd == self._report_fd and self._started_s is None and "started" in self._events():
            self._started_s = time.monotonic()
        return bool(data)

    def _events(self) -> dict[str, Any]:
        lines = self._streams[self._report_fd].split(b"\n")[:-1]
        events: dict[str, Any] = {}
        for line in lines:
            events |= json.loads(line)
        return events

    def _verdict(self, stopped: Outcome | None) -> ProgramRun:
        events = self._events()
        out, err = (bytes(self._streams[fd]) for fd in (self._out, self._err))
        if "refused" in events or "started" not in events:
            why = events.get("refused") or err.decode(errors="replace").strip()[-500:] or "no answer of the launcher"
            full = self._sandbox.isolation == "full"
            remedy = (
                "allow unprivileged user namespaces, or accept weaker walls with isolation='process'"
                if full
                else "give the interpreter's folder to every user, or do not run as root"
            )
            raise CapabilityError(f"this machine refuses isolation={self._sandbox.isolation!r} ({why}): {remedy}")
        limit = self._sandbox.output_bytes
        texts = out[:limit].decode(errors="replace"), err[: max(0, limit - len(out))].decode(errors="replace")
        status: int | None = events.get("status")
        if status is None:
            return ProgramRun(stopped or "error", *texts, None, signal.SIGKILL, self._sandbox.isolation)
        outcome = stopped or self._outcome(status, events["cpu_s"], texts[1])
        killed_by = -status if status < 0 else None
        return ProgramRun(outcome, *texts, status if status >= 0 else None, killed_by, self._sandbox.isolation)

    def _outcome(self, status: int, cpu_s: float, errors: str) -> Outcome:
        if status == 0:
            return "ok"
        if status == -signal.SIGXCPU or (status == -signal.SIGKILL and cpu_s >= self._sandbox.cpu_s):
            return "timeout"
        last_line = errors.rstrip().rpartition("\n")[2]
        if _MEMORY.match(last_line):
            return "memory"
        if status == -signal.SIGSYS or _FORBIDDEN.match(last_line):
            return "forbidden"
        return "error"


def _take_down(launched: subprocess.Popen[bytes]) -> None:
    """End the launcher and everything below it, and wait until it is gone."""
    launched.terminate()
    try:
        launched.wait(END_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(launched.pid, signal.SIGKILL)
        launched.wait()
    for stream in (launched.stdout, launched.stderr):
        assert stream is not None
        stream.close()


@contextmanager
def _folder() -> Iterator[str]:
    """An empty folder that is gone afterwards, whatever a program has done to it."""
    folder = tempfile.mkdtemp(prefix="ramify-sandbox-")
    try:
        yield folder
    finally:
        for path, folders, _ in os.walk(folder):
            for name in folders:
                if not os.path.islink(os.path.join(path, name)):
                    os.chmod(os.path.join(path, name), 0o700)
        shutil.rmtree(folder)


@contextmanager
def _readable(text: str) -> Iterator[int]:
    """A descriptor from which a text can be read, and nothing be written."""
    with tempfile.NamedTemporaryFile() as file:
        _write(file, text)
        fd = os.open(file.name, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def _write(file: IO[bytes], text: str) -> None:
    file.write(text.encode(errors="surrogatepass"))
    file.flush()


def _readable_paths(prefix: str) -> list[str]:
    """What the program sees of the machine: the system's libraries, and Python where it is not among them."""
    paths = [path for path in _SYSTEM if os.path.lexists(path)]
    return paths if any(prefix == path or prefix.startswith(path + "/") for path in paths) else [*paths, prefix]


def _check_platform() -> None:
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ("x86_64", "aarch64"):
        raise CapabilityError(
            f"untrusted programs can be run on Linux on x86_64 or aarch64 only; this is {sys.platform} on {machine}"
        )
