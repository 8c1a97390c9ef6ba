"""P(true): how likely the model itself finds "Yes" when it is asked whether its answer is correct.

Kadavath et al., arXiv:2207.05221; as a confidence that stops sampling: Huang et al., arXiv:2503.00031. It costs two
short forward passes behind the answer and no second model. What it is worth is a matter of calibration (see
`calibration`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ramify.backends.base import Backend, Capability, Node
from ramify.errors import ConfigError, ScorerError
from ramify.registry import register
from ramify.sampling import TokenIds
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Reading, ScoreBatch


@register(
    "p-true",
    kind="scorer",
    trade="approximate",
    needs=(Capability.PROMPT_SCORING, Capability.TOKENS),
    paper="arXiv:2503.00031",
    page="techniques/calibration.md",
)
@dataclass(frozen=True, slots=True)
class PTrue:
    """P(yes) / (P(yes) + P(no)) behind the answer and a question whether it is correct, from 0 to 1.

    Its tokens, suffix and word for both words, are counted as `probe` in the ledger and reserved before they are run.

    Attributes:
        suffix: the question, put behind the answer.
        yes, no: the two words that may follow it.
        cut: tokens left out at the end of a finished answer, so that the question stands in the same text: its
            end-of-sequence. 0 where the suffix itself begins a new turn.
    """

    suffix: str = "\nIs this answer correct? (Yes/No)\n"
    yes: str = "Yes"
    no: str = "No"
    cut: int = 1

    def __post_init__(self) -> None:
        if not self.yes or not self.no or self.yes == self.no:
            raise ConfigError(f"yes={self.yes!r}, no={self.no!r} do not work: give two different words")
        if self.cut < 0:
            raise ConfigError(f"cut={self.cut} does not work: 0 keeps the whole answer, 1 leaves out its last token")

    @property
    def needs(self) -> frozenset[Capability]:
        """Log-probabilities of given tokens."""
        return frozenset({Capability.PROMPT_SCORING, Capability.TOKENS})

    @property
    def range(self) -> tuple[float, float]:
        """From 0 to 1."""
        return (0.0, 1.0)

    def cost(self, reading: Reading) -> int:
        """The suffix twice and both words, at one token a byte (no tokenizer makes more) and one more to begin each."""
        texts = (self.suffix, self.suffix, self.yes, self.no)
        return sum(len(text.encode()) + 1 for text in texts)

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """One probability a node. Raises `ScorerError` where the model rules out both words."""
        suffix = backend.encode(self.suffix) if self.suffix else ()
        yes, no = backend.encode(self.yes), backend.encode(self.no)
        values = await asyncio.gather(*(self._ask(node, suffix, yes, no, backend) for node in nodes))
        return ScoreBatch(np.array(values, dtype=np.float64), len(nodes) * (2 * len(suffix) + len(yes) + len(no)))

    async def _ask(self, node: Node, suffix: TokenIds, yes: TokenIds, no: TokenIds, backend: Backend) -> float:
        kept = len(node.tokens) - (self.cut if node.finish_reason == "stop" else 0)
        question = len(suffix) + max(len(yes), len(no))
        room = backend.max_model_len - len(node.prompt_tokens) - question - 1
        if room < 0:
            raise ScorerError(f"the context of {backend.max_model_len} tokens has no room for a suffix of {question}")
        # An answer that fills the context is asked about without its last tokens.
        asked = replace(node, tokens=node.tokens[: max(0, min(kept, room))])
        given = await backend.logprobs(asked, [(*suffix, *yes), (*suffix, *no)])
        for_yes, for_no = (math.fsum(logprobs[len(suffix) :]) for logprobs in given)
        if max(for_yes, for_no) == -math.inf:
            raise ScorerError(
                f"neither {self.yes!r} nor {self.no!r} can follow {self.suffix!r}: choose words that the model may say"
            )
        return float(np.exp(for_yes - np.logaddexp(for_yes, for_no)))
