"""LAMBADA: a statement is decided by backward chaining, with the model as the reasoner (arXiv:2212.13894)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ramify.backends.base import Capability, Node
from ramify.errors import ConfigError
from ramify.scoring.problem import Problem
from ramify.scoring.prompts import content_text, fill, text_or_messages
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.search.lambada_prover import BackwardProver, Reasoner, Step, Theory, Verdict
from ramify.strategies.search.lambada_reasoner import AskedReasoner

VERDICTS: tuple[Verdict, ...] = ("proved", "disproved", "unknown")
_RULE = re.compile(
    r"(?:if|all|every|each|whenever|when|anyone|someone|everyone)\b.*|.*\b(?:then|if)\b.*", re.IGNORECASE
)


@strategy("lambada", kind="approximate", paper="arXiv:2212.13894", needs=(Capability.CONTINUE,))
@dataclass(frozen=True)
class Lambada(Method):
    """Backward chaining: from the goal over rules to the facts, four small questions to the model at a time.

    The theory is the problem's ``metadata`` ("facts", "rules", "goal"), or is read from its text: one statement a
    sentence, conditional ones are rules, the last is the goal. The answer is a text with the proof and the verdict,
    put below the root; until the search is done it is "unknown".

    Attributes:
        depth: rules one above the other in a proof at most.
        answer: the text; it may name {proof} and must name {verdict}.
        labels: the verdicts' names in it, with / between them: proved, disproved, unknown.
        reasoner: makes what answers the four kinds of question; asks the model by default.
    """

    depth: int = 5
    answer: str = "{proof}#### {verdict}"
    labels: str = "proved/disproved/unknown"
    reasoner: Callable[[Context], Reasoner] = AskedReasoner

    def __post_init__(self) -> None:
        if self.depth < 0:
            raise ConfigError(f"depth={self.depth} does not work: it must be 0 (facts alone) or more")
        if "{verdict}" not in self.answer:
            raise ConfigError(f"answer={self.answer!r} does not work: it must name {{verdict}}")
        if len(self.labels.split("/")) != len(VERDICTS):
            raise ConfigError(f"labels={self.labels!r} do not work: name three verdicts, as proved/disproved/unknown")

    @property
    def requires(self) -> frozenset[Capability]:
        """To put the answer below the problem."""
        return frozenset({Capability.CONTINUE})

    async def run(self, problem: Problem, context: Context) -> Result:
        """Prove the goal, then write down how."""
        theory, goal = read_theory(problem)
        reasoner = self.reasoner(context)
        prover = BackwardProver(reasoner, theory)
        undecided = await self._write(context, "unknown", [])
        context.report([undecided], 0)
        verdict = await prover.prove(goal, self.depth)
        if reasoner.malformed:
            context.note(f"{reasoner.malformed} replies could not be read and counted as no answer")
        if verdict == "unknown":
            return context.result([undecided], 0)
        return context.result([undecided, await self._write(context, verdict, prover.proof(goal))], 1)

    async def _write(self, context: Context, verdict: Verdict, proof: Sequence[Step]) -> Node:
        """The answer as a finished node."""
        label = self.labels.split("/")[VERDICTS.index(verdict)]
        text = fill(self.answer, proof="".join(map(_line, proof)), verdict=label)
        node = await context.append(await context.root(), text)
        context.retire([node])
        return replace(node, finish_reason="stop")


def read_theory(problem: Problem) -> tuple[Theory, str]:
    """Facts and rules, and the goal.

    Raises:
        ConfigError: the metadata are incomplete, or there is no text to read.
    """
    given = problem.metadata
    if "goal" in given:
        return Theory(_statements(given, "facts"), _statements(given, "rules")), str(given["goal"])
    sentences = [part.strip() for part in re.split(r"(?<=[.?!])\s+|\n+", _text(problem)) if part.strip()]
    if not sentences:
        raise ConfigError(f"problem {problem.id!r} has no text: give it facts, rules and a goal as metadata")
    rules = [sentence for sentence in sentences[:-1] if _RULE.fullmatch(sentence)]
    facts = [sentence for sentence in sentences[:-1] if not _RULE.fullmatch(sentence)]
    return Theory(tuple(facts), tuple(rules)), sentences[-1]


def _statements(given: Mapping[str, object], name: str) -> tuple[str, ...]:
    found = given.get(name, ())
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise ConfigError(f"metadata[{name!r}] is {found!r}: it must be a list of statements")
    return tuple(map(str, found))


def _text(problem: Problem) -> str:
    shown = text_or_messages(problem.prompt)
    if isinstance(shown, str):
        return shown
    if shown is not None:
        return content_text(shown[-1])
    raise ConfigError(
        f"problem {problem.id!r} is given as token ids: lambada needs its text, or facts, rules and a goal as metadata"
    )


def _line(step: Step) -> str:
    reason = "by the facts" if step.rule is None else f"by the rule: {step.rule}"
    return f"{step.goal} - {'holds' if step.verdict == 'proved' else 'does not hold'}, {reason}\n"
