"""What programs that revise answers share: asking a batch, and reading replies strictly.

A reply is a critique or a whole new answer. One that cannot be used is left out with a note, and is never an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ramify.backends.base import Node
from ramify.errors import BudgetExhausted, ConfigError, PromptTooLongError
from ramify.strategies.kernel.context import Context

DONE = "DONE"
"""What a critic writes, alone on its last line, where nothing is left to improve."""
_DECORATION = " \t.!*_`[]\"'"
_NUMBER = re.compile(r"(?<![\w.-])\d{1,9}(?![\w-]|\.\d)")


async def ask_each(
    context: Context, prompts: Sequence[str], model: str | None = None, **sampling: Any
) -> list[Node | None]:
    """One reply to each prompt, in their order, charged to "program"; None where the context does not hold the prompt.

    The list is shorter than the prompts where the budget ends. Without a budget all are drawn together; with one they
    are drawn one by one, so that what was paid for before it ended is not lost. Replies hold no memory.

    Raises:
        BudgetExhausted: not even one could be drawn.
    """
    replies: list[Node | None] = []
    try:
        groups = [list(prompts)] if unlimited(context) else [[prompt] for prompt in prompts]
        for group in groups:
            replies += await _ask_group(context, group, model, sampling)
    except BudgetExhausted:
        if not replies:
            raise
    context.retire([reply for reply in replies if reply is not None])
    return replies


async def ask_one(context: Context, prompt: str, model: str | None = None, **sampling: Any) -> Node | None:
    """`ask_each` of one prompt."""
    return (await ask_each(context, [prompt], model, **sampling))[0]


def unlimited(context: Context) -> bool:
    """Whether nothing but time can end the run, so that whole batches may be paid for at once."""
    return context.budget.tokens is None and context.budget.dollars is None


def fault_of(reply: Node | None) -> str | None:
    """Why a reply cannot be used, in words; None if it can."""
    if reply is None:
        return "the prompt is longer than the context"
    if not reply.text.strip():
        return "the reply is empty"
    return None


def says_done(reply: Node) -> bool:
    """Whether the last line of a critique is the word DONE alone; a critique that was cut never says so."""
    lines = reply.text.strip().splitlines()
    return reply.finish_reason == "stop" and bool(lines) and lines[-1].strip(_DECORATION).upper() == DONE


def read_places(text: str, count: int) -> list[int]:
    """Places, from 0, of items that a reply names by whole numbers from 1 to `count`: each once, others left out."""
    numbers = [int(found) for found in _NUMBER.findall(text)]
    return list(dict.fromkeys(number - 1 for number in numbers if 1 <= number <= count))


def numbered(label: str, texts: Sequence[str]) -> str:
    """Texts under headings "label 1:", "label 2:"; a single one has no number."""
    if len(texts) == 1:
        return f"{label}:\n{texts[0].strip()}"
    return "\n\n".join(f"{label} {number}:\n{text.strip()}" for number, text in enumerate(texts, 1))


def check_at_least(least: int, **options: int) -> None:
    """Refuse counts that are too small. Raises `ConfigError` that names the option."""
    for name, value in options.items():
        if value < least:
            raise ConfigError(f"{name}={value} does not work: it must be {least} or more")


async def _ask_group(
    context: Context, prompts: list[str], model: str | None, sampling: dict[str, Any]
) -> list[Node | None]:
    """All together; where one is too long, one by one."""
    try:
        return list(await context.ask_all(prompts, model=model, **sampling))
    except PromptTooLongError:
        if len(prompts) == 1:
            return [None]
        return [(await _ask_group(context, [prompt], model, sampling))[0] for prompt in prompts]
