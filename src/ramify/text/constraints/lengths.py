"""How long an answer is and which ids it is made of."""

from __future__ import annotations

from dataclasses import dataclass

from ramify.errors import ConfigError
from ramify.sampling import TokenIds
from ramify.text.constraints.base import BoolArray, NextTokens, end_mask, text_mask
from ramify.text.constraints.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Length:
    """A number of tokens before the answer's end.

    Attributes:
        at_least: it may not end before so many tokens.
        at_most: it must end after so many; None for any number.
    """

    at_least: int = 0
    at_most: int | None = None

    def __post_init__(self) -> None:
        if self.at_least < 0 or (self.at_most is not None and self.at_most < self.at_least):
            raise ConfigError(
                f"at_least={self.at_least}, at_most={self.at_most} do not work: use 0 or more, and at_most not below it"
            )

    def over(self, vocabulary: Vocabulary) -> NextTokens:
        """Ends inside the limits, any text before."""
        text, end = text_mask(vocabulary), end_mask(vocabulary)

        def allowed(tokens: TokenIds) -> BoolArray:
            if len(tokens) < self.at_least:
                return text
            return end if self.at_most is not None and len(tokens) >= self.at_most else text | end

        return allowed


@dataclass(frozen=True, slots=True)
class AllowedIds:
    """Answers made of some tokens alone; they may end anywhere.

    Attributes:
        ids: the tokens.
    """

    ids: tuple[int, ...]

    def over(self, vocabulary: Vocabulary) -> NextTokens:
        """The ids and the end. Raises `ConfigError` for an id that the vocabulary does not have."""
        unknown = [index for index in self.ids if not 0 <= index < len(vocabulary)]
        if unknown:
            raise ConfigError(f"id {unknown[0]} is not in the vocabulary of {len(vocabulary)} tokens: leave it out")
        mask = end_mask(vocabulary).copy()
        mask[list(self.ids)] = True
        return lambda tokens: mask
