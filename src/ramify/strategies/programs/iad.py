"""Iterative agent decoding: each proposal sees the best answer so far and what a verifier says about it.

Chakraborty et al., arXiv:2504.01931.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ramify.backends.base import Capability
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.programs.revision import ask_each, check_at_least
from ramify.strategies.programs.revision_attempts import Attempts, Evaluator, evaluator_of
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.prompts import check_template, fill, question_text

PROPOSE = """{question}

Best answer so far:
{best}

What the verifier says about it:
{feedback}
{worst}
Write a better answer. Reply with the whole new answer and nothing else."""
AVOID = """
A bad answer, to be avoided:
{answer}

What the verifier says about it:
{feedback}
"""


@strategy("iad", kind="approximate", paper="arXiv:2504.01931", needs=("scorer",))
@dataclass(frozen=True)
class IterativeAgentDecoding(Method):
    """Rounds of proposals, each made in sight of the best and the worst answer so far with the verifier's feedback.

    The first round sees nothing: `rounds=1` is best-of-n with `n=width`. It stops once the best answer is solved: an
    evaluator says so, or it has the highest score that the scorer can give.

    Attributes:
        rounds: of proposing and verifying, at most.
        width: proposals a round.
        scorer: the verifier where there is no evaluator; its feedback is its number.
        evaluator: a program that gives a score and feedback in words; by default the one in the problem's metadata
            under "evaluator", if there is one.
        editor: the model that proposes from the second round on; the main one by default.
        propose_prompt: with ``{question}``, ``{best}``, ``{feedback}``, and ``{worst}`` for the worst answer (left out
            where the slot is not there, or all answers score alike).
    """

    rounds: int = 8
    width: int = 1
    scorer: Scorer = field(default_factory=ProcessReward)
    evaluator: Evaluator | None = None
    editor: str | None = None
    propose_prompt: str = PROPOSE

    def __post_init__(self) -> None:
        check_at_least(1, rounds=self.rounds, width=self.width)
        check_template(self.propose_prompt, "question", "best", "feedback")

    @property
    def requires(self) -> frozenset[Capability]:
        """What the scorer needs; nothing with an evaluator."""
        return frozenset() if self.evaluator is not None else self.scorer.needs

    @property
    def other_models(self) -> tuple[str, ...]:
        """The one that rewrites, where it is not the main one."""
        return tuple(name for name in (self.editor,) if name)

    async def run(self, problem: Problem, context: Context) -> Result:
        """Propose, verify, keep the best."""
        question = question_text(problem)
        attempts = Attempts(context, self.scorer, evaluator_of(problem, self.evaluator))
        await attempts.draft(self.width)
        for turn in range(2, self.rounds + 1):
            if attempts.solved:
                context.skip(self.width * (self.rounds + 1 - turn))
                break
            best = attempts.best
            if best is None or not attempts.usable(best):
                await attempts.draft(self.width)  # there is nothing to improve upon yet
                continue
            prompt = self._prompt(question, attempts, best)
            replies = await ask_each(context, [prompt] * self.width, self.editor, **attempts.sampling)
            await attempts.take(replies, [f"round {turn}"] * len(replies))
        return attempts.result(certain=attempts.solved)

    def _prompt(self, question: str, attempts: Attempts, best: int) -> str:
        worst = min(filter(attempts.usable, attempts.standing()), key=attempts.score)
        worse = attempts.score(worst) < attempts.score(best)
        said = attempts.verdicts[worst].feedback
        avoid = fill(AVOID, answer=attempts.text(worst), feedback=said) if worse else ""
        verdict = attempts.verdicts[best]
        return fill(
            self.propose_prompt, question=question, best=attempts.text(best), feedback=verdict.feedback, worst=avoid
        )
