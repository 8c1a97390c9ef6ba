"""Texts of requests as token ids: short ones here and now, long ones on a thread, so that no stream waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ramify.errors import PromptTooLongError, RequestError
from ramify.sampling import TokenIds
from ramify.text.tokenizer import Tokenizer

INLINE_CHARACTERS = 2000
"""Encoding takes a few milliseconds for so many."""

COUNTED_CHARACTERS = 64 * 1024
"""Texts up to here are always encoded, so that an error can give their number of tokens."""


@dataclass(frozen=True, slots=True)
class GivenPrompt:
    """A prompt as the model sees it.

    Attributes:
        ids: token ids.
        text: what they were encoded from; None where they were given as ids.
    """

    ids: TokenIds
    text: str | None


def check_length(tokenizer: Tokenizer, text: str, max_model_len: int) -> None:
    """Refuse a text that is too long whatever its tokens are, before any work on it.

    Raises:
        PromptTooLongError: not even the longest tokens would make it fit.
    """
    if len(text) <= COUNTED_CHARACTERS:
        return
    most = max_model_len * longest_token(tokenizer)
    if len(text) > most:
        raise PromptTooLongError(
            f"the prompt has {len(text):,} characters and the context is {max_model_len:,} tokens, which hold {most:,} "
            "at the very most: shorten it"
        )


@lru_cache(maxsize=8)
def longest_token(tokenizer: Tokenizer) -> int:
    """Characters of the vocabulary's longest token."""
    return max(map(len, tokenizer.backend.get_vocab(with_added_tokens=True)))


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


async def text_prompt(
    tokenizer: Tokenizer, given: str | Sequence[int], max_model_len: int, add_special_tokens: bool = True
) -> GivenPrompt:
    """A prompt of a text completion.

    Raises:
        RequestError: it is empty, or no valid Unicode.
        PromptTooLongError: it cannot fit the context.
    """
    if not isinstance(given, str):
        if len(given) > max_model_len:
            raise PromptTooLongError(
                f"the prompt has {len(given):,} tokens and the context is {max_model_len:,}: shorten it"
            )
        return GivenPrompt(tuple(given), None)
    check_length(tokenizer, given, max_model_len)
    ids = await encode(tokenizer, given, add_special_tokens)
    if not ids:
        raise RequestError("the prompt is empty (no token): give at least one")
    return GivenPrompt(ids, given)
