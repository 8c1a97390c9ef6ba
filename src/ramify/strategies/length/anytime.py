"""Anytime answers: while a model thinks, a probe after every stride keeps an answer ready for a cut at any moment."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ramify.backends.base import Capability, Node
from ramify.scoring.problem import Problem
from ramify.strategies.forcing import Forcing
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import strategy


@strategy("anytime", kind="approximate", paper="arXiv:2412.20993", needs=(Capability.CONTINUE, Capability.TOKENS))
@dataclass(frozen=True)
class Anytime(Forcing):
    """One answer that improves while the model thinks: stopped anywhere, the run has the latest it could read.

    Thinking goes on in strides. After each, the forced end of thinking and a short answer are drawn behind a fork of
    it, charged to "probe" and thrown away; what they said is reported. Once thinking has ended by itself, the
    model's own answer is final.

    Attributes:
        start_think, end_think, answer_prefix: see `Forcing`; the two latter make the probe's suffix.
        answer_tokens: cap of a probe's answer.
        stride: tokens of thinking between two probes.
        max_think: tokens after which the latest probe's answer is final.
    """

    answer_tokens: int = 20
    stride: int = 64
    max_think: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_one("stride", "max_think")

    async def run(self, problem: Problem, context: Context) -> Result:
        """Think, probe, report, until the model has answered or the limit is reached."""
        node, standing = await context.root(), None
        while node.open and (limit := self.max_think - node.num_tokens) > 0:
            before, node = node, await self.think(context, node, min(self.stride, limit))
            context.retire([before])
            if self.has_ended(context, node):
                [answer] = await context.extend([node]) if node.open else [node]
                return context.result([answer], 0)
            standing = await self._probed(context, node, standing)
        return context.result([node if standing is None else standing], 0)

    async def _probed(self, context: Context, node: Node, standing: Node | None) -> Node | None:
        """The thinking so far with the answer that it would give now; the one before if that cannot be read."""
        if standing is None:
            context.report([node], 0)
        [probe] = await context.probe([node], self.forced, max_tokens=self.answer_tokens)
        said = probe.text if probe.finish_reason == "stop" else probe.text.rpartition("\n")[0]
        answered = replace(node, text=node.text + self.forced + said, finish_reason="stop", step_end=False)
        if context.answer(answered) is None:
            return standing
        context.report([answered], 0)
        return answered
