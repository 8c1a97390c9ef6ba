"""Prompts that show a problem and answers to it to a model, for verifiers, judges and programs of calls."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ramify.errors import ConfigError
from ramify.scoring.problem import Problem

_SLOT = re.compile(r"\{(\w+)\}")


def question_text(problem: Problem) -> str:
    """The problem as text: its prompt, or what the user's messages say.

    Raises:
        ConfigError: the prompt is token ids, which say nothing inside another prompt.
    """
    prompt = problem.prompt
    if isinstance(prompt, Mapping):
        prompt = prompt.get("prompt") or ()
    if isinstance(prompt, str):
        return prompt
    said = [str(part["content"]) for part in prompt if isinstance(part, Mapping) and part.get("role") == "user"]
    if not said:
        raise ConfigError(f"problem {problem.id!r} has token ids for a prompt: showing it to a judge needs its text")
    return "\n\n".join(said)


def fill(template: str, **parts: str) -> str:
    """The template with each ``{name}`` replaced, once: braces inside the parts stay as they are."""
    return _SLOT.sub(lambda slot: parts.get(slot.group(1), slot.group(0)), template)


def check_template(template: str, *slots: str) -> str:
    """The template, if it has all slots. Raises `ConfigError` that names a missing one."""
    missing = [slot for slot in slots if "{" + slot + "}" not in template]
    if missing:
        raise ConfigError(f"the template has no {{{missing[0]}}}: the model would not see it")
    return template
