"""Self-refine: a model drafts, criticises its draft, revises it, and so on (Madaan et al., arXiv:2303.17651)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.programs.revision import ask_one, check_at_least, fault_of, says_done
from ramify.strategies.programs.revision_attempts import Attempts
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.prompts import check_template, fill, question_text

FEEDBACK = """{question}

Proposed answer:
{answer}

Say what is wrong with the proposed answer and how to improve it; do not write a new one. If nothing can be improved, end with a line that says DONE."""  # noqa: E501
REVISE = """{question}

{history}Proposed answer:
{answer}

Feedback on it:
{feedback}

Write a better answer that takes the feedback into account. Reply with the whole new answer and nothing else."""


@strategy("self-refine", kind="approximate", paper="arXiv:2303.17651")
@dataclass(frozen=True)
class SelfRefine(Method):
    """A draft, revised by the feedback of the same model until that finds nothing more, or the score rises no more.

    Attributes:
        rounds: of feedback and revision, at most.
        scorer: if given, a round that does not raise the score is the last, and the answer of the highest score is
            the result; without one, the last readable answer is.
        critic, editor: models that give feedback and revise; the main one by default.
        feedback_prompt: with ``{question}`` and ``{answer}``.
        revise_prompt: with ``{question}``, ``{answer}``, ``{feedback}``, and ``{history}``: earlier answers with their
            feedback (left out where the slot is not there).
    """

    rounds: int = 3
    scorer: Scorer | None = None
    critic: str | None = None
    editor: str | None = None
    feedback_prompt: str = FEEDBACK
    revise_prompt: str = REVISE

    def __post_init__(self) -> None:
        check_at_least(0, rounds=self.rounds)
        check_template(self.feedback_prompt, "question", "answer")
        check_template(self.revise_prompt, "question", "answer", "feedback")

    @property
    def other_models(self) -> tuple[str, ...]:
        """Those that criticise and rewrite, where they are not the main one."""
        return tuple(name for name in (self.critic, self.editor) if name)

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draft; then feedback and revision in turns."""
        question, attempts = question_text(problem), Attempts(context, self.scorer)
        (current,) = await attempts.draft(1)
        history: list[tuple[str, str]] = []
        for turn in range(1, self.rounds + 1):
            answer = attempts.text(current)
            feedback = await ask_one(context, fill(self.feedback_prompt, question=question, answer=answer), self.critic)
            if feedback is None or fault_of(feedback):
                context.note(f"feedback {turn}: {fault_of(feedback)}; the round was spent without a revision")
                continue
            if says_done(feedback):
                context.skip(self.rounds + 1 - turn)
                return attempts.result(certain=True)
            said = feedback.text.strip()
            prompt = fill(self.revise_prompt, question=question, answer=answer, feedback=said, history=_show(history))
            history.append((answer, said))
            revised = await ask_one(context, prompt, self.editor, **attempts.sampling)
            (new,) = await attempts.take([revised], [f"revision {turn}"])
            if new is None:
                continue
            if self.scorer is not None and attempts.gain(new, current) <= 0:
                context.skip(self.rounds - turn)
                break
            current = new
        return attempts.result()


def _show(history: Sequence[tuple[str, str]]) -> str:
    """Earlier answers and their feedback, oldest first."""
    return "".join(f"Earlier answer:\n{answer}\n\nFeedback on it:\n{feedback}\n\n" for answer, feedback in history)
