"""Generative verifier: how likely a model says Yes when it is asked whether an answer is correct.

Zhang et al., "Generative Verifiers: Reward Modeling as Next-Token Prediction" (arXiv:2408.15240): at once, or after a
rationale that it writes first, averaged over several of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ramify.backends.base import Backend, Capability, Node
from ramify.errors import ConfigError, ScorerError
from ramify.registry import register
from ramify.sampling import SamplingParams
from ramify.scoring.calls import VerifierCall, all_of, verifier_call
from ramify.scoring.problem import Problem
from ramify.scoring.prompts import check_template, fill, question_text
from ramify.scoring.scorers import Reading, ScoreBatch

DIRECT = """{question}

Proposed answer:
{answer}

Is the answer correct? Reply with Yes or No alone."""
CHAIN = """{question}

Proposed answer:
{answer}

Verify the answer step by step."""
VERDICT = "\nIs the answer correct (Yes/No)?\n"


@register(
    "generative-verifier",
    kind="scorer",
    trade="approximate",
    needs=(Capability.PROMPT_SCORING, Capability.TOKENS),
    paper="arXiv:2408.15240",
    page="techniques/generative-verifier.md",
)
@dataclass(frozen=True, slots=True)
class GenerativeVerifier:
    """P("Yes") behind a verification prompt, from 0 to 1: of the model itself, or of another one.

    It is the probability of the word and not its share of two words: a model that would say neither finds no answer
    good. Rationales are counted as `verifier` and the word as `probe`; both are reserved before they are run.

    Attributes:
        model: which model verifies, by the name under which the backend has it; None for the main one.
        mode: "chain" lets it write a rationale first; "direct" reads the word right behind the prompt.
        votes: rationales of an answer (V in the paper); the score is the mean over them.
        rationale_tokens: a rationale is cut there.
        temperature: of the rationales.
        template: the prompt, with ``{question}`` and ``{answer}``; None for the one of the mode.
        verdict: put behind a rationale.
        yes: the word.
    """

    model: str | None = None
    mode: Literal["chain", "direct"] = "chain"
    votes: int = 1
    rationale_tokens: int = 256
    temperature: float = 0.7
    template: str | None = None
    verdict: str = VERDICT
    yes: str = "Yes"

    def __post_init__(self) -> None:
        for name in ("votes", "rationale_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} does not work: use one or more")
        if self.mode not in ("chain", "direct"):
            raise ConfigError(f"mode={self.mode!r} does not work: choose chain or direct")
        if self.mode == "direct" and self.votes != 1:
            raise ConfigError(f"votes={self.votes} does not work with mode=direct: one word is read, and nothing drawn")
        if self.temperature < 0 or (self.temperature == 0 and self.votes > 1):
            raise ConfigError(
                f"temperature={self.temperature} with votes={self.votes} does not work: rationales have to differ"
            )
        if not self.yes or not self.verdict:
            raise ConfigError(f"yes={self.yes!r}, verdict={self.verdict!r} do not work: neither may be empty")
        check_template(self._template, "question", "answer")

    @property
    def needs(self) -> frozenset[Capability]:
        """Log-probabilities of given tokens."""
        return frozenset({Capability.PROMPT_SCORING, Capability.TOKENS})

    @property
    def range(self) -> tuple[float, float]:
        """From 0 to 1."""
        return (0.0, 1.0)

    def cost(self, reading: Reading) -> int:
        """The rationales, and the word behind each at one token a byte (no tokenizer makes more) and one to begin."""
        drawn = self.rationale_tokens if self.mode == "chain" else 0
        return self.votes * (drawn + len(self.yes.encode()) + 1)

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """One probability a node. Raises `ScorerError` where a rationale has no room in the context."""
        question = question_text(problem)
        found = await all_of(self._verify(node, question, backend) for node in nodes)
        return ScoreBatch(np.array([value for value, _ in found], dtype=np.float64), sum(tokens for _, tokens in found))

    @property
    def _template(self) -> str:
        return self.template if self.template is not None else CHAIN if self.mode == "chain" else DIRECT

    async def _verify(self, node: Node, question: str, backend: Backend) -> tuple[float, int]:
        """The score of an answer, and the tokens that it took."""
        prompt = fill(self._template, question=question, answer=node.text.strip())
        async with verifier_call(node, f"verify/{self.mode}", prompt, backend, self.model) as call:
            if self.mode == "direct":
                return await self._says_yes(call, call.root), call.num_tokens
            verdict = backend.encode(self.verdict, self.model)
            room = call.room() - len(verdict) - len(backend.encode(self.yes, self.model)) - 1
            if room < 1:
                raise ScorerError(
                    f"the context of {backend.context_length(self.model)} tokens has no room for a rationale behind a "
                    f"prompt of {len(call.root.prompt_tokens)}: use mode=direct, or a model with a longer one"
                )
            params = SamplingParams(temperature=self.temperature, max_tokens=min(self.rationale_tokens, room))
            values = []
            for rationale in await call.draw(params, self.votes):
                # A rationale that ended by itself has its end-of-sequence last; the verdict goes in its place.
                keep = len(rationale.tokens) - (rationale.finish_reason == "stop")
                values.append(await self._says_yes(call, await call.append(rationale, verdict, keep)))
            return math.fsum(values) / len(values), call.num_tokens

    async def _says_yes(self, call: VerifierCall, node: Node) -> float:
        (logprobs,) = await call.backend.logprobs(node, [call.backend.encode(self.yes, self.model)])
        return min(1.0, math.exp(math.fsum(logprobs)))
