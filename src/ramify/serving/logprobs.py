"""Log-probabilities in the forms of the API: chat's list of tokens, text's parallel lists, vLLM's for prompts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ramify.engine.outputs import Logprob, PositionLogprobs, RequestOutput
from ramify.text.constraints.vocabulary import token_bytes
from ramify.text.detokenizer import Detokenizer
from ramify.text.tokenizer import Tokenizer

_MANY = 65536
PromptLogprobs = Sequence[PositionLogprobs | None]


class TokenNames:
    """How tokens are written in log-probabilities.

    Args:
        tokenizer: of the model.
        as_ids: as "token_id:5" instead of their text.
    """

    def __init__(self, tokenizer: Tokenizer, as_ids: bool = False) -> None:
        self._tokenizer = tokenizer
        self._as_ids = as_ids

    def name(self, token: int, entry: Logprob | None = None) -> str:
        """One token; `entry` spares looking its text up."""
        if self._as_ids:
            return f"token_id:{token}"
        return self._tokenizer.token_text(token) if entry is None else entry.decoded_token

    def chat(self, token: int, entry: Logprob) -> dict[str, Any]:
        """One token with its log-probability and its bytes."""
        raw = _bytes(self._tokenizer, token)
        return {"token": self.name(token, entry), "logprob": entry.logprob, "bytes": list(raw)}


@lru_cache(maxsize=_MANY)
def _bytes(tokenizer: Tokenizer, token: int) -> bytes:
    return token_bytes(tokenizer, token) or tokenizer.token_text(token).encode()


def chat_logprobs(
    names: TokenNames, tokens: Sequence[int], positions: Sequence[PositionLogprobs], top: int
) -> list[dict[str, Any]]:
    """The entries of `logprobs.content`, one a token, each with the `top` most likely ones."""
    entries = []
    for token, position in zip(tokens, positions, strict=True):
        ranked = sorted(position.items(), key=lambda item: item[1].rank)
        likely = [names.chat(other, entry) for other, entry in ranked if entry.rank <= top][:top]
        entries.append({**names.chat(token, position[token]), "top_logprobs": likely})
    return entries


def text_logprobs(
    names: TokenNames,
    tokens: Sequence[int],
    positions: Sequence[PositionLogprobs | None],
    offsets: Sequence[int],
) -> dict[str, Any]:
    """The parallel lists of a text completion. The first token of a prompt has no log-probability: None."""
    listed: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [*offsets]}
    for token, position in zip(tokens, positions, strict=True):
        entry = None if position is None else position[token]
        listed["tokens"].append(names.name(token, entry))
        listed["token_logprobs"].append(None if entry is None else entry.logprob)
        listed["top_logprobs"].append(None if position is None else _top(names, position))
    return listed


def _top(names: TokenNames, position: PositionLogprobs) -> dict[str, float]:
    """By text; of tokens that read the same, the likeliest."""
    top: dict[str, float] = {}
    for token, entry in sorted(position.items(), key=lambda item: item[1].rank):
        top.setdefault(names.name(token, entry), entry.logprob)
    return top


class TextOffsets:
    """Where the text of each token of a growing sequence begins.

    Args:
        tokenizer: of the model.
        skip_special_tokens: as for the text.
        start: characters before the first token.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool, start: int = 0) -> None:
        self._detokenizer = Detokenizer(tokenizer, skip_special_tokens)
        self._length = start

    def of(self, tokens: Sequence[int]) -> list[int]:
        """The offsets of the next tokens, in characters."""
        offsets = []
        for token in tokens:
            offsets.append(self._length)
            self._length += len(self._detokenizer.push([token]))
        return offsets


def of_prompt(output: RequestOutput) -> PromptLogprobs:
    """A prompt's entries; a prompt of one token has none to tell."""
    return output.prompt_logprobs or [None] * len(output.prompt_token_ids)


def prompt_logprobs(names: TokenNames, positions: PromptLogprobs) -> list[dict[str, Any] | None]:
    """A prompt's, as vLLM gives them: token id -> log-probability, rank and text; None for the first token."""
    return [
        None
        if position is None
        else {
            str(token): {
                "logprob": entry.logprob,
                "rank": entry.rank,
                "decoded_token": names.name(token, entry),
            }
            for token, entry in position.items()
        }
        for position in positions
    ]
