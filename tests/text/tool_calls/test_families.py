"""Every family: its calls are read, however the text is cut; what is no call stays text."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.text.chat_parser import ChatParser
from ramify.text.tool_calls import ToolCallParser, tool_format
from ramify.text.tool_calls.families import FAMILIES
from tests.text.tool_calls.samples import CALLS, STARTS_ANSWER, TOOLS, WRITTEN

NAMES = sorted(WRITTEN)


def parser(name: str, live: bool = False) -> ChatParser:
    family = tool_format(name)
    return ChatParser(None, ToolCallParser(family, TOOLS, live), family)


def read(name: str, pieces: list[str], live: bool = False) -> tuple[str, list[tuple[str, str]], str]:
    """(content, calls, order of what came) of a text in pieces, put together from the deltas alone."""
    reader = parser(name, live)
    deltas = [delta for piece in pieces for delta in reader.push(piece)] + reader.finish()
    content = "".join(delta.content for delta in deltas)
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for delta in deltas:
        if delta.call is not None:
            if delta.call.name is not None:
                assert delta.call.id
                assert delta.call.index not in names
                names[delta.call.index] = delta.call.name
            arguments[delta.call.index] = arguments.get(delta.call.index, "") + delta.call.arguments
    calls = [(names[index], arguments[index]) for index in sorted(names)]
    assert [(call.name, call.arguments) for call in reader.calls] == calls
    assert reader.content == content
    return content, calls, "".join("c" if delta.call else "t" for delta in deltas if delta.content or delta.call)


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def parsed(calls: list[tuple[str, str]]) -> list[tuple[str, object]]:
    return [(name, json.loads(arguments)) for name, arguments in calls]


def test_every_family_has_a_sample() -> None:
    assert {family.name for family in FAMILIES} | {"generic"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("live", [False, True])
def test_all_calls_of_an_answer_are_read(name: str, live: bool) -> None:
    content, calls, _ = read(name, list(WRITTEN[name](CALLS)), live)
    assert (content, parsed(calls)) == ("", CALLS)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in STARTS_ANSWER])
def test_text_before_and_after_calls_is_content(name: str) -> None:
    content, calls, _ = read(name, list(f"Let me see.\n\n{WRITTEN[name](CALLS[:2])}\n"))
    assert (content, parsed(calls)) == ("Let me see.", CALLS[:2])
    content, calls, _ = read(name, [f"First {WRITTEN[name](CALLS[:1])} then {WRITTEN[name](CALLS[1:])} done"])
    assert parsed(calls) == CALLS
    assert content.split() == ["First", "then", "done"]


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=6)
def test_how_the_text_is_cut_changes_nothing(name: str, data: st.DataObject) -> None:
    whole = WRITTEN[name](data.draw(st.lists(st.sampled_from(CALLS), min_size=1, max_size=3)))
    parts = [
        whole,
        whole[: data.draw(st.integers(0, len(whole)))],
        *tool_format(name).marks,
        "text \n",
        "{[(<",
        '"',
        "  ",
    ]
    text = "".join(data.draw(st.lists(st.sampled_from(parts), max_size=4)))
    live = data.draw(st.booleans())
    expected = read(name, [text], live)[:2]
    assert read(name, cut(text, data.draw(st.lists(st.integers(0, 2000), max_size=5))), live)[:2] == expected
    if not expected[1]:
        assert expected[0] == text


@pytest.mark.parametrize("name", NAMES)
def test_a_truncated_call_stays_text_and_what_came_before_stays_calls(name: str) -> None:
    text = WRITTEN[name](CALLS[:2])
    for length in range(1, len(text), 23):
        content, calls, _ = read(name, [text[:length]])
        assert parsed(calls) == CALLS[: len(calls)]
        assert calls or content == text[:length]


@pytest.mark.parametrize(
    "name", ["hermes", "mistral", "mistral_v11", "deepseek_v3", "kimi_k2", "granite", "llama3_json"]
)
def test_live_arguments_come_while_they_are_written(name: str) -> None:
    text = WRITTEN[name](CALLS[:1])
    reader = parser(name, live=True)
    fragments = [delta.call for piece in text for delta in reader.push(piece) if delta.call]
    assert len(fragments) > 20
    assert fragments[0].name == "get_weather"
    assert {fragment.index for fragment in fragments} == {0}


@pytest.mark.parametrize("name", ["hermes", "mistral_v11", "deepseek_v31"])
def test_a_live_call_that_the_limit_cuts_keeps_what_came(name: str) -> None:
    text = WRITTEN[name]([("add-2", {"a": 1, "b": True})])
    place = text.index('"b"')
    content, calls, _ = read(name, [text[:place]], live=True)
    assert (content, calls) == ("", [("add-2", '{"a": 1, ')])


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": 3, "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "now", "arguments": [1]}\n</tool_call>',
        '<tool_call>\n{"name": "now", "arguments": {"a": }}\n</tool_call>',
        '<tool_call>\n{"name": "now", "arguments": {"a": NaN}}\n</tool_call>',
        '<tool_call>\n{"name": "now", "arguments": ' + '{"a": ' * 80 + "1" + "}" * 80 + "}\n</tool_call>",
        "<tool_call>\nnow()\n</tool_call>",
        "<tool_call>",
        "</tool_call>",
        '{"name": "now", "arguments": {}}',
        "<tool_call>" * 200,
    ],
)
def test_what_is_malformed_is_content_to_the_letter(text: str) -> None:
    assert read("hermes", [text])[:2] == (text, [])
    assert parser("hermes").finish_reason("stop") == "stop"


def test_a_malformed_call_does_not_hide_the_next() -> None:
    good = '<tool_call>{"name": "now"}</tool_call>'
    content, calls, _ = read("hermes", ['<tool_call>{"name": "now", "arguments": {"a": 1}</tool_call>' + good])
    assert calls == [("now", "{}")]
    assert content.startswith('<tool_call>{"name": "now"')
    assert read("hermes", ["<tool_call>" + good])[:2] == ("<tool_call>", [("now", "{}")])


def test_arguments_may_come_first_or_as_a_string_or_with_raw_line_ends() -> None:
    assert read("hermes", ['<tool_call>{"arguments": {"a": 1}, "name": "add-2", "id": 7}</tool_call>'])[1] == [
        ("add-2", '{"a": 1}')
    ]
    assert read("hermes", ['<tool_call>{"name": "add-2", "arguments": "{\\"a\\": 1}"}</tool_call>'])[1] == [
        ("add-2", '{"a": 1}')
    ]
    _, calls, _ = read("hermes", ['<tool_call>{"name": "get_weather", "arguments": {"city": "a\nb\tc"}}</tool_call>'])
    assert parsed(calls) == [("get_weather", {"city": "a\nb\tc"})]


def test_plain_json_and_lists_are_no_calls_of_the_families_without_marks() -> None:
    for text in ('{"answer": 42}', '{"name": "Bob", "parameters": {}}', "{ oh no }", "{"):
        assert read("llama3_json", [text])[:2] == (text, [])
    for text in (
        "[1, 2]",
        "[see here](http://x)",
        "[now]",
        "[now(] )",
        "[os.system('x')]",
        "[now(a=__import__('os'))]",
    ):
        assert read("pythonic", [text])[:2] == (text, [])


def test_literals_of_python_are_read_and_nothing_is_evaluated() -> None:
    text = "[get_weather(city='it\\'s \\u00e9', days=+3, where={'a': (1, None, True), 'b': 1e3}), now()]"
    _, calls, _ = read("pythonic", [text])
    assert parsed(calls) == [
        ("get_weather", {"city": "it's é", "days": 3, "where": {"a": [1, None, True], "b": 1000.0}}),
        ("now", {}),
    ]
    for value in ("1+1", "x", "1_0", "0x10", "nan", "inf", "f'a'", "-" * 300 + "1", "[" * 100 + "]" * 100, "{1: 2}"):
        assert read("pythonic", [f"[now(a={value})]"])[1] == []


def test_typed_arguments_follow_the_schema() -> None:
    text = "<tool_call><function=add-2><parameter=a>7</parameter><parameter=b>False</parameter></function></tool_call>"
    assert parsed(read("qwen3_coder", [text])[1]) == [("add-2", {"a": 7, "b": False})]
    text = "<function=get_weather>\n<parameter=city>\n12\n</parameter>\n</function>"
    assert parsed(read("qwen3_coder", [text])[1]) == [("get_weather", {"city": "12"})]


@pytest.mark.parametrize("name", NAMES)
def test_hostile_texts_take_linear_time(name: str) -> None:
    """Each character is fed to a parser once: counted, not timed."""
    family = tool_format(name)
    opener = family.usual_opener
    for unit in (opener, opener + '{"a', opener + '{"name": "now", ', opener + "now(a=", " ", "[", '\\"'):
        text = unit * (4_000 // len(unit))
        content, calls, _ = read(name, [text])
        assert not calls
        assert content == text


def test_arguments_are_json_that_every_client_can_read() -> None:
    lone = '<tool_call>{"name": "now", "arguments": "{\\"a\\": \\"\\ud800\\"}"}</tool_call>'
    for name, text in (("pythonic", "[now(a='\\ud800')]"), ("hermes", lone)):
        _, [(_, arguments)], _ = read(name, [text])
        assert json.loads(arguments.encode()) == {"a": "\ud800"}
    for value in ("1e999", "[" * 5000 + "]" * 5000):
        text = f"<tool_call><function=add-2><parameter=a>{value}</parameter></function></tool_call>"
        content, calls, _ = read("qwen3_coder", [text])
        assert calls == [] or json.loads(calls[0][1]) == {"a": value}
        assert content in ("", text)
