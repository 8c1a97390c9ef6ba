"""The prompts of Archon's components: constants, and together the options of a strategy that runs layers."""

from __future__ import annotations

from dataclasses import dataclass, field

from ramify.strategies.selection.prompts import check_template
from ramify.strategies.spec_text import SpecText

ITEM = SpecText.of("[{number}]\n{answer}")
CRITIQUE = SpecText.of("\nWhat was said about [{number}]:\n{critique}")
CRITIC = SpecText.of("""{question}

Here are {count} answers to it.

{answers}

Say of every answer what is strong and what is weak in it, mistakes above all. Write one paragraph for each, in their
order, and begin each on a line of its own with the answer's number in brackets, like [1].""")
CRITIC_OF_ONE = SpecText.of("""{question}

Here is an answer to it.

{answer}

Say in one paragraph what is strong and what is weak in this answer, mistakes above all.""")
RANKER = SpecText.of("""{question}

Here are {count} answers to it.

{answers}

Put them in order, from the best to the worst. Reply with all their numbers in one line of this form, and nothing else:
{form}""")
FUSER = SpecText.of("""{question}

Here are {count} answers to it. Some of them may be wrong.

{answers}

Write one answer that is better than each of them: keep what is right, mend what is wrong, and give the final answer in
the form the question asks for.""")
VERIFIER = SpecText.of("""{question}

Here is an answer to it.

{answer}

Go through it step by step and explain whether each step holds. Then end with [Correct] if the answer is right, or with
[Incorrect] if it is not.""")
TESTS = SpecText.of("""{question}

Think of {count} short statements that hold for every right answer to this and that a wrong one would break. Each must
be possible to check by reading an answer. Reply with a JSON list of {count} texts, and nothing else.""")
CODE_TESTS = SpecText.of("""{question}

The answer to this is a Python program. Write {count} tests of it. Each is Python that runs behind the program, uses
what it defines, and fails with an assertion if the program is wrong. Put each test into a fenced block of its own that
begins with ```python.""")
EVALUATOR = SpecText.of("""{question}

Here is an answer to it.

{answer}

Here are {count} statements about a right answer.

{tests}

Say for each whether it holds for this answer. Reply with one line for each: its number in brackets and PASS or FAIL,
like [1] PASS.""")


@dataclass(frozen=True)
class Prompts:
    """What the components of a program of layers ask; each may be given in a spec (see `SpecText`).

    Attributes:
        item: one candidate in a list, with ``{number}`` and ``{answer}``.
        critique: what follows it where it was criticised, with ``{critique}`` (and ``{number}``).
        critic_prompt, ranker_prompt, fuser_prompt: with ``{answers}``, the list, and ``{count}``, its length; the
            ranker's also with ``{form}``, an example of a reply. These and all below may have ``{question}``.
        critic_of_one_prompt, verifier_prompt: with ``{answer}``.
        tests_prompt, code_tests_prompt: with ``{count}``.
        evaluator_prompt: with ``{answer}``, ``{tests}`` and ``{count}``.
    """

    item: SpecText = field(default=ITEM, kw_only=True)
    critique: SpecText = field(default=CRITIQUE, kw_only=True)
    critic_prompt: SpecText = field(default=CRITIC, kw_only=True)
    critic_of_one_prompt: SpecText = field(default=CRITIC_OF_ONE, kw_only=True)
    ranker_prompt: SpecText = field(default=RANKER, kw_only=True)
    fuser_prompt: SpecText = field(default=FUSER, kw_only=True)
    verifier_prompt: SpecText = field(default=VERIFIER, kw_only=True)
    tests_prompt: SpecText = field(default=TESTS, kw_only=True)
    code_tests_prompt: SpecText = field(default=CODE_TESTS, kw_only=True)
    evaluator_prompt: SpecText = field(default=EVALUATOR, kw_only=True)

    def check_prompts(self) -> None:
        """Raises `ConfigError` for a prompt that does not show what it is about."""
        for prompt in (self.critic_prompt, self.ranker_prompt, self.fuser_prompt):
            check_template(prompt, "answers")
        for prompt in (self.item, self.critic_of_one_prompt, self.verifier_prompt):
            check_template(prompt, "answer")
        check_template(self.critique, "critique")
        check_template(self.evaluator_prompt, "answer", "tests")
