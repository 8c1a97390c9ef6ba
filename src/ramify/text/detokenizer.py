"""`Detokenizer`: token ids in, text out as soon as it is final. What it gives adds up to the text of all ids at once.

The end of a text may still change: bytes of an unfinished character decode to U+FFFD, and under byte fallback one bad
byte turns its whole run of bytes into U+FFFD. Such an end is held back until the next token settles it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ramify.text.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"
# Tokens decoded again for context. An unfinished UTF-8 character has at most 3 bytes and a token at least one, so what
# follows a window of 4 tokens reads the same as after the whole text; the decoders' own context is one token.
CONTEXT_TOKENS = 4
_WINDOW_TOKENS = 4 * CONTEXT_TOKENS


class Detokenizer:
    """The text of one growing sequence, each piece given once.

    Args:
        tokenizer: of the model.
        skip_special_tokens: leave them out of the text.
        context: ids that come before (a prompt's, say): the text goes on after them, so that a first token keeps its
            leading space. Without it the text is `tokenizer.decode` of the ids alone.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = True, context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._skip_special_tokens = skip_special_tokens
        self._window: list[int] = []
        self._given = 0  # characters of the window's text that are out
        for token in reversed(context):
            if len(self._window) == CONTEXT_TOKENS:
                break
            if not self._is_silent(token):
                self._window.insert(0, token)
        if self._window:
            text = self._decode_window()
            self._given = len(text) - text.endswith(REPLACEMENT)

    def push(self, token_ids: Iterable[int]) -> str:
        """The text that became final with these tokens, which may be empty."""
        return "".join([self._push(token) for token in token_ids])

    def flush(self) -> str:
        """What was still held back, as it stands. After it a new sequence needs a new detokenizer."""
        text = self._decode_window()
        rest, self._given = text[self._given :], len(text)
        return rest

    def copy(self) -> Detokenizer:
        """For a fork of the sequence: goes on from here on its own."""
        return self.resume(self._tokenizer, self._skip_special_tokens, *self.state)

    @property
    def state(self) -> tuple[tuple[int, ...], int]:
        """All that `resume` needs: the last ids, and how many characters of their text are out."""
        return tuple(self._window), self._given

    @classmethod
    def resume(cls, tokenizer: Tokenizer, skip_special_tokens: bool, window: Sequence[int], given: int) -> Detokenizer:
        """A detokenizer that goes on where another one was, here or in another process."""
        twin = cls(tokenizer, skip_special_tokens)
        twin._window, twin._given = list(window), given
        return twin

    def _push(self, token: int) -> str:
        if self._is_silent(token):
            return ""
        self._window.append(token)
        if token in self._tokenizer.byte_ids:
            return ""
        text = self._decode_window()
        final = max(len(text) - text.endswith(REPLACEMENT), self._given)
        fresh, self._given = text[self._given : final], final
        if len(self._window) >= _WINDOW_TOKENS:
            self._shorten(len(text) - final)
        return fresh

    def _shorten(self, held: int) -> None:
        """Forget all but the context. Counted from the end, since a text cut at a token may start differently."""
        dropped = self._window[:-CONTEXT_TOKENS]
        del self._window[:-CONTEXT_TOKENS]
        text = self._decode_window()
        if not text:  # nothing to keep a leading space alive
            self._window[:0] = dropped
        else:
            self._given = len(text) - held

    def _decode_window(self) -> str:
        return self._tokenizer.decode(self._window, self._skip_special_tokens)

    def _is_silent(self, token: int) -> bool:
        """Whether a token leaves no trace in the text: a skipped special one, or one of a padded vocabulary's end."""
        if self._skip_special_tokens and token in self._tokenizer.special_ids:
            return True
        return self._tokenizer.backend.id_to_token(token) is None
