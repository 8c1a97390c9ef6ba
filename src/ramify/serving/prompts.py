"""Texts of requests as token ids: short ones here and now, long ones on a thread, so that no stream waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ramify.errors import RequestError
from ramify.sampling import TokenIds
from ramify.text.tokenizer import Tokenizer

INLINE_CHARACTERS = 2000
"""Encoding takes a few milliseconds for so many."""


@dataclass(frozen=True, slots=True)
class GivenPrompt:
    """A prompt as the model sees it.

    Attributes:
        ids: token ids.
        text: what they were encoded from; None where they were given as ids.
    """

    ids: TokenIds
    text: str | None


async def encode(tokenizer: Tokenizer, text: str, add_special_tokens: bool = True) -> TokenIds:
    """Ids of a text.

    Raises:
        RequestError: the text is no valid Unicode.
    """
    if len(text) <= INLINE_CHARACTERS:
        return tokenizer.encode(text, add_special_tokens)
    return await asyncio.to_thread(_encode_long, tokenizer, text, add_special_tokens)


def _encode_long(tokenizer: Tokenizer, text: str, add_special_tokens: bool) -> TokenIds:
    """The same ids, by the call of the library that lets other threads run meanwhile."""
    try:
        [encoding] = tokenizer.backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
    except TypeError:
        return tokenizer.encode(text, add_special_tokens)  # says what is wrong with it
    return tuple(encoding.ids)


async def text_prompt(tokenizer: Tokenizer, given: str | Sequence[int], add_special_tokens: bool = True) -> GivenPrompt:
    """A prompt of a text completion.

    Raises:
        RequestError: it is empty, or no valid Unicode.
    """
    if not isinstance(given, str):
        return GivenPrompt(tuple(given), None)
    ids = await encode(tokenizer, given, add_special_tokens)
    if not ids:
        raise RequestError("the prompt is empty (no token): give at least one")
    return GivenPrompt(ids, given)
