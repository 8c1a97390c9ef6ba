"""Conversations as prompts: messages, tools and template arguments through the model's chat template."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ramify.errors import RequestError
from ramify.sampling import SamplingParams, StructuredOutputsParams
from ramify.serving.errors import ApiError
from ramify.serving.limits import Limits
from ramify.serving.prompts import GivenPrompt, check_length, encode
from ramify.serving.protocol.chat import ChatMessage, ChatRequest, MediaPart, TextPart
from ramify.serving.protocol.tools import NamedToolChoice
from ramify.text.chat_format import ChatFormat, ToolUse
from ramify.text.tool_calls import check_tools

TEMPLATE_ARGUMENTS = frozenset(
    {
        "enable_thinking", "thinking", "thinking_budget", "reasoning_effort", "preserve_thinking", "clear_thinking",
        "keep_past_thinking", "skip_think", "date_string", "current_date", "today", "today_date", "model_identity",
        "tools_in_user_message",
    }
)  # fmt: skip
"""What clients may tell a chat template: how to think, and what day it is. Nothing that holds messages or tools."""
MAX_ARGUMENT_LENGTH = 1024
INLINE_CHARACTERS = 2000
"""Shorter conversations are rendered here and now; it takes less than a millisecond."""


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation that is ready to be answered.

    Attributes:
        given: text and ids.
        use: the tools that may be called; None without.
        continued: text of the last message, where the answer goes on inside it.
    """

    given: GivenPrompt
    use: ToolUse | None
    continued: str


async def chat_prompt(body: ChatRequest, style: ChatFormat, limits: Limits, max_model_len: int) -> ChatPrompt:
    """The prompt of a chat request.

    Raises:
        RequestError: the model has no template, or cannot do what is asked.
        ApiError: 400, the template took too long.
    """
    use = tool_use(body)
    arguments = {
        **style.effort(body.reasoning_effort).arguments,
        **template_arguments(body.chat_template_kwargs, variables_of(style)),
    }
    options: dict[str, Any] = {
        "add_generation_prompt": not body.continues and body.add_generation_prompt is not False,
        "continue_final_message": body.continues,
        **arguments,
    }
    special = bool(body.add_special_tokens)
    given = await render(
        style, body.messages, use, limits.template_timeout_s, special, max_model_len=max_model_len, **options
    )
    continued = text_of(len(body.messages) - 1, body.messages[-1]) if body.continues else ""
    return ChatPrompt(given, use, continued)


async def render(
    style: ChatFormat,
    messages: Sequence[ChatMessage],
    use: ToolUse | None,
    timeout_s: float,
    add_special_tokens: bool = False,
    *,
    max_model_len: int | None = None,
    **options: Any,
) -> GivenPrompt:
    """Messages through the chat template, with the options of `ChatTemplate.render`.

    Raises:
        RequestError: the template refuses them.
        PromptTooLongError: they cannot fit the context, where it is given.
        ApiError: 400, it took too long.
    """
    template = style.tokenizer.chat_template
    knows_developer = template is not None and "developer" in template.source
    plain = [plain_message(place, message, knows_developer) for place, message in enumerate(messages)]

    def text_of_template() -> str:
        prepared, tools = style.prepare(plain, use)
        return style.tokenizer.apply_chat_template(prepared, tools=tools, **options)

    if use is None and sum(len(message["content"]) for message in plain) <= INLINE_CHARACTERS:
        text = text_of_template()
    else:
        try:
            text = await asyncio.wait_for(asyncio.to_thread(text_of_template), timeout_s)
        except TimeoutError:
            raise ApiError(400, f"the chat template took more than {timeout_s:g} s: send shorter messages") from None
    if max_model_len is not None:
        check_length(style.tokenizer, text, max_model_len)
    ids = await encode(style.tokenizer, text, add_special_tokens)
    if not ids:
        raise RequestError("the conversation is empty (no token): give at least one message with text")
    return GivenPrompt(ids, text)


def chat_params(body: ChatRequest, style: ChatFormat, prompt: ChatPrompt) -> SamplingParams:
    """How the answer is drawn: also the forms that tools ask for, and the limit on thinking.

    Raises:
        RequestError, SamplingParamsError: fields contradict each other, or the model cannot do it.
    """
    budget = body.thinking_token_budget
    if budget is None:
        budget = style.effort(body.reasoning_effort).budget
    form = _structure(body, style, prompt.use)
    more: dict[str, Any] = {"structured_outputs": form}
    if budget is not None or form is not None:
        more["thinking_marks"] = style.thinking_marks(prompt.given.text or "", prompt.continued)
        more["thinking_token_budget"] = budget
    if style.needs_special_tokens(prompt.use):
        more["skip_special_tokens"] = False
    return body.params(**more)


def _structure(body: ChatRequest, style: ChatFormat, use: ToolUse | None) -> StructuredOutputsParams | None:
    form = body.structure()
    return form if use is None else style.structure(use, form)


def tool_use(body: ChatRequest) -> ToolUse | None:
    """The tools that an answer may call; None where there are none, or the choice is "none".

    Raises:
        RequestError: a tool's name or schema does not work.
    """
    if not body.tools or body.tool_choice == "none":
        return None
    tools = check_tools([tool.model_dump(exclude_none=True) for tool in body.tools])
    choice, several = body.tool_choice, body.parallel_tool_calls is not False
    if isinstance(choice, NamedToolChoice):
        return ToolUse(tools, "named", several, choice.function.name)
    return ToolUse(tools, choice or "auto", several)


def plain_message(place: int, message: ChatMessage, knows_developer: bool = True) -> dict[str, Any]:
    """A message as templates take it: text joined, developers as the system where the template knows none.

    Raises:
        RequestError: a part of it is no text.
    """
    plain = message.model_dump(exclude_none=True, exclude={"prefix", "reasoning"})
    plain["content"] = text_of(place, message)
    if message.reasoning is not None:
        plain.setdefault("reasoning_content", message.reasoning)
    if message.role == "developer" and not knows_developer:
        plain["role"] = "system"
    return plain


def text_of(place: int, message: ChatMessage) -> str:
    """The text of a message.

    Raises:
        RequestError: a part of it is no text.
    """
    if isinstance(message.content, list):
        return "\n".join(_part_text(place, number, part) for number, part in enumerate(message.content))
    return message.content or ""


def _part_text(place: int, number: int, part: TextPart | MediaPart) -> str:
    if isinstance(part, TextPart):
        return part.plain()
    raise RequestError(
        f"messages.{place}.content.{number} is of type {part.type!r} and this model reads text only: send text parts"
    )


def variables_of(style: ChatFormat) -> frozenset[str]:
    """The names that a model's chat template reads."""
    template = style.tokenizer.chat_template
    return frozenset() if template is None else template.variables


def template_arguments(given: Mapping[str, Any] | None, variables: frozenset[str]) -> dict[str, Any]:
    """A request's `chat_template_kwargs`.

    Args:
        given: names and values.
        variables: what the model's template reads.

    Raises:
        RequestError: a name is not allowed, or the template would pass over it.
    """
    taken: dict[str, Any] = {}
    for name, value in (given or {}).items():
        if name not in TEMPLATE_ARGUMENTS:
            known = ", ".join(sorted(TEMPLATE_ARGUMENTS & variables)) or "none"
            raise RequestError(
                f"chat_template_kwargs has {name[:80]!r}, which is not allowed (this model reads: {known})"
            )
        if isinstance(value, str) and len(value) > MAX_ARGUMENT_LENGTH:
            raise RequestError(f"chat_template_kwargs.{name} is longer than {MAX_ARGUMENT_LENGTH} characters")
        if name in variables:
            taken[name] = value
        elif value:
            raise RequestError(f"chat_template_kwargs has {name!r}, which this model's chat template does not read")
    return taken
