"""The sandbox: hostile programs meet its walls, and nothing of them is left."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from ramify.errors import CapabilityError, ConfigError
from ramify.scoring.sandbox import MIB, Sandbox

QUICK = Sandbox(wall_s=3, cpu_s=1)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")


@pytest.fixture(autouse=True)
def walls():
    try:
        Sandbox().run("")
    except CapabilityError as error:
        pytest.skip(str(error))


HOSTILE = {
    "fork bomb": ("import os\nwhile True: os.fork()", {"forbidden"}),
    "memory hog": ("held = []\nwhile True: held.append(bytearray(10**6))", {"memory"}),
    "one huge object": ("held = bytearray(10**12)", {"memory"}),
    "endless loop": ("while True: pass", {"timeout"}),
    "a loop that ignores its CPU limit": (
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        {"timeout"},
    ),
    "write outside": ("open('/usr/lib/left-behind', 'w')", {"forbidden"}),
    "write into the root": ("open('/left-behind', 'w')", {"forbidden"}),
    "write to a device that is not there": ("open('/dev/sda', 'w')", {"forbidden"}),
    "fill the disk": ("for i in range(99):\n open(str(i), 'wb').write(bytes(4_000_000))", {"forbidden"}),
    "one huge file": ("open('x', 'wb').write(bytes(50_000_000))", {"forbidden"}),
    "all descriptors": ("held = [open('/dev/null') for _ in range(10_000)]", {"forbidden"}),
    "socket": ("import socket\nsocket.create_connection(('127.0.0.1', 80))", {"forbidden"}),
    "abstract socket": ("import socket\nsocket.socket(socket.AF_UNIX).bind('\\0x')", {"forbidden"}),
    "huge output": ("while True: print('x' * 10_000)", {"output"}),
    "huge errors": ("import sys\nwhile True: sys.stderr.write('x' * 10_000)", {"output"}),
    "daemon": ("import os\nif os.fork() == 0:\n os.setsid()\n while True: pass", {"forbidden"}),
    "threads": ("import threading\nwhile True: threading.Thread(target=input).start()", {"forbidden"}),
    "shell": ("import subprocess\nsubprocess.run(['sh', '-c', 'true'])", {"forbidden"}),
    "deep recursion in C": ("x = ()\nfor _ in range(10**6): x = (x,)\nrepr(x)\nhash(x)", {"error", "memory"}),
    "broken pipe": ("import os\nos.close(1)\nos.close(2)\nraise SystemExit(3)", {"error"}),
    "own death": ("import ctypes\nctypes.string_at(0)", {"error"}),
}


def with_status(source):
    """What became of `errno` where a C call was refused."""
    return "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n" + source


def test_a_program_gives_its_output_and_reads_its_input():
    run = QUICK.run("print(int(input()) + 1)", "41\n")
    assert (run.outcome, run.stdout, run.stderr, run.exit_code, run.signal) == ("ok", "42\n", "", 0, None)


def test_an_exception_and_an_exit_status_are_errors():
    run = QUICK.run("import sys\nprint('before')\n1 / 0")
    assert (run.outcome, run.exit_code, run.stdout) == ("error", 1, "before\n")
    assert run.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
    assert QUICK.run("raise SystemExit(7)").exit_code == 7
    assert QUICK.run("def broken(").outcome == "error"


def test_sleeping_takes_wall_time_only_and_is_stopped_too():
    run = Sandbox(wall_s=0.5, cpu_s=5).run("import time\nprint('here', flush=True)\ntime.sleep(1000)")
    assert (run.outcome, run.stdout) == ("timeout", "here\n")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_are_stopped_and_reported_as_what_they_were(name):
    source, outcomes = HOSTILE[name]
    assert QUICK.run(source).outcome in outcomes


def test_limits_can_be_wider():
    fork = "import os\npid = os.fork()\nif pid: print(os.waitpid(pid, 0)[1])"
    assert QUICK.run(fork).outcome == "forbidden"
    assert Sandbox(processes=4).run(fork).stdout == "0\n"
    hog = "print(len(bytearray(300_000_000)))"
    assert QUICK.run(hog).outcome == "memory"
    assert Sandbox(memory_bytes=512 * MIB).run(hog).stdout == "300000000\n"


def test_with_more_processes_a_fork_bomb_meets_their_number():
    count = "import os, time\nn = 0\nwhile True:\n try: pid = os.fork()\n except OSError: break\n"
    count += " if pid == 0: time.sleep(100)\n n += 1\nprint(n)"
    assert Sandbox(processes=6).run(count).stdout == "5\n"
    bomb = "import os\nwhile True:\n try: os.fork()\n except OSError: pass"
    assert Sandbox(processes=6, wall_s=1).run(bomb).outcome == "timeout"


def test_processes_left_running_die_with_the_program():
    daemon = (
        "import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  time.sleep(1000)\n os._exit(0)\n"
    )
    before = set(psutil.pids())
    assert Sandbox(processes=4).run(daemon + "print('done')").stdout == "done\n"
    assert not [p for p in set(psutil.pids()) - before if _is_program(p)]


def test_the_caller_cannot_be_signalled_nor_seen():
    assert QUICK.run("import os\nos.kill(os.getppid(), 9)\nos.kill(-1, 9)\nprint(os.getppid())").stdout in ("1\n", "")
    run = QUICK.run(f"import os\nos.kill({os.getpid()}, 0)")
    assert "ProcessLookupError" in run.stderr
    assert QUICK.run("import os\nprint(os.path.exists('/proc/1'), os.path.exists('/home'))").stdout == "False False\n"


def test_the_program_is_nobody_and_gets_no_privilege_back():
    assert QUICK.run("import os\nos.setuid(0)").outcome == "forbidden" or os.geteuid() != 0
    for flags in (0x10000000, 0x00020000, 0x20000000, 0x40000000):
        assert QUICK.run(with_status(f"print(libc.unshare({flags}))")).stdout == "-1\n"
    assert QUICK.run(with_status("print(libc.mount(b'tmpfs', b'/box', b'tmpfs', 0, None))")).stdout == "-1\n"
    assert QUICK.run(with_status("print(libc.chroot(b'/box'))")).stdout == "-1\n"
    assert QUICK.run(with_status("print(libc.shmget(0, 2**30, 0o1600))")).stdout == "-1\n"
    assert QUICK.run(with_status("print(libc.memfd_create(b'x', 0))")).stdout == "-1\n"


def test_a_new_process_cannot_take_a_namespace_along():
    clone = with_status("print(libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0))")
    assert Sandbox(processes=4).run(clone).stdout == "-1\n"


def test_nothing_of_the_callers_environment_and_folders_is_seen(monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET_TOKEN", "secret")
    (tmp_path / "note").write_text("secret")
    seen = QUICK.run(f"import os\nprint(dict(os.environ), os.path.exists({str(tmp_path / 'note')!r}))").stdout
    assert "secret" not in seen.lower()
    assert seen.endswith("False\n")


def test_a_program_writes_in_its_own_folder_and_the_folder_is_gone():
    run = QUICK.run("import os, tempfile\nopen('x', 'w').write('kept')\nprint(open('/tmp/x').read(), os.getcwd())")
    assert run.stdout == "kept /box\n"
    assert QUICK.run("import os\nprint(os.path.exists('x'))").stdout == "False\n"


def test_output_is_bounded_and_kept_up_to_the_bound():
    run = Sandbox(output_bytes=1000).run("print('x' * 100_000)")
    assert run.outcome == "output"
    assert run.stdout == "x" * 1000
    assert Sandbox(output_bytes=1000).run("print('x' * 999)").outcome == "ok"


def test_sets_print_alike_in_every_run():
    assert len({QUICK.run("print({'a', 'b', 'c', 'd', 'e'})").stdout for _ in range(4)}) == 1


def test_text_that_is_not_unicode_does_no_harm():
    assert QUICK.run("import sys\nsys.stdout.buffer.write(b'\\xff\\xfe')").stdout == "\ufffd\ufffd"
    assert QUICK.run("print(1) # \udc80").outcome in ("ok", "error")


@pytest.mark.parametrize(
    "options",
    [
        {"wall_s": 0},
        {"cpu_s": 0},
        {"processes": 0},
        {"memory_bytes": MIB},
        {"open_files": 2},
        {"isolation": "process", "processes": 2},
    ],
)
def test_limits_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError, match=next(reversed(options))):
        Sandbox(**options)


def test_walls_that_cannot_be_built_are_an_error_and_nothing_runs(monkeypatch, tmp_path):
    broken = tmp_path / "launcher.py"
    source = Path("src/ramify/scoring/sandbox_launcher.py").read_text()
    broken.write_text(
        source.replace(
            "def _enter_namespaces() -> None:", "def _enter_namespaces():\n    raise OSError(1, 'none here')"
        )
    )
    monkeypatch.setattr("ramify.scoring.sandbox._LAUNCHER", broken)
    with pytest.raises(CapabilityError, match=r"none here.*isolation='process'"):
        QUICK.run("print('ran')")


def test_the_weaker_walls_say_so_and_still_hold_what_they_promise():
    weak = Sandbox(wall_s=3, cpu_s=1, isolation="process")
    try:
        run = weak.run("import os\nopen('x', 'w').write('y')\nprint(os.getcwd())")
    except CapabilityError as error:
        pytest.skip(str(error))
    assert (run.outcome, run.isolation) == ("ok", "process")
    assert not Path(run.stdout.strip()).exists()
    for name in ("fork bomb", "memory hog", "endless loop", "socket", "daemon", "threads", "huge output"):
        source, outcomes = HOSTILE[name]
        assert weak.run(source).outcome in outcomes
    assert weak.run(f"import os\nos.kill({os.getpid()}, 9)").outcome == "forbidden"


def test_many_hostile_programs_at_once_leave_nothing_behind():
    leave_nothing_behind(programs=40)


def leave_nothing_behind(programs, threads=2):
    """Run hostile programs from several threads; afterwards no process, folder, mount or descriptor is new."""
    sources = [source for source, _ in HOSTILE.values()]
    before = _state()
    sandbox = Sandbox(wall_s=2, cpu_s=1, processes=1)
    wider = Sandbox(wall_s=1, cpu_s=1, processes=6)
    with ThreadPoolExecutor(threads) as pool:
        runs = [pool.submit((wider if i % 7 == 3 else sandbox).run, sources[i % len(sources)]) for i in range(programs)]
        outcomes = [run.result().outcome for run in runs]
    deadline = time.monotonic() + 10
    while _state() != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _state() == before
    return outcomes


def _state():
    """What a sandbox could leave: programs, folders, mounts, descriptors of this process."""
    folders = sorted(path.name for path in Path(os.environ.get("TMPDIR", "/tmp")).glob("ramify-sandbox-*"))
    mounts = Path("/proc/self/mounts").read_text()
    return [p for p in psutil.pids() if _is_program(p)], folders, mounts, len(os.listdir("/proc/self/fd"))


def _is_program(pid):
    try:
        command = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return "program.py" in command or any("sandbox_launcher" in part for part in command)
