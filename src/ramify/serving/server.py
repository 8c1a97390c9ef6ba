"""`Server`: what the routes may reach. One object for the life of the process; nothing of it is global."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import Depends, Request

from ramify.engine.stats import EngineStats
from ramify.serving.admission import QueueState
from ramify.serving.admissions import Admissions
from ramify.serving.auth import Caller, the_caller
from ramify.serving.batches import BatchWorker
from ramify.serving.config import ServerConfig
from ramify.serving.draining import Draining
from ramify.serving.engine_metrics import EngineView
from ramify.serving.keys import Keys
from ramify.serving.logs import RequestLog
from ramify.serving.methods.running import RunningMethods
from ramify.serving.metrics import Metrics
from ramify.serving.models import Models
from ramify.serving.responses import ResponseRuns
from ramify.serving.storage import Storage, StorageLimits
from ramify.serving.storage.limits import DAY_S
from ramify.serving.tracing import Tracing
from ramify.text.constraints.check import FormChecker


class Server:
    """The parts of a running server, made and ended together.

    Attributes:
        config: its options.
        models: what it serves.
        storage: files, batches, responses, traces and keys.
        keys: who may call.
        admissions: who may start, by model.
        draining: how it ends.
        metrics: what Prometheus reads.
        tracing: spans, where they are wanted.
        log: a line a request.
        forms: judges the forms that answers are to have.
        methods: the runs of inference-time methods.
        batches: works on batches in the background.
        responses: of /v1/responses, those in the background too.
        startup_s: how long each part took to start.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.models = Models(config)
        self.storage = Storage(config.storage_url or "", _storage_limits(config))
        self.admissions = Admissions(config)
        self.draining = Draining(config.drain_timeout_s)
        self.metrics = Metrics(self._engine_views)
        self.storage.watch(lambda kind, seconds: self.metrics.storage.labels(kind).observe(seconds))
        self.metrics.draining.set_function(lambda: float(self.draining.begun))
        self.tracing = Tracing.to(config.otlp_endpoint)
        self.log = RequestLog(config.log_prompts)
        self.keys = Keys(config, self.storage)
        self.forms = FormChecker(config.limits.grammar_timeout_s, config.limits.max_grammar_bytes)
        self.methods = RunningMethods()
        from ramify.serving.dispatch import answer  # which is made of what takes a Server

        self.batches = BatchWorker(self, answer)
        self.responses = ResponseRuns(self)
        self.startup_s: dict[str, float] = {}

    def _engine_views(self) -> dict[str, EngineView]:
        """What a scrape of the metrics sees."""
        states, stats = self.models.states(), self.models.stats()
        restarts, queues = self.models.restarts(), self.admissions.states()
        return {
            name: EngineView(
                None if states.get(name) == "idle" else states.get(name, "ready") == "ready",
                stats.get(name, EngineStats()),
                restarts.get(name, 0),
                queues.get(name, QueueState(0, None)),
            )
            for name in {**states, **stats}
        }

    async def start(self) -> None:
        """Make everything ready."""
        parts = {"storage": self.storage.start, "keys": self.keys.start, "models": self.models.start}
        parts["batches"] = self.batches.start
        for part, start in parts.items():
            began_s = time.perf_counter()
            await start()
            self.startup_s[part] = time.perf_counter() - began_s
            self.metrics.startup.labels(part).set(self.startup_s[part])

    async def close(self) -> None:
        """End everything."""
        await self.responses.close()
        await self.methods.close()
        await self.batches.close()
        await self.models.close()
        await self.forms.close()
        await self.keys.close()
        await self.storage.close()
        await asyncio.to_thread(self.tracing.close)


def _storage_limits(config: ServerConfig) -> StorageLimits:
    return StorageLimits(
        config.storage_quota_bytes,
        file_retention_s=config.file_retention_days * DAY_S,
        response_retention_s=config.response_retention_days * DAY_S,
        trace_retention_s=config.trace_retention_days * DAY_S,
    )


def _the_server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


TheServer = Annotated[Server, Depends(_the_server)]
"""Type of a route's parameter that is the server."""
TheCaller = Annotated[Caller, Depends(the_caller)]
"""Type of a route's parameter that is whoever called."""
