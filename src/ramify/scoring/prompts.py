"""Prompts that show a problem and answers to it to a model, for verifiers, judges and programs of calls."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ramify.errors import ConfigError
from ramify.sampling import Message, Prompt
from ramify.scoring.problem import Problem

_SLOT = re.compile(r"\{(\w+)\}")


def question_text(problem: Problem) -> str:
    """The problem as text: its prompt, or what the user's messages say.

    Raises:
        ConfigError: the prompt is token ids, which say nothing inside another prompt.
    """
    shown = text_or_messages(problem.prompt)
    if isinstance(shown, str):
        return shown
    said = [content_text(message) for message in shown or () if message.get("role") == "user"]
    if not said:
        raise ConfigError(f"problem {problem.id!r} has token ids for a prompt: showing it to a judge needs its text")
    return "\n\n".join(said)


def text_or_messages(prompt: Prompt) -> str | tuple[Message, ...] | None:
    """What a prompt says, in whichever form it was given; None for token ids alone."""
    if isinstance(prompt, Mapping):
        prompt = prompt.get("messages") or prompt.get("prompt") or ()
    if isinstance(prompt, str):
        return prompt
    messages = tuple(part for part in prompt if isinstance(part, Mapping))
    return messages or None


def content_text(message: Message) -> str:
    """The text of a message, its parts joined by line ends."""
    content: Any = message.get("content") or ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else ()
    return "\n".join(part if isinstance(part, str) else str(part.get("text") or "") for part in parts)


def fill(template: str, **parts: str) -> str:
    """The template with each ``{name}`` replaced, once: braces inside the parts stay as they are."""
    return _SLOT.sub(lambda slot: parts.get(slot.group(1), slot.group(0)), template)


def unknown_slots(template: str, known: Sequence[str]) -> list[str]:
    """Names in braces that would stay as they are."""
    return sorted({slot for slot in _SLOT.findall(template) if slot not in known})


def check_template(template: str, *slots: str) -> str:
    """The template, if it has all slots. Raises `ConfigError` that names a missing one."""
    missing = [slot for slot in slots if "{" + slot + "}" not in template]
    if missing:
        raise ConfigError(f"the template has no {{{missing[0]}}}: the model would not see it")
    return template
