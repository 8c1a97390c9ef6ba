"""From a chat or text completion that asks for a method to its run: what such a call may hold, and its prompt."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ramify.sampling import Prompt, SamplingParams
from ramify.serving.chat_prompts import plain_message
from ramify.serving.errors import ApiError
from ramify.serving.generation import Call
from ramify.serving.methods.request import Requested
from ramify.serving.methods.run import MethodRun
from ramify.serving.models import ServedModel
from ramify.serving.prompts import GivenPrompt
from ramify.serving.protocol.chat import ChatRequest
from ramify.serving.protocol.completions import CompletionRequest
from ramify.serving.server import Server

_SAMPLING = frozenset(each.name for each in fields(SamplingParams))
_OWN: dict[str, tuple[Any, str]] = {
    "n": (1, "a method gives one answer: ask for its candidates (ramify.candidates), and for more by its own n"),
    "best_of": (1, "use the strategy best-of-n"),
    "echo": (False, "the answer alone is given back"),
    "prompt_logprobs": (None, "ask for them without a method"),
}
"""Fields that mean something else under a method: the value that asks for nothing, and what to do."""


def method_run(
    server: Server,
    model: ServedModel,
    body: ChatRequest | CompletionRequest,
    asked: Requested,
    prompt: GivenPrompt,
    params: SamplingParams,
    call: Call,
) -> MethodRun:
    """The run of a method for a call.

    Raises:
        ApiError: 400, the call holds what a method cannot do, or asks for what the server does not give.
    """
    for name, (usual, instead) in _OWN.items():
        value = getattr(body, name, None)
        if value is not None and value is not usual:
            raise ApiError(400, f"{name}={value} does not work with a method: {instead}", param=name)
    if isinstance(body, CompletionRequest) and len(body.prompts()) > 1:
        message = f"{len(body.prompts())} prompts with a method do not work: send one prompt a request"
        raise ApiError(400, message, param="prompt")
    if body.ramify is not None and body.ramify.branch_key is not None:
        message = "ramify.branch_key names the draws of a plain call: leave it out with a method"
        raise ApiError(400, message, param="ramify.branch_key")
    told = _told_chat(body, prompt) if isinstance(body, ChatRequest) else _told_text(model, prompt)
    return MethodRun(server, model, asked, prompt, told, params, _given(body), call)


def _given(body: ChatRequest | CompletionRequest) -> frozenset[str]:
    """Fields of `SamplingParams` that a call sets."""
    given = {name for name in body.model_fields_set if getattr(body, name) is not None}
    if "max_completion_tokens" in given:
        given.add("max_tokens")
    return frozenset(given & _SAMPLING)


def _told_chat(body: ChatRequest, prompt: GivenPrompt) -> Prompt:
    """A conversation with all that its template is told: other models than the main one have templates of their own."""
    template: dict[str, Any] = {
        "add_generation_prompt": not body.continues and body.add_generation_prompt is not False,
        "continue_final_message": body.continues,
    }
    if body.tools and body.tool_choice != "none":
        template["tools"] = [tool.model_dump(exclude_none=True) for tool in body.tools]
    messages = tuple(plain_message(place, message, False) for place, message in enumerate(body.messages))
    return {"prompt_token_ids": prompt.ids, "messages": messages, "template": template}


def _told_text(model: ServedModel, prompt: GivenPrompt) -> Prompt:
    """A text, also where it was given as ids: judges and other models read it."""
    text = model.tokenizer.decode(prompt.ids, skip_special_tokens=False) if prompt.text is None else prompt.text
    return {"prompt_token_ids": prompt.ids, "prompt": text}
