"""``/tokenize`` and ``/detokenize``: what a model's tokenizer makes of a text or a conversation, and back."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter

from ramify.serving.chat_prompts import render, template_arguments, variables_of
from ramify.serving.errors import ApiError
from ramify.serving.models import ServedModel
from ramify.serving.prompts import GivenPrompt, encode
from ramify.serving.protocol.answers import Detokenized, TokenizerInfo, Tokens, documented
from ramify.serving.protocol.tokenize import DetokenizeRequest, TokenizeRequest, TokenizeText
from ramify.serving.running import chat_style
from ramify.serving.server import Server, TheCaller, TheServer
from ramify.text.chat_format import ToolUse
from ramify.text.tool_calls import check_tools

router = APIRouter()


@router.post("/tokenize", **documented(Tokens))
async def tokenize(body: TokenizeRequest, server: TheServer, caller: TheCaller) -> dict[str, Any]:
    """The token ids of a text, or of a conversation through the model's chat template."""
    async with server.models.use(body.model or server.models.names()[0], caller) as model:
        prompt = await _prompt(server, model, body)
        strings = [model.tokenizer.token_text(token) for token in prompt.ids] if body.return_token_strs else None
        return {
            "count": len(prompt.ids),
            "max_model_len": model.max_model_len,
            "tokens": list(prompt.ids),
            "token_strs": strings,
        }


async def _prompt(server: Server, model: ServedModel, body: TokenizeRequest) -> GivenPrompt:
    if isinstance(body, TokenizeText):
        _check_length(server, "prompt", len(body.prompt))
        ids = await encode(model.tokenizer, body.prompt, body.add_special_tokens is not False)
        return GivenPrompt(ids, body.prompt)
    style = chat_style(server, model)
    continues = bool(body.continue_final_message)
    use = ToolUse(check_tools([tool.model_dump(exclude_none=True) for tool in body.tools])) if body.tools else None
    return await render(
        style,
        body.messages,
        use,
        server.config.limits.template_timeout_s,
        bool(body.add_special_tokens),
        add_generation_prompt=not continues if body.add_generation_prompt is None else body.add_generation_prompt,
        continue_final_message=continues,
        **template_arguments(body.chat_template_kwargs, variables_of(style)),
    )


def _check_length(server: Server, field: str, length: int) -> None:
    """All of the answer is made at once, and is longer than what was sent."""
    bound = server.config.limits.max_tokenize
    if length > bound:
        raise ApiError(
            400, f"{field} has a length of {length:,}, beyond the {bound:,} of a call: send parts", param=field
        )


@router.post("/detokenize", **documented(Detokenized))
async def detokenize(body: DetokenizeRequest, server: TheServer, caller: TheCaller) -> dict[str, Any]:
    """The text of token ids, special tokens included."""
    _check_length(server, "tokens", len(body.tokens))
    async with server.models.use(body.model or server.models.names()[0], caller) as model:
        return {"prompt": await asyncio.to_thread(model.tokenizer.decode, body.tokens, False)}


@router.get("/tokenizer_info", **documented(TokenizerInfo))
async def tokenizer_info(server: TheServer, caller: TheCaller, model: str | None = None) -> dict[str, Any]:
    """What a client needs to prepare prompts by itself: the special tokens and the chat template."""
    async with server.models.use(model or server.models.names()[0], caller) as served:
        tokenizer = served.tokenizer
        named = {name: tokenizer.special_tokens.get(name) for name in ("bos_token", "eos_token", "pad_token")}
        template = tokenizer.chat_template
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **named,
            "vocab_size": tokenizer.vocab_size,
            "model_max_length": served.max_model_len,
            "chat_template": None if template is None else template.source,
        }
