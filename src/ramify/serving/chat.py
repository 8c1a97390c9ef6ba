"""Chat completions: from a request's body to the whole answer. `chat_stream` gives it piece by piece."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ramify.engine.outputs import CompletionOutput, RequestOutput
from ramify.sampling import SamplingParams
from ramify.serving.auth import Caller
from ramify.serving.chat_prompts import ChatPrompt, chat_params, chat_prompt
from ramify.serving.logprobs import TokenNames, chat_logprobs, of_prompt, prompt_logprobs
from ramify.serving.methods.answer import ramify_field, usage_of
from ramify.serving.methods.calls import method_run
from ramify.serving.methods.request import SEPARATOR, requested
from ramify.serving.methods.run import MethodRun
from ramify.serving.models import ServedModel
from ramify.serving.protocol.bounds import check_bounds
from ramify.serving.protocol.chat import ChatRequest
from ramify.serving.protocol.usage import usage
from ramify.serving.running import Outputs, call_of, chat_style, fingerprint, last, run
from ramify.serving.server import Server
from ramify.text.chat_format import ChatFormat
from ramify.text.chat_parser import CallDelta, ChatParser, ToolCall

WHOLE = "chat.completion"


@dataclass(frozen=True, slots=True)
class AskedChat:
    """A chat request that was understood.

    Attributes:
        body: as it was sent.
        model: that answers.
        style: how the model writes thoughts and calls.
        prompt: what it goes on with.
        params: how.
        outputs: the engine's side of it, once it is iterated.
        head: the fields that every object of the response begins with.
        method: the run behind the outputs, where the call asks for a method.
    """

    body: ChatRequest
    model: ServedModel
    style: ChatFormat
    prompt: ChatPrompt
    params: SamplingParams
    outputs: Outputs
    head: dict[str, Any]
    method: MethodRun | None = None

    @property
    def names(self) -> TokenNames:
        """How its tokens are written."""
        return TokenNames(self.model.tokenizer, bool(self.body.return_tokens_as_token_ids))

    @property
    def parses(self) -> bool:
        """Whether an answer may hold more than its text: thoughts, or calls."""
        return self.style.reasoning is not None or self.prompt.use is not None

    def parser(self) -> ChatParser:
        """The reader of one answer."""
        prompt = self.prompt
        hide = self.body.skip_special_tokens is not False
        text = prompt.given.text or ""
        return self.style.parser(text, prompt.use, continued=prompt.continued, hide_special_tokens=hide)

    def usage(self, output: RequestOutput, ended: bool) -> dict[str, Any]:
        """Token counts so far; thoughts are counted at the end."""
        answers = output.outputs
        reasoning = 0
        if ended and self.style.reasoning is not None:
            text, continued = self.prompt.given.text or "", self.prompt.continued
            count = self.style.count_reasoning_tokens
            reasoning = sum(count(tuple(each.token_ids), text, continued) for each in answers)
        if self.method is not None and self.method.result is not None:
            return usage_of(self.method, reasoning)
        completion = sum(len(each.token_ids) for each in answers)
        return usage(len(output.prompt_token_ids), completion, output.num_cached_tokens, reasoning)

    def extras(self, output: RequestOutput) -> dict[str, Any]:
        """What is told of the prompt, where it was asked for."""
        told: dict[str, Any] = {}
        if self.body.prompt_logprobs is not None:
            told["prompt_logprobs"] = prompt_logprobs(self.names, of_prompt(output))
        if self.body.return_token_ids:
            told["prompt_token_ids"] = list(output.prompt_token_ids)
        return told

    def welcome(self, call: CallDelta) -> bool:
        """Whether a call is given: all but the first are left out where the request wants one at most."""
        return call.index == 0 or self.body.parallel_tool_calls is not False


@asynccontextmanager
async def asked_chat(
    server: Server, caller: Caller, body: ChatRequest, request_id: str, kind: str
) -> AsyncIterator[AskedChat]:
    """Check a request and make its prompt.

    Raises:
        ApiError, RequestError, SamplingParamsError: it cannot be served.
    """
    server.models.facts(body.model.partition(SEPARATOR)[0], caller)  # 404 comes before all else
    wanted = requested(body.model, body.ramify, body.seed)
    async with server.models.use(body.model if wanted is None else wanted.model, caller) as model:
        check_bounds(body, server.config.limits)
        body.check()
        style = chat_style(server, model)
        prompt = await chat_prompt(body, style, server.config.limits, model.max_model_len)
        params = chat_params(body, style, prompt)
        head = {
            "id": request_id,
            "object": kind,
            "created": int(time.time()),
            "model": body.model,
            "system_fingerprint": fingerprint(server, model),
        }
        call = call_of(body, caller, request_id)
        if wanted is None:
            outputs = run(server, model, [prompt.given], params, call)
            yield AskedChat(body, model, style, prompt, params, outputs, head)
            return
        method = method_run(server, model, body, wanted, prompt.given, params, call)
        outputs = method.outputs(bool(body.stream))
        yield AskedChat(body, model, style, prompt, params, outputs, head, method)


async def complete_chat(server: Server, caller: Caller, body: ChatRequest, request_id: str) -> dict[str, Any]:
    """The whole answer.

    Raises:
        ApiError, RequestError, SamplingParamsError, EngineError: see `asked_chat` and `run`.
    """
    async with asked_chat(server, caller, body, request_id, WHOLE) as asked:
        return await whole_chat(asked)


async def whole_chat(asked: AskedChat) -> dict[str, Any]:
    """The whole answer to a request that was understood."""
    output = (await last(asked.outputs))[0]
    choices = [_choice(asked, answer) for answer in output.outputs]
    told = {} if asked.method is None else {"ramify": ramify_field(asked.method)}
    return {**asked.head, "choices": choices, "usage": asked.usage(output, True), **asked.extras(output), **told}


def _choice(asked: AskedChat, answer: CompletionOutput) -> dict[str, Any]:
    parser = asked.parser()
    parser.push(answer.text)
    parser.finish()
    calls = [_call(call) for place, call in enumerate(parser.calls) if asked.welcome(CallDelta(place))]
    message: dict[str, Any] = {"role": "assistant", "content": parser.content, "refusal": None}
    if calls:
        message["tool_calls"] = calls
        message["content"] = parser.content or None
    if parser.reasoning and asked.body.include_reasoning is not False:
        message |= {"reasoning_content": parser.reasoning, "reasoning": parser.reasoning}
    choice: dict[str, Any] = {
        "index": answer.index,
        "message": message,
        "logprobs": None,
        "finish_reason": parser.finish_reason(answer.finish_reason),
        "stop_reason": answer.stop_reason,
    }
    if answer.logprobs is not None:
        choice["logprobs"] = logprobs_of(asked, answer, 0)
    if asked.body.return_token_ids:
        choice["token_ids"] = answer.token_ids
    return choice


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def logprobs_of(asked: AskedChat, answer: CompletionOutput, start: int) -> dict[str, Any]:
    """The log-probabilities of an answer's tokens from the `start`-th on."""
    tokens, positions = answer.token_ids[start:], (answer.logprobs or [])[start:]
    return {"content": chat_logprobs(asked.names, tokens, positions, asked.body.top_logprobs or 0), "refusal": None}
