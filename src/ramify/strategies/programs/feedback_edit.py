"""Feedback and edit: several drafts, several critiques of each, each edited by its critiques, one selected.

Wang et al., arXiv:2503.04378, who train one model for each role; here any served model may take one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.programs.revision import ask_each, check_at_least, fault_of, numbered, says_done
from ramify.strategies.programs.revision_attempts import Attempts
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.prompts import check_template, fill, question_text

FEEDBACK = """{question}

Proposed answer:
{answer}

Judge how helpful and how correct the proposed answer is, and say what should be changed; do not write a new one. If nothing should be changed, end with a line that says DONE."""  # noqa: E501
EDIT = """{question}

Proposed answer:
{answer}

{feedback}

Edit the proposed answer so that it takes all feedback into account. Reply with the whole edited answer and nothing else."""  # noqa: E501


@strategy("feedback-edit", kind="approximate", paper="arXiv:2503.04378", needs=("scorer",))
@dataclass(frozen=True)
class FeedbackEdit(Method):
    """Drafts are edited by critiques of them; the answer of the highest score among edits and drafts is the result.

    A critique that asks for no change is not shown to the editor; a draft with no other critique is not edited.

    Attributes:
        n: drafts.
        k: critiques a draft.
        edits: edited versions a draft.
        scorer: selects; a process reward model by default.
        critic, editor: models that criticise and edit; the main one by default.
        feedback_prompt: with ``{question}`` and ``{answer}``.
        edit_prompt: with ``{question}``, ``{answer}`` and ``{feedback}`` (all critiques, under headings).
    """

    n: int = 4
    k: int = 3
    edits: int = 1
    scorer: Scorer = field(default_factory=ProcessReward)
    critic: str | None = None
    editor: str | None = None
    feedback_prompt: str = FEEDBACK
    edit_prompt: str = EDIT

    def __post_init__(self) -> None:
        check_at_least(1, n=self.n, k=self.k, edits=self.edits)
        check_template(self.feedback_prompt, "question", "answer")
        check_template(self.edit_prompt, "question", "answer", "feedback")

    @property
    def other_models(self) -> tuple[str, ...]:
        """Those that criticise and rewrite, where they are not the main one."""
        return tuple(name for name in (self.critic, self.editor) if name)

    async def run(self, problem: Problem, context: Context) -> Result:
        """Three batches: drafts, critiques, edits."""
        question, attempts = question_text(problem), Attempts(context, self.scorer)
        drafts = [draft for draft in await attempts.draft(self.n) if attempts.usable(draft)]
        critiques = await self._criticise(question, drafts, attempts, context)
        prompts, edited = [], []
        for draft, said in critiques.items():
            feedback = numbered("Feedback", said)
            prompt = fill(self.edit_prompt, question=question, answer=attempts.text(draft), feedback=feedback)
            prompts += [prompt] * self.edits
            edited += [draft] * self.edits
        replies = await ask_each(context, prompts, self.editor, **attempts.sampling) if prompts else []
        await attempts.take(replies, [f"edit of draft {draft + 1}" for draft in edited[: len(replies)]])
        return attempts.result()

    async def _criticise(
        self, question: str, drafts: list[int], attempts: Attempts, context: Context
    ) -> dict[int, list[str]]:
        """The critiques of each draft that ask for a change."""
        prompts = [fill(self.feedback_prompt, question=question, answer=attempts.text(draft)) for draft in drafts]
        repeated = [prompt for prompt in prompts for _ in range(self.k)]
        replies = await ask_each(context, repeated, self.critic) if repeated else []
        critiques: dict[int, list[str]] = {}
        for place, reply in enumerate(replies):
            draft = drafts[place // self.k]
            if reply is None or fault_of(reply):
                context.note(f"feedback {place % self.k + 1} of draft {draft + 1}: {fault_of(reply)}; it was left out")
            elif not says_done(reply):
                critiques.setdefault(draft, []).append(reply.text)
        return critiques
