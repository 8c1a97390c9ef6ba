"""Certaindex: probe a chain for its answer, and stop it once the answer no longer changes (arXiv:2412.20993)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

from ramify.backends.base import Capability, Node
from ramify.errors import ConfigError
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.self_consistency import majority
from ramify.strategies.steps import StepSplitter, tokens
from ramify.strategies.stopping.forced_answers import ANSWER_SUFFIX, Probe, check_asking, probe_answers


@strategy("certaindex", kind="approximate", paper="arXiv:2412.20993", needs=(Capability.CONTINUE,))
@dataclass(frozen=True)
class Certaindex(Method):
    """Chains that are probed while they grow and stopped when they are certain.

    At every interval each open chain is forked, a suffix asks the fork for the answer, and the fork is thrown away. A
    chain stops with the answer of its probes when the last `window` of them gave the same answer and none of these
    contains a word of doubt; a probe that gives no answer never counts as agreement. With several chains the problem
    ends early too, as soon as ``1 - H / log n`` of their present answers reaches `certainty` (H is the entropy; a chain
    without an answer counts as one that nobody shares). The answer is the majority's.

    Attributes:
        n: chains.
        until: how often to probe; every 64 tokens by default, a line with ``until=line``.
        window: probes in a row that have to agree, at least 2.
        certainty: agreement among `n` chains, from 0 to 1, that ends the problem; plays no part with ``n=1``.
        suffix: asks for the answer.
        probe_tokens: longest probe.
        probe_temperature, probe_top_p: how probes are drawn.
        doubt: words, parted by spaces, any of which in a probe means that the chain is not certain (whole words, in
            any case).
    """

    n: int = 1
    until: StepSplitter = field(default_factory=lambda: tokens(64))
    window: int = 2
    certainty: float = 0.9
    suffix: str = ANSWER_SUFFIX
    probe_tokens: int = 20
    probe_temperature: float = 0.6
    probe_top_p: float = 0.95
    doubt: str = "wait hold but okay no hmm"

    def __post_init__(self) -> None:
        check_asking(self.suffix, probe_tokens=self.probe_tokens)
        if self.n < 1:
            raise ConfigError(f"n={self.n} does not work: draw at least one chain")
        if self.window < 2:
            raise ConfigError(f"window={self.window} does not work: two probes at least have to agree")
        if not 0 < self.certainty <= 1:
            raise ConfigError(f"certainty={self.certainty} does not work: it must be above 0 and at most 1")

    @property
    def requires(self) -> frozenset[Capability]:
        """Going on behind a suffix."""
        return super().requires | {Capability.CONTINUE}

    async def run(self, problem: Problem, context: Context) -> Result:
        """Grow all chains by an interval, probe, stop the certain ones; again until all have ended."""
        chains = await context.extend([await context.root()], self.n, self.until)
        probes: list[list[Probe]] = [[] for _ in chains]
        certain = False
        while any(chain.open for chain in chains):
            context.report(chains, majority(chains, context))
            await self._probe(context, chains, probes)
            answers = [
                self._standing(own[-1]) if chain.open else context.answer(chain)
                for chain, own in zip(chains, probes, strict=True)
            ]
            over = self.n > 1 and certainty(answers) >= self.certainty
            for i, chain in enumerate(chains):
                if chain.open and (self.settled(probes[i]) or (over and answers[i] is not None)):
                    chains[i] = await _answered(context, chain, probes[i][-1])
                    certain = True
            if over:
                certain = True
                context.drop(chain for chain in chains if chain.open)
                chains = [chain for chain in chains if not chain.open]
                break
            chains = await context.step(chains, self.until)
        return context.result(chains, majority(chains, context), certain=certain)

    def settled(self, probes: Sequence[Probe]) -> bool:
        """Whether the last `window` probes agree on an answer without a word of doubt."""
        last = probes[-self.window :]
        answers = {self._standing(probe) for probe in last}
        return len(last) == self.window and len(answers) == 1 and None not in answers

    def _standing(self, probe: Probe) -> Hashable | None:
        """The answer of a probe; None if it doubts."""
        words = "|".join(map(re.escape, self.doubt.split()))
        doubts = bool(words) and re.search(rf"\b(?:{words})\b", probe.text, re.IGNORECASE) is not None
        return None if doubts else probe.answer

    async def _probe(self, context: Context, chains: Sequence[Node], probes: Sequence[list[Probe]]) -> None:
        going = [i for i, chain in enumerate(chains) if chain.open]
        found = await probe_answers(
            context,
            [chains[i] for i in going],
            self.suffix,
            self.probe_tokens,
            temperature=self.probe_temperature,
            top_p=self.probe_top_p,
        )
        for i, probe in zip(going, found, strict=True):
            probes[i].append(probe)


def certainty(answers: Sequence[Hashable | None]) -> float:
    """``1 - H / log n`` of n answers: 1 if all are equal, 0 if all differ; an unreadable one is equal to none."""
    if len(answers) < 2:
        return 0.0
    counts = Counter(answer if answer is not None else ("unreadable", i) for i, answer in enumerate(answers))
    entropy = -math.fsum(count / len(answers) * math.log(count / len(answers)) for count in counts.values())
    return 1.0 - entropy / math.log(len(answers))


async def _answered(context: Context, chain: Node, probe: Probe) -> Node:
    """The chain, finished with what its probe answered."""
    node = await context.append(chain, probe.behind)
    context.drop([chain])
    context.retire([node])
    return replace(node, finish_reason="stop")
