"""Thoughts are told from answers however the text is cut; efforts become what the template knows, or a limit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.errors import ConfigError, RequestError
from ramify.models.hub import resolve_model
from ramify.text.reasoning import (
    ReasoningParser,
    count_reasoning_tokens,
    detect_reasoning,
    effort_budget,
    reasoning_format,
)
from ramify.text.tokenizer import load_tokenizer

NAMES = ["deepseek_r1", "qwen3", "mistral", "granite", "seed_oss", "cohere"]


def read(name: str, pieces: list[str], inside: bool = False) -> tuple[str, str]:
    parser = ReasoningParser(reasoning_format(name), inside)
    sides = [parser.push(piece) for piece in pieces] + [parser.finish()]
    return "".join(thought for thought, _ in sides), "".join(answer for _, answer in sides)


@pytest.mark.parametrize("name", NAMES)
def test_a_thought_is_split_off(name: str) -> None:
    start, end = reasoning_format(name).starts[0], reasoning_format(name).ends[0]
    assert read(name, [f"{start}\nHm.\n\nYes.\n{end}\n\nIt is 4.\n"]) == ("Hm.\n\nYes.", "It is 4.\n")
    assert read(name, [f"Hm.{end}It is 4."], inside=True) == ("Hm.", "It is 4.")
    assert read(name, ["It is 4."]) == ("", "It is 4.")
    assert read(name, [f"{start} Hm"]) == ("Hm", "")
    assert read(name, [f"{start}{end}4"]) == ("", "4")
    assert read(name, [f"I write {start}x{end} as text"]) == ("", f"I write {start}x{end} as text")
    assert read(name, [f"{start}a{end}b {start}c{end} d"]) == ("a", f"b {start}c{end} d")


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=8)
def test_how_the_text_is_cut_changes_nothing(name: str, data: st.DataObject) -> None:
    form = reasoning_format(name)
    marks = (*form.starts, *form.ends)
    parts = [*marks, *(mark[: len(mark) // 2] for mark in marks), " ", "\n\n", "so", "<", "雪"]
    text = "".join(data.draw(st.lists(st.sampled_from(parts), max_size=8)))
    places = sorted(place % (len(text) + 1) for place in data.draw(st.lists(st.integers(0, 200), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    inside = data.draw(st.booleans())
    assert read(name, pieces, inside) == read(name, [text], inside) == read(name, list(text), inside)


def test_a_prompt_opens_a_thought_where_its_template_does_and_no_user_can() -> None:
    form = reasoning_format("qwen3")
    assert form.opened_by("<|im_start|>assistant\n<think>\n")
    assert form.opened_by("<|im_start|>user\n<think><|im_end|>\n<|im_start|>assistant\n") is False
    assert form.opened_by("<|im_start|>assistant\n<think>\n\n</think>\n\n") is None
    assert form.opened_by("...<think>so far", continued="<think>so far")
    assert form.opened_by("...<think>a</think>b", continued="<think>a</think>b") is None
    assert form.opened_by("...So", continued="So") is None


def test_the_family_is_seen_from_the_template() -> None:
    for name in ("qwen3", "mistral", "granite", "seed_oss", "cohere"):
        form = reasoning_format(name)
        found = detect_reasoning("{% if x %}" + form.ends[0] + "{% endif %}")
        assert found is not None
        assert found.name == name
    assert detect_reasoning("{{ messages }}") is None
    with pytest.raises(ConfigError, match="did you mean 'qwen3'"):
        reasoning_format("qwen")


def test_reasoning_tokens_are_counted_up_to_the_end_of_the_mark() -> None:
    tokenizer = load_tokenizer(resolve_model("nano"))
    form = reasoning_format("qwen3")
    thought = tokenizer.encode("<think>3 + 4 = 7</think>", add_special_tokens=False)
    answer = tokenizer.encode("7 apples", add_special_tokens=False)
    assert count_reasoning_tokens(tokenizer, thought + answer, form, False) == len(thought)
    assert count_reasoning_tokens(tokenizer, thought[:-1], form, False) == len(thought) - 1
    assert count_reasoning_tokens(tokenizer, answer, form, False) == 0
    assert count_reasoning_tokens(tokenizer, answer, form, True) == len(answer)
    marks = form.marks(tokenizer, inside=True)
    assert marks.inside
    assert tokenizer.decode(marks.ends[0]) == "</think>"
    assert form.marks(tokenizer, inside=None).starts == ()


def test_an_effort_is_told_to_a_template_that_knows_efforts() -> None:
    effort = effort_budget("high", frozenset({"reasoning_effort", "messages"}), thinks=False)
    assert (dict(effort.arguments), effort.budget) == ({"reasoning_effort": "high"}, None)


def test_an_effort_switches_thinking_and_limits_it_otherwise() -> None:
    switch = frozenset({"enable_thinking"})
    off, low = effort_budget("none", switch, thinks=True), effort_budget("low", switch, thinks=True)
    assert (dict(off.arguments), off.budget) == ({"enable_thinking": False}, None)
    assert (dict(low.arguments), low.budget) == ({"enable_thinking": True}, 512)
    assert effort_budget("none", frozenset(), thinks=True).budget == 0
    assert effort_budget("minimal", frozenset(), thinks=True, budgets={"minimal": 7}).budget == 7
    assert effort_budget(None, frozenset(), thinks=False).budget is None


def test_an_effort_is_refused_by_a_model_that_does_not_think_and_by_name() -> None:
    assert effort_budget("none", frozenset(), thinks=False).budget is None
    with pytest.raises(RequestError, match="does not reason"):
        effort_budget("low", frozenset(), thinks=False)
    with pytest.raises(RequestError, match="'huge'"):
        effort_budget("huge", frozenset(), thinks=True)
