"""`launch`: a server from its configuration to its end: ports, engines, signals, and a way out that cuts nobody off."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version

import psutil
import uvicorn

from ramify.serving.admin import create_admin_app
from ramify.serving.app import create_app
from ramify.serving.config import ServerConfig, is_loopback
from ramify.serving.edge import PROBES
from ramify.serving.limits import Limits
from ramify.serving.logs import set_up_logging
from ramify.serving.server import Server
from ramify.serving.tls import Certificate
from ramify.serving.web import WebServer, address_of, listening_socket, listening_unix_socket, web_server

_log = logging.getLogger("ramify.serving")
SIGNALS = (signal.SIGTERM, signal.SIGINT)
CUT_OFF_S = 1.0
"""Time for the tasks of requests that are cut off to notice it."""
CLOSE_S = 5.0
"""Time for connections whose answers are out to close."""
_SPARE_FILES = 512
EXIT_CUT_OFF = 1


@dataclass(slots=True)
class Stop:
    """What signals ask for.

    Attributes:
        asked: the first came: drain and end.
        forced: another one came: end now.
        code: of the exit; 0 unless somebody was cut off.
        first: number of the first signal.
    """

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    forced: asyncio.Event = field(default_factory=asyncio.Event)
    code: int = 0
    first: int = 0

    def signalled(self, number: int) -> None:
        """A signal came."""
        if not self.asked.is_set():
            self.first = number
            self.asked.set()
        elif not self.forced.is_set():
            self.code = 128 + number
            self.forced.set()


def launch(config: ServerConfig) -> int:
    """Serve until a signal says otherwise; gives the exit code.

    0: everybody got a whole answer. 1: answers were cut off at the end of the drain. 128 + n: a second signal.

    Raises:
        RamifyError: the server cannot start.
    """
    logging.getLogger("ramify").handlers.clear()  # the command line's: from here on there is one log
    logging.getLogger("ramify").setLevel(logging.NOTSET)
    set_up_logging(config.log_format, config.log_level)
    logging.getLogger("uvicorn.error").setLevel(
        logging.ERROR
    )  # what is no HTTP is answered; a line for each is a flood
    _raise_file_limit(config.limits)
    loop_factory = uvicorn.Config(create_app, loop="auto", log_config=None).get_loop_factory()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(_serve(config))


async def _serve(config: ServerConfig) -> int:
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.signalled, number)
    async with AsyncExitStack() as stack:
        ports = Ports(config)
        stack.callback(ports.close)
        server = Server(config)
        stack.push_async_callback(server.close)
        if not await _unless(stop.asked, server.start()):
            return 128 + stop.first  # told to end before it was ready
        gc.collect()
        gc.freeze()  # all that the server is made of stays: to look through it for garbage held answers up for 80 ms
        async with ports.open(server):
            _say_what_is_open(server, ports)
            await ports.run_until(stop.asked)
            await _drain(server, stop)
            await ports.end(cut_off=stop.code != 0)
    return stop.code


async def _drain(server: Server, stop: Stop) -> None:
    running = server.draining.running
    timeout_s = server.config.drain_timeout_s
    _log.info("ending: %d requests run and have %g s to finish; a second signal ends them now", running, timeout_s)
    drain = asyncio.ensure_future(server.draining.drain())
    if not await _unless(stop.forced, drain):
        _log.warning("ending at once: %d requests are cut off", server.draining.running)
    elif not drain.result():
        stop.code = EXIT_CUT_OFF
        _log.warning("%d requests are cut off: they did not end in %g s", server.draining.running, timeout_s)


async def _unless(event: asyncio.Event, work: Awaitable[object]) -> bool:
    """Do some work unless an event comes first, which cancels it; says whether it was done."""
    waiting = asyncio.ensure_future(event.wait())
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
            return True
        return False
    finally:
        for each in (waiting, task):
            each.cancel()
        await asyncio.gather(waiting, task, return_exceptions=True)


class Ports:
    """The sockets of a server, bound at once, listened on when there is something to say.

    Raises:
        ConfigError: one cannot be bound, or the certificate does not work.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._sockets: list[socket.socket] = []
        self._webs: list[WebServer] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.certificate: Certificate | None = None
        if config.ssl_certfile is not None and config.ssl_keyfile is not None:
            self.certificate = Certificate(config.ssl_certfile, config.ssl_keyfile, config.ssl_min_version)
        try:
            uds = config.uds
            self._sockets.append(
                listening_socket(config.host, config.port) if uds is None else listening_unix_socket(uds)
            )
            if config.admin_port is not None:
                self._sockets.append(listening_socket(config.admin_host, config.admin_port))
        except BaseException:
            self.close()
            raise

    @property
    def urls(self) -> list[str]:
        """Of the API, and of the admin API if there is one."""
        return [address_of(bound, self.certificate is not None) for bound in self._sockets]

    @asynccontextmanager
    async def open(self, server: Server) -> AsyncIterator[None]:
        """Listen inside."""
        apps = [create_app(server), create_admin_app(server)]
        tls = None if self.certificate is None else self.certificate.context
        for app, bound in zip(apps, self._sockets, strict=False):
            web = web_server(app, self._config.limits, tls)
            self._webs.append(web)
            self._tasks.append(asyncio.create_task(web.serve([bound]), name="web"))
        if self.certificate is not None:
            self._tasks.append(asyncio.create_task(self.certificate.keep_fresh(), name="certificate"))
        try:
            while not all(web.started for web in self._webs):
                await self._check()
                await asyncio.sleep(0.01)
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def run_until(self, event: asyncio.Event) -> None:
        """Serve until an event, or until something fails that never should."""
        waiting = asyncio.create_task(event.wait())
        await asyncio.wait({waiting, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await self._check()

    async def end(self, cut_off: bool) -> None:
        """Close the ports: answers that are out may still be read, others are cut off."""
        for web in self._webs:
            web.config.timeout_graceful_shutdown = int(CUT_OFF_S if cut_off else CLOSE_S)
            web.should_exit = True
        await asyncio.gather(*self._tasks[: len(self._webs)])

    def close(self) -> None:
        """Give the addresses back."""
        for bound in self._sockets:
            bound.close()

    async def _check(self) -> None:
        for task in self._tasks:
            if task.done():
                await task
                raise RuntimeError(f"the server's task {task.get_name()!r} ended by itself")


def _say_what_is_open(server: Server, ports: Ports) -> None:
    config, urls = server.config, ports.urls
    since_s = time.time() - psutil.Process().create_time()
    parts = {"imports": since_s - sum(server.startup_s.values()), **server.startup_s}
    _log.info(
        "ramify %s serves %s at %s; ready after %.1f s (%s)",
        version("ramify"),
        ", ".join(config.models),
        urls[0],
        since_s,
        ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts.items()),
    )
    if server.keys.needed:
        _log.info("a key is needed for everything but %s and the files of the page", ", ".join(sorted(PROBES)))
    elif config.uds is None and not is_loopback(config.host):
        _log.warning("no key is set: whoever reaches %s may use this server; set one with --api-key", urls[0])
    else:
        _log.info("no key is set: every user of this machine may use this server")
    if len(urls) > 1:
        _log.info("admin API at %s, %s", urls[1], "with its key" if config.admin_key else "without a key")


def _raise_file_limit(limits: Limits) -> None:
    """Every connection is open twice (see `first_bytes`), and systems allow few files unless asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * limits.max_connections + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
        if possible < wanted:
            _log.warning("only %d files may be open: %d connections may be too many", possible, limits.max_connections)
