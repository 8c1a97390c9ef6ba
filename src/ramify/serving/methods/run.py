"""A run of a method for one call: admitted, timed and counted like any request, and given back as one.

Whoever answers the call reads `MethodRun.outputs`: empty outputs with progress while the method runs, then the winner,
all of them ordinary `RequestOutput`s, so that text, reasoning and tool calls are treated as everywhere. Leaving the
iterator cancels every branch; the run still ends in order, so that what it used is charged and its trace says how it
ended.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ramify.backends.base import Node, path_details
from ramify.engine.outputs import CompletionOutput, Logprob, PositionLogprobs, RequestMetrics, RequestOutput
from ramify.errors import EngineError, ScorerError
from ramify.sampling import Prompt, SamplingParams
from ramify.scoring.problem import Problem
from ramify.serving.admission import Work
from ramify.serving.errors import ApiError
from ramify.serving.generation import Call, Place, admitted, ran
from ramify.serving.methods.bounds import budget_of, check_bounds, check_form, check_models, width
from ramify.serving.methods.forms import judge_forms
from ramify.serving.methods.progress import Watch
from ramify.serving.methods.request import Requested
from ramify.serving.methods.traces import TraceStore
from ramify.serving.models import ServedModel
from ramify.serving.prompts import GivenPrompt
from ramify.serving.server import Server
from ramify.strategies.kernel.budget import Budget
from ramify.strategies.kernel.result import Result
from ramify.strategies.kernel.trace import AnyEvent
from ramify.strategies.needed_models import other_models, reward_models
from ramify.strategies.registry import DEFAULT_SAMPLING
from ramify.text.detokenizer import Detokenizer
from ramify.text.tokenizer import Tokenizer

PROBLEM = "1"
"""The problem's id: the one that `LLM.solve` and `ramify solve` give to a single question, so that one seed gives one
answer here and there."""
MARGIN = 0.05
"""Of the time that a request has left, for giving its answer."""
MOST_MARGIN_S = 0.25


@dataclass(slots=True)
class MethodProgress(RequestOutput):
    """A request whose answer is not decided yet, and what its method has done since the last one of these."""

    events: list[dict[str, Any]] = field(default_factory=list)


class MethodRun:
    """One run of a method.

    Args:
        asked: what the call asks for.
        prompt: as the model sees it.
        told: the same as `Problem.prompt`, in a form that judges and other models can read too.
        params: how the call wants tokens drawn.
        given: names of the fields of `SamplingParams` that the call set; what it left open is the method's to choose.

    Attributes:
        seed: of the run; the same one gives the same answer.
        result: once `outputs` has ended.

    Raises:
        ApiError: 400, the method cannot run as it is asked for.
    """

    def __init__(
        self,
        server: Server,
        model: ServedModel,
        asked: Requested,
        prompt: GivenPrompt,
        told: Prompt,
        params: SamplingParams,
        given: frozenset[str],
        call: Call,
    ) -> None:
        self.asked = asked
        self.model = model
        self.seed = secrets.randbits(63) if asked.seed is None else asked.seed
        self.strategy = asked.strategy(sampling_of(asked, params, given))
        self.result: Result | None = None
        self.trace_id: str | None = None
        self.stop_reason = ""
        check_bounds(asked, self.strategy, server.config.limits)
        check_form(asked, self.strategy)
        check_models(asked, self.strategy, model.name, server.models, call.caller)
        self._budget = budget_of(asked, server.config.limits, None, None)
        self._server = server
        self._prompt = prompt
        self._told = told
        self._call = call
        self._logprobs = params.logprobs is not None
        self._notes: list[str] = []
        self._cancel = asyncio.Event()
        self._solving = False

    @property
    def notes(self) -> list[str]:
        """Remarks of the method, and of the server on the run."""
        return [*(self.result.notes if self.result is not None else ()), *self._notes]

    async def outputs(self, stream: bool) -> AsyncGenerator[tuple[int, RequestOutput]]:
        """The states of the request: with `stream` progress while it runs, and the winner token by token; else once.

        Each comes with the prompt's place, which is 0.

        Raises:
            ApiError: it cannot be served, or nothing was drawn in time.
            RamifyError: it failed while it ran.
        """
        watch = Watch() if stream and self.asked.events else None
        run = asyncio.create_task(self._run(None if watch is None else watch.take))
        self._server.methods.hold(run)
        try:
            if watch is not None:
                async for events in watch.pieces(run):
                    yield 0, self._undecided(events)
            result = await asyncio.shield(run)
        finally:
            self._cancel.set()
            if not self._solving:
                run.cancel()  # it waits for its turn, or for a model
            if not run.done():
                await asyncio.wait((run,))
        for completion in _winner(result.best, self.model.tokenizer, self._logprobs, stream):
            yield 0, self._output(completion, result.ledger.prompt_cached)

    def _undecided(self, events: list[dict[str, Any]]) -> MethodProgress:
        prompt, nothing = self._prompt, CompletionOutput(0, "", [])
        metrics = RequestMetrics(time.perf_counter())
        return MethodProgress(self._call.request_id, prompt.text, prompt.ids, [nothing], metrics, events=events)

    def _output(self, completion: CompletionOutput, cached: int) -> RequestOutput:
        prompt, metrics = self._prompt, RequestMetrics(time.perf_counter(), num_cached_tokens=cached)
        return RequestOutput(
            self._call.request_id, prompt.text, prompt.ids, [completion], metrics, finished=completion.finished
        )

    async def _run(self, watch: Callable[[AnyEvent], None] | None) -> Result:
        """The run itself, which goes on to its orderly end when the client has left."""
        model, call = self.model, self._call
        await judge_forms(self._server, model, self.strategy)
        store = TraceStore(self._server.storage.traces) if self.asked.trace else None

        def listen(event: AnyEvent) -> None:
            if store is not None:
                store.take(event)
            if watch is not None:
                watch(event)

        async with admitted(self._server, model, call, Work(len(self._prompt.ids), width(self.strategy))) as place:
            if store is not None:
                self.trace_id = await store.begin(call.caller.owner, model.name, self.asked.name)
            try:
                result = await self._solve(place, listen)
            finally:
                if store is not None:
                    self._notes += await store.end()
        return result

    async def _solve(self, place: Place, listen: Callable[[AnyEvent], None]) -> Result:
        call, strategy = self._call, self.strategy
        budget = self._timed(place)
        problem = Problem(PROBLEM, self._told)
        backend_of = self._server.models.backend(
            self.model.name, call.caller, rewards=reward_models(strategy), models=other_models(strategy),
            priority=place.engine_priority(call), cache_salt=call.salt,
        )  # fmt: skip
        async with backend_of as backend:
            self._solving = True
            try:
                result = await self._server.methods.solve(
                    strategy, problem, backend, budget=budget, seed=self.seed, equivalence=self.asked.equivalence,
                    listener=listen, cancel=self._cancel,
                )  # fmt: skip
            except BaseException as error:
                used = backend.usage
                call.caller.rates.charge(used.prompt + used.generated + used.verifier + used.probe)
                if isinstance(error, ScorerError) and not isinstance(error.__cause__, EngineError | OSError):
                    raise ApiError(400, str(error), param="ramify.scorer", code="scorer_failed") from error
                raise
        ran(self._server, self.model, call, place, strategy.name, result)
        self.result, self.stop_reason = result, result.stop_reason
        late = place.deadline is not None and place.deadline.left_s <= _margin(place.deadline.allowed_s)
        if late and result.stop_reason == "budget" and place.deadline is not None:
            self.stop_reason = "deadline"
            if result.best.parent is None:
                self._server.metrics.missed.labels(self.model.name, place.deadline.whose).inc()
                raise place.deadline.missed()
        return result

    def _timed(self, place: Place) -> Budget:
        """The budget with what is left of the request's time."""
        if place.deadline is None:
            return self._budget
        left_s = place.deadline.left_s - _margin(place.deadline.allowed_s)
        if left_s <= 0:
            raise place.deadline.missed()
        seconds = self._budget.seconds
        return replace(self._budget, seconds=left_s if seconds is None else min(seconds, left_s))


def _margin(allowed_s: float) -> float:
    return min(MOST_MARGIN_S, MARGIN * allowed_s)


def sampling_of(asked: Requested, params: SamplingParams, given: frozenset[str]) -> SamplingParams:
    """How a method draws: as the call says where it says so, else as methods do by themselves.

    Raises:
        ApiError: 400, the call and the method's options both say it.
    """
    twice = sorted(given & set(asked.options))
    if twice:
        message = f"{twice[0]} is given in the body and among the options of {asked.name}: keep one"
        raise ApiError(400, message, param=twice[0])
    left_open = {
        name: getattr(DEFAULT_SAMPLING, name) for name in ("temperature", "max_tokens") if name not in given
    }  # the only fields in which methods' own choice differs from the API's
    return params.with_(**left_open, n=1, seed=None)


def _winner(best: Node, tokenizer: Tokenizer, logprobs: bool, pieces: bool) -> Iterator[CompletionOutput]:
    """The best answer; with `pieces` a token at a time, each with all before it."""
    positions = _positions(best, tokenizer) if logprobs and best.model is None else None
    tokens = list(best.tokens)
    if pieces and best.model is None:
        detokenizer, shown = Detokenizer(tokenizer), 0
        for count, token in enumerate(tokens[:-1], start=1):
            shown += len(detokenizer.push([token]))
            known = None if positions is None else positions[:count]
            yield CompletionOutput(0, best.text[:shown], tokens[:count], None, known)
    reason = "stop" if best.finish_reason == "stop" else "length"
    yield CompletionOutput(0, best.text, tokens, best.cum_logprob if logprobs else None, positions, reason)


def _positions(node: Node, tokenizer: Tokenizer) -> list[PositionLogprobs] | None:
    """Log-probabilities of an answer's tokens; None where some of them were forced and have none."""
    details = path_details(node)
    if len(details) != len(node.tokens):
        return None
    found: list[PositionLogprobs] = []
    for token, detail in zip(node.tokens, details, strict=True):
        position = {
            other: Logprob(logprob, rank, tokenizer.token_text(other))
            for rank, (other, logprob) in enumerate(detail.top, start=1)
        }
        position.setdefault(token, Logprob(detail.logprob, len(position) + 1, tokenizer.token_text(token)))
        found.append(position)
    return found
