"""Texts that an answer must not contain, wherever the borders of its tokens fall.

An automaton over bytes (Aho and Corasick, 1975) knows after each prefix how much of a forbidden text has just been
written. A token is allowed where reading it completes none. One mask a state is computed when it is first needed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from ramify.errors import ConfigError
from ramify.sampling import TokenIds
from ramify.text.constraints.base import BoolArray, NextTokens, end_mask, text_mask
from ramify.text.constraints.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Forbidden:
    """Texts that must not occur in the answer, not even inside a word or across tokens. Case counts.

    Attributes:
        texts: what is forbidden.
    """

    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.texts or "" in self.texts:
            raise ConfigError(f"forbidden texts {self.texts!r} do not work: give at least one, and no empty one")

    def over(self, vocabulary: Vocabulary) -> NextTokens:
        """All tokens but those that complete a forbidden text."""
        automaton = _Automaton([text.encode() for text in self.texts])
        always = text_mask(vocabulary) | end_mask(vocabulary)
        states: dict[TokenIds, int] = {}
        masks: dict[int, BoolArray] = {}

        def state_after(tokens: TokenIds) -> int:
            if not tokens:
                return 0
            known = states.get(tokens[:-1])
            start, left = (0, tokens) if known is None else (known, tokens[-1:])
            if len(states) >= _MOST_STATES:
                states.clear()
            states[tokens] = found = automaton.read(start, b"".join(_piece(vocabulary, token) for token in left))
            return found

        def allowed(tokens: TokenIds) -> BoolArray:
            state = state_after(tokens)
            if state == _BROKEN:
                return np.zeros(len(vocabulary), dtype=np.bool_)
            if state not in masks:
                kept = [automaton.read(state, piece) != _BROKEN for piece in vocabulary.pieces]
                masks[state] = always & np.array(kept, dtype=np.bool_)
            return masks[state]

        return allowed


_BROKEN = -1
_MOST_STATES = 65536  # prefixes whose state is kept: enough for every branch of a run


class _Automaton:
    """States are prefixes of the patterns; 0 is the empty one."""

    def __init__(self, patterns: list[bytes]) -> None:
        self._next: list[dict[int, int]] = [{}]
        self._back = [0]
        self._ends = [False]
        for pattern in patterns:
            state = 0
            for byte in pattern:
                state = self._next[state].setdefault(byte, len(self._next))
                if state == len(self._next):
                    self._next.append({})
                    self._back.append(0)
                    self._ends.append(False)
            self._ends[state] = True
        self._link()

    def read(self, state: int, piece: bytes) -> int:
        """The state after more bytes; broken once a pattern was completed."""
        for byte in piece:
            if state == _BROKEN:
                break
            state = self._step(state, byte)
            if self._ends[state]:
                state = _BROKEN
        return state

    def _step(self, state: int, byte: int) -> int:
        while state and byte not in self._next[state]:
            state = self._back[state]
        return self._next[state].get(byte, 0)

    def _link(self) -> None:
        """For each state the longest shorter one that is a suffix of it, breadth first."""
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            for byte, child in self._next[state].items():
                self._back[child] = self._step(self._back[state], byte)
                self._ends[child] |= self._ends[self._back[child]]
                waiting.append(child)


def _piece(vocabulary: Vocabulary, token: int) -> bytes:
    return vocabulary.pieces[token] if token < len(vocabulary) else b""
