"""The one way from a route to an engine: every generation of every endpoint is admitted, timed and counted here.

`generate` streams one request. What runs an engine in other ways (a method, an embedding) holds `admitted` around it
and says what it used.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ramify.engine.outputs import RequestOutput
from ramify.randomness import BranchKey
from ramify.sampling import Prompt, SamplingParams, TokenIds
from ramify.serving.admission import Reason, Refused, Ticket, Work
from ramify.serving.auth import ANONYMOUS, Caller
from ramify.serving.deadlines import Deadline, until
from ramify.serving.errors import ApiError
from ramify.serving.metrics import Answered
from ramify.serving.models import ServedModel
from ramify.serving.records import RequestRecord, current_record
from ramify.serving.server import Server
from ramify.text.constraints.check import FormBusyError

if TYPE_CHECKING:
    from ramify.strategies.kernel.result import Result

BACKGROUND_PRIORITY = 2**31
"""Added to the priority of batches: the engine, too, lets everybody else go first."""
LONG_TEXT_CHARS = 20_000
"""Longer texts are tokenised on a thread: they would hold up everybody's streams."""
_REFUSALS: dict[Reason, str] = {
    "requests": "too many requests are waiting",
    "tokens": "too many prompt tokens are waiting",
    "share": "this key has too many requests waiting",
    "wait": "the wait would be too long",
}


@dataclass(frozen=True, slots=True)
class Call:
    """What a generation carries besides its prompt and its parameters.

    Attributes:
        request_id: of the HTTP request or the batch's line.
        caller: who asks.
        priority: lower runs first under the priority policy.
        cache_salt: the client's own, on top of its key's.
        timeout_s: the answer is of no use after so many seconds; a header may say it instead.
        key, first_child: name the branch that the draws belong to; of the seed by default.
    """

    request_id: str
    caller: Caller
    priority: int = 0
    cache_salt: str = ""
    timeout_s: float | None = None
    key: BranchKey | None = None
    first_child: int = 0

    @property
    def salt(self) -> str:
        """The prefix cache's salt: of the key and of the client together."""
        if not (self.caller.cache_salt or self.cache_salt):
            return ""
        return hashlib.sha256(f"{self.caller.cache_salt}\n{self.cache_salt}".encode()).hexdigest()


@dataclass(slots=True)
class Place:
    """A request that was let in.

    Attributes:
        record: where it is told of.
        started_s: when its turn came.
        deadline: until when it may run; None is forever.
    """

    record: RequestRecord
    started_s: float
    deadline: Deadline | None

    def engine_priority(self, call: Call) -> int:
        """What the engine orders by."""
        return call.priority + (BACKGROUND_PRIORITY if self.record.background else 0)


async def generate(
    server: Server, model: ServedModel, prompt: Prompt, params: SamplingParams, call: Call
) -> AsyncGenerator[RequestOutput]:
    """Stream a request of a model: each item is the same `RequestOutput`, further on. Leaving the loop cancels it.

    Raises:
        RequestError: it cannot be served.
        ApiError: 429, it would wait too long; 408 or 504, it was not done in time.
        EngineError: it failed while it ran.
    """
    ids = await prompt_ids(model, prompt)
    await check_form(server, model, params)
    async with admitted(server, model, call, Work(len(ids), params.n)) as place:
        text = prompt if isinstance(prompt, str) else None
        stream = model.llm.generate(
            {"prompt": text, "prompt_token_ids": ids},
            params,
            call.request_id,
            priority=place.engine_priority(call),
            cache_salt=call.salt,
            key=call.key,
            first_child=call.first_child,
        )
        output: RequestOutput | None = None
        ending = "abort"
        try:
            async with aclosing(until(place.deadline, stream)) as outputs:
                async for output in outputs:
                    yield output
        except ApiError:
            if place.deadline is not None:
                server.metrics.missed.labels(model.name, place.deadline.whose).inc()
            raise
        except Exception:
            ending = "error"
            raise
        finally:
            if output is not None:
                _count(server, model, params, call, place, output, ending)


async def prompt_ids(model: ServedModel, prompt: Prompt) -> TokenIds:
    """Token ids of a prompt in any form; long texts are read on a thread.

    Raises:
        RequestError: it is empty or of no known form.
    """
    if isinstance(prompt, str) and len(prompt) > LONG_TEXT_CHARS:
        return await asyncio.to_thread(model.tokenizer.prompt_ids, prompt)
    return model.tokenizer.prompt_ids(prompt)


async def check_form(server: Server, model: ServedModel, params: SamplingParams) -> None:
    """Judge the form of an answer before an engine sees it; what was judged before costs nothing.

    Raises:
        ConfigError: it cannot be used.
        ApiError: 429, too many new ones wait to be judged.
    """
    if params.structured_outputs is None:
        return
    try:
        await server.forms.check(params.structured_outputs, model.tokenizer)
    except FormBusyError:
        message = "too many new schemas and grammars are being read: try again in 5 s"
        raise ApiError(429, message, code="overloaded", headers={"retry-after": "5"}) from None


@asynccontextmanager
async def admitted(server: Server, model: ServedModel, call: Call, work: Work) -> AsyncIterator[Place]:
    """Wait for a turn at a model's engine, and hold it inside. What runs has to be done by ``place.deadline``.

    Args:
        work: what it asks for; a method asks for the branches that it runs at once.

    Raises:
        ApiError: 429, with Retry-After, if the queue is full or its end beyond the deadline; 400, a deadline that
            the server does not give; 408 or 504, its turn did not come in time.
    """
    record = current_record() or RequestRecord(call.request_id, "", "")
    record.model = model.name
    call.caller.check_priority(call.priority)
    await _rate(call, record)
    deadline = _deadline(server, call, record)
    owner = "" if call.caller.name == ANONYMOUS else call.caller.owner
    ticket = Ticket(owner, work, call.priority, record.background)
    waits = [server.config.max_wait_s, None if deadline is None else max(0.0, deadline.left_s)]
    patience_s = None if record.background else min((wait for wait in waits if wait is not None), default=None)
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(None if deadline is None else deadline.left_s) as limit:
                await stack.enter_async_context(server.admissions.of(model).slot(ticket, patience_s))
        except TimeoutError:
            if deadline is None or not limit.expired():
                raise
            server.metrics.missed.labels(model.name, deadline.whose).inc()
            raise deadline.missed() from None
        except Refused as refused:
            raise _turned_away(server, model, refused) from None
        started_s = time.perf_counter()
        record.queue_s = max(record.queue_s, started_s - record.arrived_s)
        yield Place(record, started_s, deadline)


def ran(server: Server, model: ServedModel, call: Call, place: Place, strategy: str, result: Result) -> None:
    """Count a run of a method that ended, whole or cut: metrics, log, trace and the key's tokens.

    Args:
        strategy: its registered name, without parameters.
    """
    ledger, record = result.ledger, place.record
    record.strategy = strategy
    record.prompt_tokens += ledger.prompt
    record.cached_tokens += ledger.prompt_cached
    record.generated_tokens += ledger.generated + ledger.program
    record.finish.append(result.stop_reason)
    server.metrics.ran(model.name, strategy, result)
    server.tracing.ran(model.name, strategy, result, place.started_s, time.perf_counter())
    call.caller.rates.charge(ledger.prompt + ledger.total_tokens)


async def _rate(call: Call, record: RequestRecord) -> None:
    """Hold a key to its tokens a minute: it is told to come back, or, where nobody waits for it, waits itself."""
    while True:
        try:
            call.caller.rates.check_tokens()
        except ApiError as refusal:
            if not record.background:
                raise
            await asyncio.sleep(float(refusal.headers["retry-after"]))
        else:
            return


def _deadline(server: Server, call: Call, record: RequestRecord) -> Deadline | None:
    if record.background:
        return Deadline.of(record.arrived_s, call.timeout_s, None)
    asked_s = call.timeout_s if call.timeout_s is not None else record.timeout_s
    return Deadline.of(record.arrived_s, asked_s, server.config.request_timeout_s)


def _turned_away(server: Server, model: ServedModel, refused: Refused) -> ApiError:
    server.metrics.rejections.labels(model.name, refused.reason).inc()
    after_s = refused.retry_after_s
    about = "" if refused.wait_s is None else f" (about {refused.wait_s:.1f} s now)"
    return ApiError(
        429,
        f"{_REFUSALS[refused.reason]} for model {model.name!r}{about}: try again in {after_s} s",
        code="overloaded",
        headers={"retry-after": str(after_s)},
    )


def _count(
    server: Server,
    model: ServedModel,
    params: SamplingParams,
    call: Call,
    place: Place,
    output: RequestOutput,
    ending: str,
) -> None:
    """Tell of a generation that ended, or was left, with `output`."""
    record = place.record
    record.add(output)
    if server.log.with_text:
        record.prompts.append(output.prompt or model.tokenizer.decode(output.prompt_token_ids, False))
        record.answers += [completion.text for completion in output.outputs]
    answer = Answered.of(model.name, output, record.arrived_s, time.perf_counter(), ending, params.max_tokens)
    server.metrics.answered(answer)
    server.tracing.answered(answer, params, output.num_cached_tokens, record)
    for completion in output.outputs:
        if completion.finished:
            server.admissions.of(model).pace.ended(len(completion.token_ids))
    call.caller.rates.charge(answer.prompt_tokens + answer.generated_tokens)
