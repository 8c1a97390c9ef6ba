"""A line of a batch, read and answered as the server would, on an engine of one's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError

from ramify import AsyncLLM
from ramify.errors import RequestError
from ramify.sampling import SamplingParams
from ramify.serving import chat, completions
from ramify.serving.chat_prompts import chat_params, chat_prompt
from ramify.serving.dispatch import CHAT, TEXT, read
from ramify.serving.errors import ApiError, as_api_error
from ramify.serving.limits import Limits
from ramify.serving.models import ServedModel
from ramify.serving.prompts import text_prompt
from ramify.serving.protocol.chat import ChatRequest
from ramify.serving.protocol.completions import CompletionRequest
from ramify.serving.running import Outputs, side_by_side, style_of

if TYPE_CHECKING:
    from ramify.serving.prompts import GivenPrompt

Body = ChatRequest | CompletionRequest


def read_body(url: str, body: Mapping[str, Any]) -> Body:
    """What a line asks for.

    Raises:
        RequestError: another endpoint, or a field that is unknown or does not work.
        SamplingParamsError: two fields contradict each other.
    """
    if url not in (CHAT, TEXT):
        raise RequestError(f"url {url!r} is not supported: use {CHAT} or {TEXT}")
    try:
        request: Body = read(ChatRequest, body) if url == CHAT else read(CompletionRequest, body)
    except RequestValidationError as error:
        raise RequestError(as_api_error(error).message) from None
    if request.stream:
        raise RequestError("a batch has no streams: leave stream out")
    if request.ramify is not None and request.ramify.strategy is not None:
        raise RequestError("a method runs on a server or under `ramify eval`: leave ramify.strategy out")
    request.params()
    return request


async def answer_body(llm: AsyncLLM, name: str, body: Body, request_id: str) -> dict[str, Any]:
    """The response's body.

    Raises:
        RequestError: it cannot be served, or was not done within its `timeout`.
        EngineError: it failed while it ran.
    """
    model = ServedModel(name, llm)
    try:
        async with asyncio.timeout(body.timeout):
            if isinstance(body, ChatRequest):
                return await _chat(model, body, request_id)
            return await _text(model, body, request_id)
    except TimeoutError:
        raise RequestError(f"the answer was not done within its timeout of {body.timeout} s") from None
    except ApiError as error:
        raise RequestError(error.message) from None


async def _chat(model: ServedModel, body: ChatRequest, request_id: str) -> dict[str, Any]:
    style = style_of(model.tokenizer)
    prompt = await chat_prompt(body, style, Limits(), model.max_model_len)
    params = chat_params(body, style, prompt)
    outputs = _outputs(model.llm, body, [prompt.given], params, request_id)
    head = _head(f"chatcmpl-{request_id}", chat.WHOLE, model)
    return await chat.whole_chat(chat.AskedChat(body, model, style, prompt, params, outputs, head))


async def _text(model: ServedModel, body: CompletionRequest, request_id: str) -> dict[str, Any]:
    special = body.add_special_tokens is not False
    prompts = [await text_prompt(model.tokenizer, given, model.max_model_len, special) for given in body.prompts()]
    params = body.params()
    outputs = _outputs(model.llm, body, prompts, params, request_id)
    head = _head(f"cmpl-{request_id}", completions.WHOLE, model)
    return await completions.whole_text(
        completions.TextRequest(body, request_id, model, prompts, params, outputs, head)
    )


def _head(request_id: str, kind: str, model: ServedModel) -> dict[str, Any]:
    return {"id": request_id, "object": kind, "created": int(time.time()), "model": model.name}


def _outputs(llm: AsyncLLM, body: Body, prompts: list[GivenPrompt], params: SamplingParams, request_id: str) -> Outputs:
    key = None if body.ramify is None else body.ramify.key
    child = 0 if body.ramify is None else body.ramify.child
    return side_by_side(
        [
            llm.generate(
                {"prompt_token_ids": prompt.ids},
                params,
                request_id if len(prompts) == 1 else f"{request_id}-{place}",
                priority=body.priority or 0,
                cache_salt=body.cache_salt or "",
                key=key,
                first_child=child,
            )
            for place, prompt in enumerate(prompts)
        ]
    )
