"""TrimR: a verifier watches the thoughts of a chain and cuts it where more of them are redundant (arXiv:2505.17155)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ramify.backends.base import Capability, FloatArray, Node
from ramify.errors import ConfigError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.self_consistency import majority
from ramify.strategies.steps import StepSplitter, paragraphs
from ramify.strategies.stopping.forced_answers import ANSWER_SUFFIX, check_asking, force_answers, probe_answers


@strategy("trimr", kind="approximate", paper="arXiv:2505.17155", needs=(Capability.CONTINUE,))
@dataclass(frozen=True)
class TrimR(Method):
    """Chains that are cut when a verifier finds their further thoughts redundant, and made to answer.

    After every thought the verifier looks at the chain. It is cut, and `suffix` leads into the final answer, when

    - it overthinks: `repeats` thoughts in a row end with the same answer ("probe"), or with a score of at least
      `settled` ("scorer");
    - it underthinks: `patience` thoughts have brought it to neither;
    - it loops: `loops` thoughts in a row are the same text.

    The paper's verifier is a small instruction-tuned model that reads each thought's answer. Here it is either a probe
    on the model itself, drawn on a fork and thrown away, or a scorer.

    Attributes:
        n: chains; the majority of their answers is taken.
        until: where a thought ends; an empty line by default. Markers such as "Wait" are given from Python:
            ``StepSplitter(stop=("\\nWait", "\\nAlternatively"))``.
        verifier: "probe" asks the model for the answer so far, "scorer" scores the chain so far.
        scorer: the scorer of "scorer"; a process reward model by default.
        repeats: thoughts in a row that settle it.
        settled: score from which on a thought counts as settled.
        patience: thoughts after which an unsettled chain is cut.
        loops: equal thoughts in a row that make a loop.
        suffix: asks for the answer, in a probe and at the cut.
        answer_tokens: longest answer of either.
    """

    n: int = 1
    until: StepSplitter = field(default_factory=paragraphs)
    verifier: Literal["probe", "scorer"] = "probe"
    scorer: Scorer = field(default_factory=ProcessReward)
    repeats: int = 2
    settled: float = 0.9
    patience: int = 30
    loops: int = 3
    suffix: str = ANSWER_SUFFIX
    answer_tokens: int = 20

    def __post_init__(self) -> None:
        check_asking(self.suffix, answer_tokens=self.answer_tokens)
        if self.n < 1 or self.repeats < 1:
            raise ConfigError(f"n={self.n}, repeats={self.repeats} do not work: both must be at least 1")
        if self.patience < self.repeats:
            raise ConfigError(
                f"patience={self.patience} does not work: a chain needs repeats={self.repeats} thoughts to settle"
            )
        if self.loops < 2:
            raise ConfigError(f"loops={self.loops} does not work: a loop is two equal thoughts at least")

    @property
    def requires(self) -> frozenset[Capability]:
        """Going on behind a suffix, and with "scorer" what the scorer needs."""
        return frozenset({Capability.CONTINUE}) | (self.scorer.needs if self.verifier == "scorer" else frozenset())

    async def run(self, problem: Problem, context: Context) -> Result:
        """Thought by thought: verify all chains, cut the redundant ones."""
        chains = await context.extend([await context.root()], self.n, self.until)
        seen: list[list[Hashable | None]] = [[] for _ in chains]
        certain = False
        while any(chain.open for chain in chains):
            context.report(chains, majority(chains, context))
            going = [i for i, chain in enumerate(chains) if chain.open]
            for i, verdict in zip(going, await self._verify(context, [chains[i] for i in going]), strict=True):
                seen[i].append(verdict)
            overthinking = [i for i in going if self.overthinks(seen[i])]
            cut = [i for i in going if i in overthinking or self.underthinks(seen[i]) or self.loops_in(chains[i])]
            if cut:
                certain |= bool(overthinking)
                answers = await force_answers(context, [chains[i] for i in cut], self.suffix, self.answer_tokens)
                for i, answer in zip(cut, answers, strict=False):  # fewer where the budget ends
                    context.drop([chains[i]])
                    chains[i] = answer
            chains = await context.step(chains, self.until)
        return context.result(chains, majority(chains, context), certain=certain)

    def overthinks(self, verdicts: Sequence[Hashable | None]) -> bool:
        """Whether the last `repeats` verdicts are one answer; an unreadable one is none."""
        last = set(verdicts[-self.repeats :])
        return len(verdicts) >= self.repeats and len(last) == 1 and None not in last

    def underthinks(self, verdicts: Sequence[Hashable | None]) -> bool:
        """Whether patience is at its end."""
        return len(verdicts) >= self.patience

    def loops_in(self, chain: Node) -> bool:
        """Whether the last `loops` thoughts are the same."""
        thoughts: list[str] = []
        node = chain
        while node.parent is not None and len(thoughts) < self.loops:
            thoughts.append(node.text.removeprefix(node.parent.text).strip())
            node = node.parent
        return len(thoughts) == self.loops and len(set(thoughts)) == 1 and bool(thoughts[0])

    async def _verify(self, context: Context, chains: Sequence[Node]) -> list[Hashable | None]:
        """What each chain has come to: the answer of a probe, or True for a settled score; None for nothing."""
        if self.verifier == "scorer":
            scores: FloatArray = await context.score(chains, self.scorer)
            return [True if score >= self.settled else None for score in scores]
        return [probe.answer for probe in await probe_answers(context, chains, self.suffix, self.answer_tokens)]
