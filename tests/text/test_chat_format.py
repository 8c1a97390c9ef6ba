"""`ChatFormat` on templates like those of published models: what is found, prepared, held to, and read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import AddedToken

from ramify import LLM, SamplingParams
from ramify.errors import ConfigError, RequestError
from ramify.models.hub import resolve_model
from ramify.sampling import StructuredOutputsParams
from ramify.text.chat_format import ChatFormat, ToolUse
from ramify.text.chat_template import ChatTemplate
from ramify.text.tokenizer import Tokenizer, load_tokenizer
from ramify.text.tool_calls import Tool

HERMES = (
    "{% if tools %}<|system|>Tools: {% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    "Answer with <tool_call>...</tool_call>.{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for call in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
MISTRAL = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% else %}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}[TOOL_CALLS]{{ call.function.name + '[ARGS]' + call.function.arguments }}"
    "{% endfor %}{% endif %}{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"
)
PLAIN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
ADD = Tool(
    "add",
    "Adds.",
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["a"]},
)
NOW = Tool("now")
ADD_STRICT = Tool("add", "Adds.", ADD.parameters, strict=True)
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "1"},
]


def tokenizer(template: str | None, special: tuple[str, ...] = ()) -> Tokenizer:
    made = load_tokenizer(resolve_model("nano"))
    made.backend.add_special_tokens([AddedToken(text, special=True) for text in special])
    chat = None if template is None else ChatTemplate(template, {})
    return Tokenizer(made.backend, made.special_tokens, chat)


def test_the_formats_are_found_from_the_template_or_named() -> None:
    hermes = ChatFormat(tokenizer(HERMES))
    assert hermes.tools is not None
    assert hermes.reasoning is not None
    assert (hermes.tools.name, hermes.reasoning.name) == ("hermes", "qwen3")
    assert ChatFormat(tokenizer(MISTRAL)).require_tools().name == "mistral_v11"
    assert ChatFormat(tokenizer(PLAIN)).require_tools().name == "generic"
    assert ChatFormat(tokenizer(PLAIN), "granite", "pythonic").require_tools().name == "pythonic"
    assert ChatFormat(tokenizer(HERMES), "none").reasoning is None
    with pytest.raises(ConfigError, match="did you mean 'hermes'"):
        ChatFormat(tokenizer(HERMES), tools="hermez")


def test_tools_are_refused_where_nobody_knows_how_the_model_calls() -> None:
    unknown = ChatFormat(tokenizer("{{ tools }}{{ messages }}"))
    for off in (unknown, ChatFormat(tokenizer(HERMES), tools="none")):
        with pytest.raises(RequestError, match="tool_call_parser"):
            off.parser("", ToolUse((ADD,)))


def test_calls_in_the_history_are_objects_or_text_as_the_template_writes_them() -> None:
    use = ToolUse((ADD,))
    for template, wanted in ((HERMES, '"arguments": {"a": 1}}'), (MISTRAL, 'add[ARGS]{"a": 1}')):
        style = ChatFormat(tokenizer(template))
        messages, tools = style.prepare(HISTORY, use)
        text = style.tokenizer.apply_chat_template(messages, tools=tools)
        assert wanted in text
        assert '"description": "Adds."' in text


def test_a_template_without_tools_is_told_of_them_in_words() -> None:
    style = ChatFormat(tokenizer(PLAIN))
    messages, tools = style.prepare([{"role": "system", "content": "Be brief."}, *HISTORY], ToolUse((ADD,)))
    text = style.tokenizer.apply_chat_template(messages, tools=tools)
    assert tools is None
    assert text.startswith("<|system|>Be brief.\n\nYou can call functions.")
    assert (
        '<|assistant|><tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|user|><tool_response>' in text
    )


def test_a_history_with_broken_arguments_is_refused() -> None:
    broken = {**CALL, "function": {"name": "add", "arguments": "{"}}
    with pytest.raises(RequestError, match=r"messages\.0"):
        ChatFormat(tokenizer(HERMES)).prepare([{"role": "assistant", "tool_calls": [broken]}], None)


def test_marks_that_are_special_tokens_are_asked_for_and_others_hidden() -> None:
    style = ChatFormat(tokenizer(MISTRAL, ("[TOOL_CALLS]", "[ARGS]", "<|other|>")))
    use = ToolUse((ADD,))
    assert style.needs_special_tokens(use)
    assert not style.needs_special_tokens(None)
    form = style.structure(use)
    assert form is not None
    assert "<[" in str(form.grammar)
    for pieces in (
        ['a<|other|>b[TOOL_CALLS]add[ARGS]{"a": 1}<|end|>'],
        list('a<|other|>b[TOOL_CALLS]add[ARGS]{"a": 1}<|end|>'),
    ):
        parser = style.parser("", use)
        for piece in pieces:
            parser.push(piece)
        parser.finish()
        assert parser.content == "ab"
        assert [(call.name, call.arguments, len(call.id)) for call in parser.calls] == [("add", '{"a": 1}', 9)]


def test_thoughts_then_calls_are_told_apart_and_finish_with_tool_calls() -> None:
    style = ChatFormat(tokenizer(HERMES))
    parser = style.parser("<|assistant|><think>\n", ToolUse((ADD,)))
    parser.push('I <tool_call> think\n</think>\n\nSo <tool_call>{"name": "add", "arguments": {"a": 2}}</tool_call>')
    parser.finish()
    assert (parser.reasoning, parser.content) == ("I <tool_call> think", "So")
    assert parser.finish_reason("stop") == "tool_calls"
    assert parser.finish_reason("length") == "length"
    over = "<|assistant|><think>\n\n</think>\n\n"
    parser = style.parser(over)
    parser.push("<think> is a mark")
    parser.finish()
    assert (parser.reasoning, parser.content) == ("", "<think> is a mark")
    for prompt, inside, starts in (("<|assistant|>", False, 1), ("<|assistant|><think>", True, 1), (over, False, 0)):
        marks = style.thinking_marks(prompt)
        assert marks is not None
        assert (marks.inside, len(marks.starts)) == (inside, starts)
    assert style.count_reasoning_tokens((5, 6), over) == 0


def test_a_named_function_may_be_called_anything() -> None:
    tools = (Tool("required"), Tool("auto"))
    assert ToolUse(tools, "named", name="auto").callable == (tools[1],)
    assert ToolUse(tools, "required").callable == tools


def test_a_form_of_the_answer_leaves_room_for_calls_or_is_refused() -> None:
    style = ChatFormat(tokenizer(HERMES))
    either = style.structure(ToolUse((ADD,)), StructuredOutputsParams(json={"type": "object"}))
    assert either is not None
    assert " | " in str(either.grammar).splitlines()[0]
    for use, form in (
        (ToolUse((ADD,), "required"), StructuredOutputsParams(json_object=True)),
        (ToolUse((ADD,)), StructuredOutputsParams(regex="a")),
    ):
        with pytest.raises(RequestError, match="choose one"):
            style.structure(use, form)


def test_only_strict_schemas_bind_an_answer_that_need_not_be_a_call() -> None:
    odd = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(?!x)"}}}
    style = ChatFormat(tokenizer(HERMES))
    free = style.structure(ToolUse((Tool("f", "", odd),)))
    strict = style.structure(ToolUse((Tool("f", "", odd, strict=True),)))
    forced = style.structure(ToolUse((Tool("f", "", odd),), "required"))
    assert "?!x" not in str(free)
    assert "?!x" in str(strict)
    assert "?!x" in str(forced)
    coder = ChatFormat(tokenizer(HERMES), tools="qwen3_coder")
    assert coder.structure(ToolUse((Tool("f", "", odd),))) is None
    assert coder.structure(ToolUse((ADD_STRICT,))) is not None
    assert ChatFormat(tokenizer(HERMES), tools="llama3_json").structure(ToolUse((ADD_STRICT,))) is None


@pytest.fixture(scope="module")
def llm() -> Any:
    with LLM("nano") as made:
        yield made


@pytest.mark.parametrize("template", [HERMES, MISTRAL])
def test_a_model_that_knows_no_tools_calls_them_when_it_must(llm: LLM, template: str) -> None:
    style = ChatFormat(tokenizer(template), reasoning="none")
    for use in (ToolUse((ADD, NOW), "required", several=False), ToolUse((ADD, NOW), "named", name="add")):
        params = SamplingParams(seed=3, max_tokens=100, structured_outputs=style.structure(use))
        [output] = llm.generate(["Add. "], params, use_tqdm=False)
        parser = style.parser("Add. ", use)
        parser.push(output.outputs[0].text)
        parser.finish()
        [call] = parser.calls
        assert parser.content == ""
        arguments = json.loads(call.arguments)
        assert arguments == {} if call.name == "now" else 0 <= arguments["a"] <= 9
        assert call.name in {tool.name for tool in use.callable}
