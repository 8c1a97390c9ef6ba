"""OpenAI's request bodies as `SamplingParams`, and outputs as OpenAI's response bodies (chat and text completions).

A field that would change the answer is honoured or refused by name; none is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ramify.errors import RequestError
from ramify.sampling import Prompt, SamplingParams

if TYPE_CHECKING:
    from ramify.engine.outputs import CompletionOutput, PositionLogprobs, RequestOutput

Endpoint = Literal["/v1/chat/completions", "/v1/completions"]
CHAT: Endpoint = "/v1/chat/completions"
TEXT: Endpoint = "/v1/completions"
_SAME_NAME = {
    "n", "temperature", "top_p", "top_k", "min_p", "stop", "seed", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "max_tokens", "min_tokens", "stop_token_ids", "ignore_eos", "skip_special_tokens",
    "include_stop_str_in_output", "allowed_token_ids",
}  # fmt: skip
# Fields that do not change the answer, and values of other fields that say what happens anyway.
_NO_EFFECT = {"model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "stream": (False,),
    "stream_options": (None,),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none",),
    "echo": (False,),
    "suffix": ("",),
    "best_of": (1,),
}


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A request body that was understood: what to answer (chat messages or a prompt) and how to draw."""

    endpoint: Endpoint
    prompt: Prompt
    params: SamplingParams


def read_request(endpoint: str, body: Mapping[str, Any]) -> CompletionRequest:
    """Understand a request body.

    Raises:
        RequestError: another endpoint, no prompt, or a field that is unknown or has a value that is not supported.
        SamplingParamsError: a sampling field is out of its range.
    """
    if endpoint not in (CHAT, TEXT):
        raise RequestError(f"url {endpoint!r} is not supported: use {CHAT} or {TEXT}")
    source = "messages" if endpoint == CHAT else "prompt"
    prompt = body.get(source)
    if not prompt:
        raise RequestError(f"the body has no {source!r}")
    if endpoint == CHAT and not _are_messages(prompt):
        raise RequestError("'messages' must be a list of objects with 'role' and 'content'")
    if endpoint == TEXT and not (isinstance(prompt, str) or _are_ids(prompt)):
        raise RequestError("'prompt' must be one text or one list of token ids: give several prompts on several lines")
    fields = {name: value for name, value in body.items() if name not in (source, *_NO_EFFECT) and value is not None}
    params = {name: fields.pop(name) for name in list(fields) if name in _SAME_NAME}
    if "max_completion_tokens" in fields and endpoint == CHAT:
        params["max_tokens"] = fields.pop("max_completion_tokens")
    elif endpoint == CHAT:
        params.setdefault("max_tokens", None)
    if "logit_bias" in fields:
        params["logit_bias"] = _logit_bias(fields.pop("logit_bias"))
    params["logprobs"] = _logprobs(endpoint, fields)
    _check_rest(fields)
    try:
        return CompletionRequest(endpoint, prompt, SamplingParams(**params))
    except TypeError as error:
        raise RequestError(f"a field of the body has a value of the wrong type: {error}") from None


def response_body(request: CompletionRequest, output: RequestOutput, model: str, created_s: int) -> dict[str, Any]:
    """An output as OpenAI's completion object."""
    chat = request.endpoint == CHAT
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{output.request_id}",
        "object": "chat.completion" if chat else "text_completion",
        "created": created_s,
        "model": model,
        "choices": [_chat_choice(each) if chat else _text_choice(each) for each in output.outputs],
        "usage": usage(output),
    }


def usage(output: RequestOutput) -> dict[str, Any]:
    """An output's token counts."""
    completion = sum(len(each.token_ids) for each in output.outputs)
    prompt = len(output.prompt_token_ids)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": output.num_cached_tokens},
    }


def _chat_choice(completion: CompletionOutput) -> dict[str, Any]:
    logprobs = None
    if completion.logprobs is not None:
        entries = zip(completion.token_ids, completion.logprobs, strict=True)
        logprobs = {"content": [_chat_logprob(token, position) for token, position in entries], "refusal": None}
    return {
        "index": completion.index,
        "message": {"role": "assistant", "content": completion.text, "refusal": None},
        "logprobs": logprobs,
        "finish_reason": completion.finish_reason,
    }


def _chat_logprob(token: int, position: PositionLogprobs) -> dict[str, Any]:
    def entry(each: Any) -> dict[str, Any]:
        text = each.decoded_token
        return {"token": text, "logprob": each.logprob, "bytes": list(text.encode())}

    top = [entry(each) for each in sorted(position.values(), key=lambda each: each.rank)]
    return {**entry(position[token]), "top_logprobs": top}


def _text_choice(completion: CompletionOutput) -> dict[str, Any]:
    logprobs = None
    if completion.logprobs is not None:
        drawn = [position[token] for token, position in zip(completion.token_ids, completion.logprobs, strict=True)]
        offsets = [0]
        for each in drawn:
            offsets.append(offsets[-1] + len(each.decoded_token))
        logprobs = {
            "tokens": [each.decoded_token for each in drawn],
            "token_logprobs": [each.logprob for each in drawn],
            "top_logprobs": [{e.decoded_token: e.logprob for e in pos.values()} for pos in completion.logprobs],
            "text_offset": offsets[:-1],
        }
    return {
        "index": completion.index,
        "text": completion.text,
        "logprobs": logprobs,
        "finish_reason": completion.finish_reason,
    }


def _logprobs(endpoint: Endpoint, fields: dict[str, Any]) -> int | None:
    wanted, top = fields.pop("logprobs", None), fields.pop("top_logprobs", None)
    if endpoint == TEXT:
        if wanted is True or top is not None:
            raise RequestError("'logprobs' of a text completion is a number of alternatives, without 'top_logprobs'")
        return None if wanted is None or wanted is False else wanted
    if wanted not in (None, False, True):
        raise RequestError("'logprobs' of a chat completion is true or false; 'top_logprobs' gives the number")
    if not wanted and top:
        raise RequestError("'top_logprobs' needs 'logprobs': true")
    return (top or 0) if wanted else None


def _logit_bias(given: Any) -> dict[int, float]:
    try:
        return {int(token): float(bias) for token, bias in given.items()}
    except (AttributeError, TypeError, ValueError):
        raise RequestError(f"logit_bias={given!r} does not work: it must map token ids to numbers") from None


def _check_rest(fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name not in _HARMLESS:
            raise RequestError(f"the body's field {name!r} is not supported: leave it out")
        if value not in _HARMLESS[name]:
            raise RequestError(f"{name}={value!r} is not supported: leave it out")


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) and "role" in each for each in value)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, int) and not isinstance(each, bool) for each in value)
