"""What a problem says inside another prompt, and templates that a stranger may have written."""

import pytest

from ramify.errors import ConfigError
from ramify.scoring.problem import Problem
from ramify.scoring.prompts import fill, question_text, unknown_slots

PARTS = [{"type": "text", "text": "a?"}, {"type": "text", "text": "b?"}]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("why?", "why?"),
        ({"prompt": "why?", "prompt_token_ids": [1]}, "why?"),
        ([{"role": "system", "content": "be kind"}, {"role": "user", "content": PARTS}], "a?\nb?"),
        ({"messages": [{"role": "user", "content": "a?"}, {"role": "user", "content": "b?"}]}, "a?\n\nb?"),
    ],
)
def test_a_question_is_read_from_any_form_of_prompt(prompt, said):
    assert question_text(Problem("1", prompt)) == said


@pytest.mark.parametrize("prompt", [[1, 2], {"prompt_token_ids": [1, 2]}])
def test_token_ids_say_nothing_inside_another_prompt(prompt):
    with pytest.raises(ConfigError, match="needs its text"):
        question_text(Problem("1", prompt))


def test_filling_reaches_no_attribute_and_no_width():
    hostile = "{answer.__class__} {answer:>999999999} {0} {answer}"
    assert fill(hostile, answer="x") == "{answer.__class__} {answer:>999999999} {0} x"
    assert unknown_slots("{answer} {other}", ("answer",)) == ["other"]
