"""Drawing from an OpenAI-compatible endpoint: requests, streams, and what is done when one breaks off.

A stream that ends before its answers do (a timeout, a closed connection, half an answer) is asked for again, for the
answers that are missing; what had come of them is counted as lost and belongs to no answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ramify.backends.base import StepEnd, TokenDetail, Usage
from ramify.errors import ConfigError, EngineError, RequestError
from ramify.sampling import SamplingParams

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MOST_SERVER_STOPS = 4
"""Stop strings that the API takes; more are matched here."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible server, and what it can do.

    Attributes:
        base_url: e.g. ``http://127.0.0.1:8000/v1``.
        model: the main model's name there.
        api_key: sent as a bearer token; None takes ``OPENAI_API_KEY``, or sends a placeholder.
        api: "chat" sends messages, "completions" plain text.
        models: names of other models of the same server.
        max_model_len: context in tokens; a prompt counts a token for each of its UTF-8 bytes, which is never too few.
        n: it can draw several answers in one call.
        logprobs: it gives log-probabilities of drawn tokens.
        seed: draws repeat under the ``seed`` field.
        branch_keys: it takes ramify's branch keys (body field ``ramify``), so that draws equal a local
            run's.
        continuation: how a chat continues an answer: "continue_final_message" (vLLM, SGLang), "prefix" (a field of the
            message), or "none" (it cannot).
        echo: the completions API scores prompts with ``echo`` and ``logprobs``.
        max_tokens_field: "max_tokens", or "max_completion_tokens" for servers that want it.
        max_concurrency: requests at once.
        retries: attempts after the first, for timeouts, 408, 409, 429, 5xx and broken streams.
        timeout_s: without a word from the server.

    Raises:
        ConfigError: a value does not work.
    """

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    api: Literal["chat", "completions"] = "chat"
    models: Sequence[str] = ()
    max_model_len: int = 8192
    n: bool = True
    logprobs: bool = True
    seed: bool = False
    branch_keys: bool = False
    continuation: Literal["none", "continue_final_message", "prefix"] = "none"
    echo: bool = False
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    max_concurrency: int = 16
    retries: int = 5
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"base_url={self.base_url!r} is no address: write e.g. http://127.0.0.1:8000/v1")
        if self.api not in ("chat", "completions"):
            raise ConfigError(f"api={self.api!r} does not work: choose chat or completions")
        if self.max_concurrency < 1 or self.retries < 0 or self.timeout_s <= 0 or self.max_model_len < 2:
            raise ConfigError(f"{self} does not work: at least one request at once, no negative retries or times")


@dataclass(slots=True)
class Answer:
    """One answer as it comes.

    Attributes:
        text: so far.
        details: one a token, where log-probabilities were asked for.
        num_chunks: pieces that have come; where tokens are not told otherwise, one counts as one.
        finish_reason: "stop" or "length" when it is whole; None while it is not.
        step_end: it was stopped at a step's end.
        num_tokens: set when it is done.
    """

    text: str = ""
    details: list[TokenDetail] = field(default_factory=list)
    num_chunks: int = 0
    finish_reason: str | None = None
    step_end: bool = False
    num_tokens: int = 0

    @property
    def done(self) -> bool:
        """Whether nothing more is to come."""
        return self.finish_reason is not None or self.step_end


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of the server.

    Attributes:
        messages: of the chat API; None for the completions API.
        text: the answer so far (chat), or the whole prompt with it (completions).
        extra: fields of the request's body beyond the API's own.
    """

    model: str
    params: SamplingParams
    step_end: StepEnd
    text: str
    messages: Sequence[Mapping[str, Any]] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stops_here(self) -> bool:
        """Whether stop strings are matched on this side."""
        many = len(self.params.stop_strings) > MOST_SERVER_STOPS
        return many or bool(self.step_end.stop) or self.params.include_stop_str_in_output


class Client:
    """Sends requests, at most so many at once, and again where one broke off.

    Args:
        endpoint: where to.
        usage: the backend's own total.
    """

    def __init__(self, endpoint: Endpoint, usage: Usage) -> None:
        self.endpoint = endpoint
        self._usage = usage
        self._client = _connect(endpoint)
        self._places = asyncio.Semaphore(endpoint.max_concurrency)

    async def close(self) -> None:
        """End all connections."""
        await self._client.close()

    async def draw(self, ask: Ask, n: int, meter: Usage) -> AsyncGenerator[tuple[int, Answer], None]:
        """`n` answers, each yielded with its index when it is whole. What was run is added to `meter`.

        Raises:
            RequestError: the server refuses the request.
            EngineError: it does not answer, or breaks off each time.
        """
        missing = list(range(n))
        for attempt in range(self.endpoint.retries + 1):
            answers = {index: Answer() for index in missing}
            try:
                async with self._places, aclosing(self._stream(ask, missing, answers, meter)) as ended:
                    async for index in ended:
                        missing.remove(index)
                        yield index, answers[index]
            except _broken_off() as error:
                if attempt == self.endpoint.retries:
                    raise EngineError(f"{self.endpoint.base_url} broke off {attempt + 1} times: {error}") from error
            finally:
                lost = sum(answer.num_chunks for index, answer in answers.items() if index in missing)
                self._count(meter, lost=lost)
            if not missing:
                return
        raise EngineError(f"{self.endpoint.base_url} gave {len(missing)} of {n} answers only in part, every time")

    async def score(self, model: str, prompt: str, start: int, meter: Usage) -> list[float]:
        """Log-probabilities of the tokens of `prompt` that begin at character `start` or later.

        Raises:
            RequestError, EngineError: as for `draw`; or the server does not echo.
        """
        async with self._places:
            found = await _translated(
                self.endpoint,
                self._client.completions.create(model=model, prompt=prompt, max_tokens=1, echo=True, logprobs=1),
            )
        table = found.choices[0].logprobs
        if table is None or table.text_offset is None or table.token_logprobs is None:
            raise RequestError(f"{self.endpoint.base_url} does not echo log-probabilities: set echo=False for it")
        values = [
            logprob
            for offset, logprob in zip(table.text_offset, table.token_logprobs, strict=True)
            if start <= offset < len(prompt) and logprob is not None
        ]
        self._count(meter, calls=1, probe=len(values))
        return values

    async def _stream(
        self, ask: Ask, places: Sequence[int], answers: Mapping[int, Answer], meter: Usage
    ) -> AsyncGenerator[int]:
        """One request; yields the index of each answer that is whole."""
        waiting = list(places)
        self._count(meter, calls=1)
        stream = await _translated(self.endpoint, self._request(ask, len(waiting)))
        told: int | None = None
        ready: list[int] = []
        async with stream:
            async for chunk in stream:
                told = self._read_usage(chunk, meter, told)
                for choice in chunk.choices:
                    answer = answers[waiting[choice.index]]
                    if not answer.done and _take(answer, choice, ask):
                        ready.append(waiting[choice.index])
                if len(ready) == len(waiting) and any(answers[index].step_end for index in ready):
                    break
        for index in ready:
            answer = answers[index]
            alone = len(waiting) == 1 and told is not None and not answer.step_end
            answer.num_tokens = told if alone and told is not None else len(answer.details) or answer.num_chunks
            answer.num_tokens = min(answer.num_tokens, _limit(ask.params))
            self._count(meter, generated=answer.num_tokens)
            yield index

    async def _request(self, ask: Ask, n: int) -> Any:
        body = _body(ask, self.endpoint)
        if n > 1:
            body["n"] = n
        if ask.messages is None:
            return await self._client.completions.create(model=ask.model, prompt=ask.text, stream=True, **body)
        messages: Any = list(ask.messages)
        return await self._client.chat.completions.create(model=ask.model, messages=messages, stream=True, **body)

    def _read_usage(self, chunk: Any, meter: Usage, told: int | None) -> int | None:
        """The tokens that the server counted, once it says so."""
        if chunk.usage is None or told is not None:
            return told
        details = getattr(chunk.usage, "prompt_tokens_details", None)
        cached = getattr(details, "cached_tokens", None) or 0
        self._count(meter, prompt=chunk.usage.prompt_tokens, prompt_cached=cached)
        return int(chunk.usage.completion_tokens)

    def _count(self, meter: Usage, **counts: int) -> None:
        ran = Usage(**counts)
        self._usage.add(ran)
        meter.add(ran)


def _connect(endpoint: Endpoint) -> AsyncOpenAI:
    try:
        from openai import AsyncOpenAI
    except ImportError as error:
        raise ConfigError("an OpenAI-compatible endpoint needs: pip install 'ramify[remote]'") from error
    import os

    key = endpoint.api_key or os.environ.get("OPENAI_API_KEY") or "none"
    return AsyncOpenAI(
        base_url=endpoint.base_url, api_key=key, max_retries=endpoint.retries, timeout=endpoint.timeout_s
    )


def _broken_off() -> tuple[type[Exception], ...]:
    """What a stream ends with that could be whole next time."""
    import httpx2
    import openai

    return (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError, httpx2.TransportError)


async def _translated(endpoint: Endpoint, call: Any) -> Any:
    """The outcome of a call, its refusals as ramify's errors."""
    import openai

    try:
        return await call
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise RequestError(f"{endpoint.base_url} does not accept the API key: {error.message}") from error
    except (openai.RateLimitError, openai.InternalServerError) as error:
        raise EngineError(f"{endpoint.base_url} failed {endpoint.retries + 1} times: {error.message}") from error
    except openai.APIStatusError as error:
        raise RequestError(f"{endpoint.base_url} refuses the request ({error.status_code}): {error.message}") from error


def _take(answer: Answer, choice: Any, ask: Ask) -> bool:
    """Add a piece of an answer; returns whether it ends with it."""
    delta = getattr(choice, "delta", None)
    piece = (choice.text if delta is None else delta.content) or ""
    details = _details(choice)
    if piece or details:
        answer.num_chunks += 1
    before = answer.text
    answer.text += piece
    answer.details += details
    if ask.stops_here:
        _match(answer, ask, before)
    if answer.step_end or answer.finish_reason is not None:
        return True
    if ask.step_end.max_tokens is not None and choice.finish_reason == "length":
        counted = len(answer.details) or answer.num_chunks
        answer.step_end = counted >= ask.step_end.max_tokens and counted < _limit(ask.params)
    if not answer.step_end and choice.finish_reason is not None:
        answer.finish_reason = "length" if choice.finish_reason == "length" else "stop"
    return answer.done


def _match(answer: Answer, ask: Ask, before: str) -> None:
    """End an answer at the first stop string of either kind."""
    longest = max(map(len, (*ask.params.stop_strings, *ask.step_end.stop)))
    start = max(0, len(before) - longest)
    found = [(answer.text.find(stop, start), stop, True) for stop in ask.params.stop_strings]
    found += [(answer.text.find(stop, start), stop, False) for stop in ask.step_end.stop]
    ends = [(at + len(stop), at, whole) for at, stop, whole in found if at >= 0]
    if not ends:
        return
    end, at, whole = min(ends, key=lambda each: each[0])
    if whole:
        answer.text = answer.text[: end if ask.params.include_stop_str_in_output else at]
        answer.finish_reason = "stop"
    else:
        answer.text, answer.step_end = answer.text[:end], True


def _details(choice: Any) -> list[TokenDetail]:
    """The log-probabilities that came with a piece, of either API."""
    table = choice.logprobs
    if table is None:
        return []
    if getattr(table, "content", None) is not None:
        return [
            TokenDetail(entry.logprob, tuple((-1, other.logprob) for other in entry.top_logprobs or ()))
            for entry in table.content
        ]
    logprobs = getattr(table, "token_logprobs", None) or []
    tops = getattr(table, "top_logprobs", None) or [{}] * len(logprobs)
    return [
        TokenDetail(logprob, tuple((-1, other) for other in sorted((top or {}).values(), reverse=True)))
        for logprob, top in zip(logprobs, tops, strict=True)
    ]


def _limit(params: SamplingParams) -> int:
    return 1 << 30 if params.max_tokens is None else params.max_tokens


def _body(ask: Ask, endpoint: Endpoint) -> dict[str, Any]:
    """The request's fields. What is not the API's own goes into the body all the same, as vLLM's users do."""
    params = ask.params
    body: dict[str, Any] = {"temperature": params.temperature, "stream_options": {"include_usage": True}}
    extra: dict[str, Any] = dict(ask.extra)
    limits = [limit for limit in (params.max_tokens, ask.step_end.max_tokens) if limit is not None]
    if limits:
        extra[endpoint.max_tokens_field] = min(limits)
    if params.stop_strings and not ask.stops_here:
        body["stop"] = list(params.stop_strings)
    if params.logprobs is not None:
        body |= (
            {"logprobs": True, "top_logprobs": params.logprobs}
            if ask.messages is not None
            else {"logprobs": params.logprobs}
        )
    usual = SamplingParams()
    for name in ("top_p", "presence_penalty", "frequency_penalty"):
        if getattr(params, name) != getattr(usual, name):
            body[name] = getattr(params, name)
    for name in ("top_k", "min_p", "typical_p", "repetition_penalty", "min_tokens", "ignore_eos", "allowed_token_ids"):
        if getattr(params, name) != getattr(usual, name):
            extra[name] = getattr(params, name)
    if params.stop_token_ids:
        extra["stop_token_ids"] = list(params.stop_token_ids)
    if params.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in params.logit_bias.items()}
    if params.seed is not None:
        body["seed"] = params.seed
    if extra:
        body["extra_body"] = extra
    return body
