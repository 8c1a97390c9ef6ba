"""`ToyModel`: a language model that can be written down, so that a method's law can be checked exactly."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ramify.backends.base import FloatArray
from ramify.sampling import TokenIds


@dataclass(frozen=True, slots=True)
class ToyModel:
    """A language model that can be written down.

    Attributes:
        texts: the text of each token; the end-of-sequence token's is usually empty.
        table: for every prefix, the next token's probabilities: [len(texts)], sum 1. Any other prefix is at its end.
        eos: the end-of-sequence token.
    """

    texts: tuple[str, ...]
    table: Mapping[TokenIds, FloatArray]
    eos: int = 0

    @classmethod
    def random(cls, seed: int = 0, texts: tuple[str, ...] = ("", "a", "b\n", "c\n"), depth: int = 4) -> ToyModel:
        """A table of Dirichlet draws over answers of at most `depth` tokens; the last of them is always token 0."""
        generator = np.random.default_rng(seed)
        end = np.eye(len(texts))[0]
        table = {
            prefix: generator.dirichlet(np.ones(len(texts))) if length < depth - 1 else end
            for length in range(depth)
            for prefix in itertools.product(range(1, len(texts)), repeat=length)
        }
        return cls(texts, table)

    def text(self, tokens: TokenIds) -> str:
        """The text of some tokens."""
        return "".join(self.texts[token] for token in tokens)

    def next_token(self, prefix: TokenIds) -> FloatArray:
        """Probabilities of the next token, as the table has them."""
        given = self.table.get(prefix)
        return np.asarray(np.eye(len(self.texts))[self.eos] if given is None else given, dtype=np.float64)

    def conditional(self, prefix: TokenIds, temperature: float = 1.0) -> FloatArray:
        """Probabilities of the next token at a temperature (0: all on the most likely one, ties to the lowest id)."""
        given = self.next_token(prefix)
        if temperature == 0:
            return np.asarray(np.eye(len(given))[int(given.argmax())], dtype=np.float64)
        powered = np.where(given > 0, given / given.max(), 0.0) ** (1.0 / temperature)
        return np.asarray(powered / powered.sum(), dtype=np.float64)

    def law(self, temperature: float = 1.0) -> dict[TokenIds, float]:
        """Every answer that can be drawn, with its exact probability. The values sum to 1."""
        finished: dict[TokenIds, float] = {}
        open_prefixes: dict[TokenIds, float] = {(): 1.0}
        while open_prefixes:
            grown: dict[TokenIds, float] = {}
            for prefix, mass in open_prefixes.items():
                for token, chance in enumerate(self.conditional(prefix, temperature)):
                    if chance > 0:
                        (finished if token == self.eos else grown)[(*prefix, token)] = mass * float(chance)
            open_prefixes = grown
        return finished
