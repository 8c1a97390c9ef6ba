"""Annealed refinement: feedback and revision as a local search that may go through worse answers, less and less often.

LLMRefine (Xu et al., arXiv:2311.09336): a critic names each error with its place, kind and severity, an editor removes
them, and a Metropolis rule decides whether the new answer becomes the current one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ramify.errors import ConfigError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.programs.revision import ask_one, check_at_least, fault_of, says_done
from ramify.strategies.programs.revision_attempts import Attempts
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.prompts import check_template, fill, question_text

PINPOINT = """{question}

Proposed answer:
{answer}

List the errors of the proposed answer, one a line: the words that are wrong, the kind of error, and whether it is minor or major. If there is none, reply with the single word DONE."""  # noqa: E501
REVISE = """{question}

Proposed answer:
{answer}

Errors found in it:
{feedback}

Write the answer again without these errors. Reply with the whole new answer and nothing else."""


@strategy("annealing", kind="approximate", paper="arXiv:2311.09336", needs=("scorer",))
@dataclass(frozen=True)
class Annealing(Method):
    """Refinement by simulated annealing: a revision that scores less is accepted with probability exp(difference / T).

    In step t, counted from 0, ``T = heat * cooling ** t``. The answer of the highest score is the result, wherever the
    walk ends; it ends early where the critic finds no error.

    Attributes:
        rounds: of feedback and revision, at most.
        heat: the first T, in units of the score; 0 accepts no loss.
        cooling: what T is multiplied with after each round, above 0 and up to 1.
        scorer: judges answers; a process reward model by default.
        critic, editor: models that find errors and revise; the main one by default.
        feedback_prompt: with ``{question}`` and ``{answer}``.
        revise_prompt: with ``{question}``, ``{answer}`` and ``{feedback}``.
    """

    rounds: int = 6
    heat: float = 0.2
    cooling: float = 0.7
    scorer: Scorer = field(default_factory=ProcessReward)
    critic: str | None = None
    editor: str | None = None
    feedback_prompt: str = PINPOINT
    revise_prompt: str = REVISE

    def __post_init__(self) -> None:
        check_at_least(0, rounds=self.rounds)
        if not 0 <= self.heat < math.inf:
            raise ConfigError(f"heat={self.heat} does not work: it must be 0 or more, and finite")
        if not 0 < self.cooling <= 1:
            raise ConfigError(f"cooling={self.cooling} does not work: it must be above 0 and up to 1")
        check_template(self.feedback_prompt, "question", "answer")
        check_template(self.revise_prompt, "question", "answer", "feedback")

    @property
    def other_models(self) -> tuple[str, ...]:
        """Those that criticise and rewrite, where they are not the main one."""
        return tuple(name for name in (self.critic, self.editor) if name)

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draft; then find errors, revise, and accept or refuse, in turns."""
        question, attempts = question_text(problem), Attempts(context, self.scorer)
        (current,) = await attempts.draft(1)
        for turn in range(self.rounds):
            answer = attempts.text(current)
            errors = await ask_one(context, fill(self.feedback_prompt, question=question, answer=answer), self.critic)
            if errors is None or fault_of(errors):
                context.note(f"feedback {turn + 1}: {fault_of(errors)}; the round was spent without a revision")
                continue
            if says_done(errors):
                context.skip(self.rounds - turn)
                return attempts.result(certain=True)
            prompt = fill(self.revise_prompt, question=question, answer=answer, feedback=errors.text.strip())
            revised = await ask_one(context, prompt, self.editor, **attempts.sampling)
            (new,) = await attempts.take([revised], [f"revision {turn + 1}"])
            if new is None:
                continue
            chance = acceptance(attempts.gain(new, current), self.heat * self.cooling**turn)
            if context.uniform("anneal", turn) < chance:
                current = new
        return attempts.result()


def acceptance(gain: float, heat: float) -> float:
    """The Metropolis rule: 1 for a gain of 0 or more, else ``exp(gain / heat)``, and 0 without heat."""
    if gain >= 0:
        return 1.0
    return math.exp(gain / heat) if heat > 0 else 0.0
