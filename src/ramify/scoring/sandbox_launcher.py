"""Runs one untrusted program inside its walls. Started by `sandbox` as a script of its own: standard library only.

This process (the launcher) makes the namespaces and waits. Its child is the first process of the new PID namespace: it
builds a root file system of read-only mounts, starts the program in it with every privilege dropped, and reports how
the program ended. When that child ends the kernel kills whatever the program has left running. At isolation "process"
there are no namespaces: the launcher starts the program itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys
from typing import Any, NoReturn

NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PIDS, NEW_NETWORK, NEW_HOST = (
    0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x04000000,
)  # fmt: skip
ANY_NAMESPACE = NEW_MOUNTS | NEW_IPC | NEW_USER | NEW_PIDS | NEW_NETWORK | NEW_HOST | 0x02000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH, AT_RECURSIVE, AT_FDCWD = 2, 0x8000, -100
MOUNT_SETATTR, PIVOT_ROOT = 442, {"x86_64": 155, "aarch64": 41}
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 4, 24, 38, 22
FIRST_UID = 0x60000000  # far above any account; the launcher's PID is added, so that no two programs share a user
HIGHEST_CAPABILITY = 40
DEVICES = ("null", "zero", "random", "urandom")
EPERM, ENOSYS = 1, 38

Refused = dict[str, tuple[int | None, int | None]]
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# System calls that no program gets: (x86_64, aarch64); None where the architecture has none.
ALWAYS_REFUSED: Refused = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265), "swapon": (167, 224), "reboot": (169, 142), "acct": (163, 89),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    # memory that no limit of a process counts
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "socket": (41, 198),
}  # fmt: skip
SIGNALS: Refused = {
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
}  # fmt: skip
CLONE = (56, 220)
NEW_PROCESSES: Refused = {"clone": CLONE, "fork": (57, None), "vfork": (58, None)}
CLONE3 = 435

_libc = ctypes.CDLL(None, use_errno=True)
_child = 0


def main() -> None:
    """Read the order from the descriptor named by argv, run it, report on the other one."""
    order_fd, report_fd = int(sys.argv[1]), int(sys.argv[2])
    with os.fdopen(order_fd, "rb") as file:
        order = json.load(file)
    signal.signal(signal.SIGTERM, _stop)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        _launch(order, report_fd)
    except OSError as error:
        _report(report_fd, {"refused": str(error)})


def _launch(order: dict[str, Any], report_fd: int) -> None:
    """Make the namespaces, start the child, wait for it."""
    global _child
    full = order["isolation"] == "full"
    order["uid"] = FIRST_UID + os.getpid() if os.geteuid() == 0 else None
    if full:
        _enter_namespaces()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    _child = os.fork()
    if _child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        if full:
            _be_the_first_process(order, report_fd)
        _start_here(order, report_fd)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    if full:
        os.waitpid(_child, 0)
    else:
        _report(report_fd, {"started": True})
        _report_end(_child, report_fd)


def _stop(*_: object) -> None:
    """The caller's time is up: kill the child; with the first process of its namespace everything in it dies."""
    if _child:
        os.kill(_child, signal.SIGKILL)
    else:
        os._exit(1)


def _enter_namespaces() -> None:
    wanted = NEW_MOUNTS | NEW_IPC | NEW_PIDS | NEW_NETWORK | NEW_HOST
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        _call("unshare", _libc.unshare(wanted))
        return
    _call("unshare", _libc.unshare(wanted | NEW_USER))
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


def _be_the_first_process(order: dict[str, Any], report_fd: int) -> NoReturn:
    """PID 1 of the namespace: build the root, start the program, reap, report."""
    try:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _prctl(PR_SET_DUMPABLE, 0)
        _build_root(order)
        program = os.fork()
        if program == 0:
            _become_the_program(order, report_fd)
        _report(report_fd, {"started": True})
        _report_end(program, report_fd)
    except BaseException as error:
        _report(report_fd, {"refused": f"{type(error).__name__}: {error}"})
    os._exit(0)


def _start_here(order: dict[str, Any], report_fd: int) -> NoReturn:
    """Without namespaces: the program's own process."""
    try:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.chdir(order["folder"])
        _write_program(order)
        if order["uid"] is not None:
            os.chown(".", order["uid"], order["uid"])
        _become_the_program(order, report_fd)
    except BaseException as error:
        _report(report_fd, {"refused": f"{type(error).__name__}: {error}"})
    os._exit(1)


def _build_root(order: dict[str, Any]) -> None:
    """A root of read-only mounts: the system's libraries, Python, four devices; and /box, where the program may write.

    The program ends up in a subdirectory of that root (`chroot`): the kernel then refuses it a user namespace.
    """
    top = order["folder"]
    root = f"{top}/root"
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", top, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    os.mkdir(f"{top}/old")
    os.mkdir(root)
    for path in order["readable"]:
        _show(path, root + path, 0x00100000)
    os.mkdir(f"{root}/dev")
    for name in DEVICES:
        _show(f"/dev/{name}", f"{root}/dev/{name}", 0)
    os.mkdir(f"{root}/box")
    os.symlink("box", f"{root}/tmp")
    uid = os.geteuid() if order["uid"] is None else order["uid"]
    size = f"size={order['disk_bytes']},nr_inodes=4096,mode=700,uid={uid},gid={uid if order['uid'] else os.getegid()}"
    _mount("tmpfs", f"{root}/box", "tmpfs", MS_NOSUID | MS_NODEV, size)
    os.chdir(f"{root}/box")
    _write_program(order)
    os.chdir(top)
    number = PIVOT_ROOT[platform.machine()]
    _call("pivot_root", _libc.syscall(number, b".", b"old"))
    os.chdir("/")
    _call("umount2", _libc.umount2(b"/old", MNT_DETACH))
    _mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chroot("/root")
    os.chdir("/box")


def _show(path: str, target: str, more: int) -> None:
    """Make a path of the host visible and read-only (a symbolic link as it is)."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(path, target, None, MS_BIND | MS_REC)
    attributes = struct.pack("<QQQQ", 1 | 2 | (4 if more else 0), 0, 0, 0)  # read-only, no set-uid, no devices
    done = _libc.syscall(MOUNT_SETATTR, AT_FDCWD, target.encode(), AT_RECURSIVE, attributes, len(attributes))
    _call(f"mount_setattr {path}", done)


def _write_program(order: dict[str, Any]) -> None:
    with open("program.py", "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(order["source"])
    os.chmod("program.py", 0o644)


def _become_the_program(order: dict[str, Any], report_fd: int) -> NoReturn:
    """Drop everything and turn into the interpreter."""
    try:
        os.setsid()
        for capability in range(HIGHEST_CAPABILITY + 1):
            _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # those that are not held cannot be passed on either
        _set_limits(order)
        if order["uid"] is not None:
            os.setgroups([])
            os.setresgid(order["uid"], order["uid"], order["uid"])
            os.setresuid(order["uid"], order["uid"], order["uid"])
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user has cleared it
        _refuse_system_calls(order)
        os.set_inheritable(report_fd, False)  # so that a failure of exec can still be told, and the program cannot lie
        os.closerange(3, report_fd)
        os.closerange(report_fd + 1, 65536)
        os.execve(order["python"], [order["python"], *order["arguments"], "program.py"], order["environment"])
    except BaseException as error:
        _report(report_fd, {"refused": f"{type(error).__name__}: {error}"})
    os._exit(1)


def _set_limits(order: dict[str, Any]) -> None:
    shared = 0 if order["uid"] is not None else 2  # the launcher and the first process run as the same user
    limits = {
        resource.RLIMIT_CPU: (order["cpu_s"], order["cpu_s"] + 1),
        resource.RLIMIT_AS: order["memory_bytes"],
        resource.RLIMIT_FSIZE: order["file_bytes"],
        resource.RLIMIT_NOFILE: order["open_files"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: 64,
    }
    if order["isolation"] == "full":
        limits[resource.RLIMIT_NPROC] = order["processes"] + shared
    for kind, limit in limits.items():
        soft, hard = limit if isinstance(limit, tuple) else (limit, limit)
        highest = resource.getrlimit(kind)[1]
        if highest != resource.RLIM_INFINITY:
            soft, hard = min(soft, highest), min(hard, highest)
        resource.setrlimit(kind, (soft, hard))


def _refuse_system_calls(order: dict[str, Any]) -> None:
    """A seccomp filter: holds whatever the user, and is inherited by all that the program starts."""
    machine = platform.machine()
    at = 0 if machine == "x86_64" else 1
    calls = dict(ALWAYS_REFUSED)
    if order["isolation"] != "full":
        calls |= SIGNALS
    alone = order["processes"] == 1
    if alone:
        calls |= NEW_PROCESSES
    refuse, allow = 0x00050000 | EPERM, 0x7FFF0000
    program = [(0x20, 0, 0, 4), (0x15, 1, 0, AUDIT_ARCH[machine]), (0x06, 0, 0, 0x80000000), (0x20, 0, 0, 0)]
    if machine == "x86_64":
        program += [(0x35, 0, 1, 0x40000000), (0x06, 0, 0, refuse)]  # the x32 numbers of the same calls
    numbers = [number for number in (known[at] for known in calls.values()) if number is not None]
    for number in numbers:
        program += [(0x15, 0, 1, number), (0x06, 0, 0, refuse)]
    # clone3 hides its flags behind a pointer; without it the C library uses clone, whose flags can be read here
    program += [(0x15, 0, 1, CLONE3), (0x06, 0, 0, refuse if alone else 0x00050000 | ENOSYS)]
    if not alone:
        flags = [(0x20, 0, 0, 16), (0x45, 0, 1, ANY_NAMESPACE), (0x06, 0, 0, refuse)]
        program += [(0x15, 0, len(flags), CLONE[at]), *flags]
    program.append((0x06, 0, 0, allow))
    code = b"".join(struct.pack("<HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(buffer))
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _call("seccomp", _libc.prctl(PR_SET_SECCOMP, 2, ctypes.create_string_buffer(header, len(header)), 0, 0))


def _report_end(program: int, report_fd: int) -> None:
    """Reap until the program itself ends; say how."""
    while True:
        pid, status, usage = os.wait4(-1, 0)
        if pid == program:
            break
    _report(report_fd, {"status": os.waitstatus_to_exitcode(status), "cpu_s": usage.ru_utime + usage.ru_stime})


def _report(fd: int, event: dict[str, Any]) -> None:
    os.write(fd, json.dumps(event).encode() + b"\n")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind, data)]
    done = _libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
    _call(f"mount {target}", done)


def _prctl(option: int, value: int) -> None:
    _call("prctl", _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def _call(what: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
