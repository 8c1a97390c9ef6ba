"""Text completions: from a request's body to the whole answer, or to the events of a stream.

A stream's events add up to the whole answer of the same seed. An event holds all that is new, so a client that is
behind gets several tokens at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ramify.engine.outputs import CompletionOutput, PositionLogprobs, RequestOutput
from ramify.sampling import SamplingParams
from ramify.serving import sse
from ramify.serving.auth import Caller
from ramify.serving.logprobs import TextOffsets, TokenNames, of_prompt, prompt_logprobs, text_logprobs
from ramify.serving.methods.answer import ramify_field
from ramify.serving.methods.answer import usage_of as usage_of_method
from ramify.serving.methods.calls import method_run
from ramify.serving.methods.request import SEPARATOR, requested
from ramify.serving.methods.run import MethodProgress, MethodRun
from ramify.serving.models import ServedModel
from ramify.serving.prompts import GivenPrompt, text_prompt
from ramify.serving.protocol.bounds import check_bounds
from ramify.serving.protocol.completions import CompletionRequest
from ramify.serving.protocol.usage import usage_of
from ramify.serving.running import Outputs, call_of, fingerprint, last, run
from ramify.serving.server import Server

WHOLE = "text_completion"


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A text completion that was understood.

    Attributes:
        body: as it was sent.
        request_id: of the response.
        model: that answers.
        prompts: what it goes on with.
        params: how, for each prompt.
        outputs: the engine's side of it, once it is iterated.
        head: the fields that every object of the response begins with.
        method: the run behind the outputs, where the call asks for a method.
    """

    body: CompletionRequest
    request_id: str
    model: ServedModel
    prompts: list[GivenPrompt]
    params: SamplingParams
    outputs: Outputs
    head: dict[str, Any]
    method: MethodRun | None = None

    @property
    def n(self) -> int:
        """Answers of a prompt that are given back."""
        return self.body.n or 1

    @property
    def names(self) -> TokenNames:
        """How its tokens are written."""
        return TokenNames(self.model.tokenizer, bool(self.body.return_tokens_as_token_ids))

    def offsets(self, start: int = 0) -> TextOffsets:
        """Counts characters from `start`."""
        return TextOffsets(self.model.tokenizer, self.params.skip_special_tokens, start)

    def usage(self, states: dict[int, RequestOutput]) -> dict[str, Any]:
        """Token counts so far."""
        if self.method is not None and self.method.result is not None:
            return usage_of_method(self.method)
        return usage_of(*states.values())

    def prompt_text(self, place: int) -> str:
        """The text of a prompt, for `echo`."""
        prompt = self.prompts[place]
        if prompt.text is not None:
            return prompt.text
        return self.model.tokenizer.decode(prompt.ids, self.params.skip_special_tokens)


@asynccontextmanager
async def understood(
    server: Server, caller: Caller, body: CompletionRequest, request_id: str
) -> AsyncIterator[TextRequest]:
    """Check a request and encode its prompts.

    Raises:
        ApiError, RequestError, SamplingParamsError: it cannot be served.
    """
    server.models.facts(body.model.partition(SEPARATOR)[0], caller)  # 404 comes before all else
    wanted = requested(body.model, body.ramify, body.seed)
    async with server.models.use(body.model if wanted is None else wanted.model, caller) as model:
        check_bounds(body, server.config.limits)
        params = body.params()
        special = body.add_special_tokens is not False
        prompts = [await text_prompt(model.tokenizer, given, model.max_model_len, special) for given in body.prompts()]
        head = {
            "id": request_id,
            "object": WHOLE,
            "created": int(time.time()),
            "model": body.model,
            "system_fingerprint": fingerprint(server, model),
        }
        call = call_of(body, caller, request_id)
        if wanted is None:
            outputs = run(server, model, prompts, params, call)
            yield TextRequest(body, request_id, model, prompts, params, outputs, head)
            return
        method = method_run(server, model, body, wanted, prompts[0], params, call)
        yield TextRequest(body, request_id, model, prompts, params, method.outputs(bool(body.stream)), head, method)


async def complete_text(server: Server, caller: Caller, body: CompletionRequest, request_id: str) -> dict[str, Any]:
    """The whole answer.

    Raises:
        ApiError, RequestError, SamplingParamsError, EngineError: see `understood` and `run`.
    """
    async with understood(server, caller, body, request_id) as request:
        return await whole_text(request)


async def whole_text(request: TextRequest) -> dict[str, Any]:
    """The whole answer to a request that was understood."""
    states = await last(request.outputs)
    scored = request.body.echo and request.body.logprobs is not None
    return await asyncio.to_thread(_whole, request, states) if scored else _whole(request, states)


def _whole(request: TextRequest, states: dict[int, RequestOutput]) -> dict[str, Any]:
    choices = []
    for place, output in sorted(states.items()):
        for rank, answer in enumerate(_best(output.outputs, request.n)):
            piece = _Piece(request, place, place * request.n + rank)
            choices.append(piece.of(output, answer))
    told = {} if request.method is None else {"ramify": ramify_field(request.method)}
    return {**request.head, "choices": choices, "usage": request.usage(states), **told}


def _best(answers: list[CompletionOutput], n: int) -> list[CompletionOutput]:
    """The n of the highest mean log-probability, where more were drawn; the earlier one of equals first."""
    if len(answers) <= n:
        return answers
    return sorted(answers, key=lambda each: -(each.cumulative_logprob or 0.0) / max(1, len(each.token_ids)))[:n]


class _Piece:
    """One choice of the response: gives what is new of it since the last time."""

    def __init__(self, request: TextRequest, place: int, index: int) -> None:
        self._request = request
        self._place = place
        self._index = index
        self._began = False
        self._characters = 0
        self._tokens = 0
        self._offsets: TextOffsets | None = None

    def of(self, output: RequestOutput, answer: CompletionOutput) -> dict[str, Any]:
        """All that is new, as a choice."""
        body = self._request.body
        text = answer.text[self._characters :]
        tokens = answer.token_ids[self._tokens :]
        choice: dict[str, Any] = {"index": self._index, "text": text, "logprobs": None}
        if body.logprobs is not None:
            choice["logprobs"] = self._logprobs(output, answer)
        if not self._began:
            self._begin(choice, output)
        choice["finish_reason"] = answer.finish_reason
        choice["stop_reason"] = answer.stop_reason
        if body.return_token_ids:
            choice["token_ids"] = tokens
        self._began = True
        self._characters, self._tokens = len(answer.text), len(answer.token_ids)
        return choice

    def _begin(self, choice: dict[str, Any], output: RequestOutput) -> None:
        body = self._request.body
        if body.echo:
            choice["text"] = self._request.prompt_text(self._place) + choice["text"]
        if body.return_token_ids:
            choice["prompt_token_ids"] = list(output.prompt_token_ids)
        if body.prompt_logprobs is not None:
            choice["prompt_logprobs"] = prompt_logprobs(self._request.names, of_prompt(output))

    def _logprobs(self, output: RequestOutput, answer: CompletionOutput) -> dict[str, Any]:
        request = self._request
        tokens = answer.token_ids[self._tokens :]
        positions: list[PositionLogprobs | None] = [*(answer.logprobs or [])[self._tokens :]]
        if self._offsets is None:
            echoed = request.prompt_text(self._place) if request.body.echo else ""
            self._offsets = request.offsets(len(echoed))
        offsets = self._offsets.of(tokens)
        if request.body.echo and not self._began:
            prompt = list(output.prompt_token_ids)
            offsets = [min(offset, len(echoed)) for offset in request.offsets().of(prompt)] + offsets
            tokens, positions = prompt + tokens, [*of_prompt(output), *positions]
        return text_logprobs(request.names, tokens, positions, offsets)


async def stream_text(
    server: Server, caller: Caller, body: CompletionRequest, request_id: str
) -> AsyncGenerator[bytes]:
    """The events of a stream, encoded.

    Raises:
        ApiError, RequestError, SamplingParamsError, EngineError: see `understood` and `run`.
    """
    async with understood(server, caller, body, request_id) as request, aclosing(request.outputs) as outputs:
        states: dict[int, RequestOutput] = {}
        chunks = _Chunks(request)
        async for place, output in outputs:
            states[place] = output
            choices = list(chunks.news(place, output))
            events = [chunks.event(choice, states) for choice in choices]
            if isinstance(output, MethodProgress):
                events.append(chunks.progress(output.events))
            if events:
                piece = b"".join(events)
                yield sse.TextEvents(piece) if any(choice["text"] for choice in choices) else piece
        if body.include_usage:
            yield sse.event({**request.head, "choices": [], "usage": request.usage(states)})
        yield sse.DONE


class _Chunks:
    """The events of one stream."""

    def __init__(self, request: TextRequest) -> None:
        self._request = request
        self._pieces: dict[tuple[int, int], _Piece] = {}
        self._ended: set[tuple[int, int]] = set()

    def news(self, place: int, output: RequestOutput) -> Iterator[dict[str, Any]]:
        """The choices of a prompt that have news."""
        for answer in output.outputs:
            which = (place, answer.index)
            if which in self._ended:
                continue
            piece = self._pieces.get(which)
            if piece is None:
                index = place * self._request.n + answer.index
                piece = self._pieces[which] = _Piece(self._request, place, index)
            choice = piece.of(output, answer)
            if answer.finished:
                self._ended.add(which)
            if choice["text"] or answer.finished or choice["logprobs"] or choice.get("token_ids"):
                yield choice

    def progress(self, events: list[dict[str, Any]]) -> bytes:
        """An event that adds nothing to the answer and tells of the method at work."""
        choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": None}
        return sse.event({**self._request.head, "choices": [choice], "ramify": {"events": events}})

    def event(self, choice: dict[str, Any], states: dict[int, RequestOutput]) -> bytes:
        """One event."""
        chunk = {**self._request.head, "choices": [choice]}
        if self._request.method is not None and choice["finish_reason"] is not None:
            chunk["ramify"] = ramify_field(self._request.method)
        if self._request.body.continuous_usage:
            chunk["usage"] = self._request.usage(states)
        elif self._request.body.include_usage:
            chunk["usage"] = None
        return sse.event(chunk)
