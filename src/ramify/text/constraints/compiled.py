"""`CompiledGrammar`: a grammar over one vocabulary, through llguidance, ready to be followed token by token.

Every way to write an allowed text in tokens is allowed: llguidance's habit of forcing one tokenisation where the text
is determined is switched off, for it would change the law of the answers. A grammar may come from anybody: its size,
the work it takes to read and the work of each mask are bounded.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ramify.errors import ConfigError, RequestError
from ramify.text.constraints.base import BoolArray, end_mask
from ramify.text.constraints.vocabulary import Vocabulary

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MAX_GRAMMAR_BYTES = 256 * 1024
"""The longest grammar that is read: its rules may nest as deep as it is long; `deep_thread` has the stack for it."""
_NO_FORCING = '\n%llguidance {"no_forcing": true}\n'  # at the end, so that a grammar cannot say otherwise
_NOTHING_FOLLOWS = "NoExtensionBias"  # these are words of llguidance
_NOT_ALLOWED = re.compile("doesn't satisfy the grammar|parser stopped|out of range")
_STACK_BYTES = 512 * 1024 * 1024  # 16 KB for each level that a grammar of the greatest size can have; taken as needed
_LONGEST_MESSAGE = 300


class CompiledGrammar:
    """What a text of a grammar may go on with. Reading it may take a while: use a `deep_thread`.

    Args:
        lark: the grammar, in llguidance's variant of Lark's syntax.
        vocabulary: of the model.
        what: its name in messages.

    Attributes:
        worn: what following it taught it has become too much: read it anew.

    Raises:
        ConfigError: it cannot be read, it is too large, or no text is derived from it.
    """

    def __init__(self, lark: str, vocabulary: Vocabulary, what: str) -> None:
        size = len(lark.encode(errors="replace"))
        if size > MAX_GRAMMAR_BYTES:
            raise ConfigError(f"the {what} takes {size:,} bytes as a grammar: use at most {MAX_GRAMMAR_BYTES:,}")
        import llguidance

        self.vocabulary = vocabulary
        limits = llguidance.LLParserLimits(
            initial_lexer_fuel=500_000,  # about 10 ms
            step_lexer_fuel=100_000,  # about 7 ms a mask
            step_max_items=20_000,  # about 1 ms a mask
            max_lexer_states=20_000,  # up to 40 MB
            max_grammar_size=100_000,  # symbols
            verbose_errors=False,
        )
        matcher = llguidance.LLMatcher(_tokenizer(vocabulary), lark + _NO_FORCING, log_level=0, limits=limits)
        if matcher.is_error():
            raise ConfigError(f"the {what} cannot be used: {_reason(matcher.get_error())}")
        self.worn = False
        self._first = Follower(matcher, self)
        try:
            stuck = not self._first.copy().allowed().any() and not self._first.complete
        except RequestError as error:
            raise ConfigError(f"the {what} cannot be used: {error}") from None
        if stuck:
            raise ConfigError(f"the {what} cannot be used: no text is derived from it")

    def follow(self) -> Follower:
        """At the start of an answer."""
        return self._first.copy()


class Follower:
    """How far one answer has come; a function of the tokens it has read. Made by `CompiledGrammar.follow`."""

    def __init__(self, matcher: LLMatcher, grammar: CompiledGrammar, num_read: int = 0) -> None:
        self._matcher = matcher
        self._grammar = grammar
        self.num_read = num_read

    def read(self, tokens: Sequence[int]) -> bool:
        """Go on by some tokens; False where they are not allowed, and it is of no use any more then.

        Raises:
            RequestError: the grammar takes too much work here.
        """
        self.num_read += len(tokens)
        if not tokens or self._matcher.consume_tokens(list(tokens)):
            return True
        if not _NOT_ALLOWED.search(self._matcher.get_error()):
            raise self._too_much()
        return False

    def allowed(self) -> BoolArray:
        """Which tokens may come next, [vocabulary]; ends are none of them.

        Raises:
            RequestError: the grammar takes too much work here.
        """
        vocabulary = self._grammar.vocabulary
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error() and not self._matcher.get_error().startswith(_NOTHING_FOLLOWS):
            raise self._too_much()
        mask = np.unpackbits(bits, bitorder="little")[: len(vocabulary)].astype(np.bool_)
        mask &= ~end_mask(vocabulary)
        return mask

    @property
    def complete(self) -> bool:
        """Whether the answer may end here."""
        return bool(self._matcher.is_accepting())

    def copy(self) -> Follower:
        """Another that has read the same."""
        return Follower(self._matcher.deep_copy(), self._grammar, self.num_read)

    def _too_much(self) -> RequestError:
        self._grammar.worn = True
        return RequestError(
            f"the form takes too much work to follow ({_reason(self._matcher.get_error())}): simplify it"
        )


def compile_grammar(lark: str, vocabulary: Vocabulary, what: str) -> CompiledGrammar:
    """A `CompiledGrammar`, read on a deep thread while the caller waits; raises as it does."""
    return _reader().submit(CompiledGrammar, lark, vocabulary, what).result()


@lru_cache(maxsize=1)
def _reader() -> ThreadPoolExecutor:
    return deep_thread("ramify-grammars")


def deep_thread(name: str) -> ThreadPoolExecutor:
    """One thread with the stack that the deepest grammar needs, to compile on; whoever asks for it ends it."""
    before = threading.stack_size(_STACK_BYTES)
    try:
        executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        executor.submit(int).result()  # the thread starts with its first work
    finally:
        threading.stack_size(before)
    return executor


def prepare_vocabulary(vocabulary: Vocabulary) -> None:
    """Make what all grammars of a vocabulary share; it is kept."""
    _tokenizer(vocabulary)


def _reason(error: str) -> str:
    """What matters of llguidance's message: its first line, without a place that is not the user's, and what a regular
    expression's parser says at the end of its picture."""
    lines = error.strip().splitlines()
    line = " ".join([lines[0], *(later.strip() for later in lines[1:] if later.strip().startswith("error: "))])
    line = re.sub(r"^at \d+\(\d+\): failed to compile JSON schema: ", "", line)
    line = re.sub(r"^(?:at )?(\d+)\(\d+\): ", r"line \1: ", line)
    return line if len(line) <= _LONGEST_MESSAGE else line[:_LONGEST_MESSAGE] + "..."


@lru_cache(maxsize=8)
def _tokenizer(vocabulary: Vocabulary) -> LLTokenizer:
    import llguidance

    wrapped: Any = llguidance.TokenizerWrapper(_Pieces(vocabulary))
    return llguidance.LLTokenizer(wrapped, slices=llguidance.LLTokenizer.general_slices())


class _Pieces:
    """A vocabulary in the form that llguidance asks for: tokens that are no text begin with a byte of no text."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = [piece or b"\xff<%d>" % index for index, piece in enumerate(vocabulary.pieces)]
        for text, index in vocabulary.specials.items():
            self.tokens[index] = b"\xff" + text.encode()
        self.special_token_ids = [index for index, piece in enumerate(vocabulary.pieces) if not piece]
        self.eos_token_id = min((index for index in vocabulary.end_ids if index < len(vocabulary)), default=None)
        if self.eos_token_id is None:  # it asks for one; a place of its own that nothing ever allows
            self.eos_token_id = len(self.tokens)
            self.tokens.append(b"\xff<end>")
            self.special_token_ids.append(self.eos_token_id)

    def __call__(self, text: bytes | str) -> list[int]:
        """Tokens of a text: only asked for where one tokenisation is forced, which is switched off."""
        return []
