"""Chat templates render as in transformers, cannot leave their sandbox, and fail loudly where they must."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from ramify.errors import CheckpointError, ModelError, RequestError
from ramify.text.chat_template import ChatTemplate, load_chat_template
from ramify.text.tokenizer import load_tokenizer
from tests.checkpoints import make_tokenizer

CHATML = (
    "{%- for message in messages %}\n"
    "    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}\n"
)
TRIMMING = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] | trim }} {{ eos_token }}{% endfor %}"
)
HELPERS = (
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}{%- set messages = messages[1:] %}"
    "{%- else %}{%- set system = '' %}{%- endif %}"
    "{%- set ns = namespace(last=-1) %}"
    "{%- for m in messages %}{%- if m.role == 'tool' %}{%- continue %}{%- endif %}"
    "{%- if loop.index > 3 %}{%- break %}{%- endif %}{%- set ns.last = loop.index0 %}"
    "{{- m.role }}:{% generation %}{{ m.content }}{% endgeneration %};{%- endfor %}"
    "{{- ns.last }}{{ system }}{% if tools %}{{ tools | tojson(indent=1) }}{% endif %}"
    "{% if enable_thinking is defined and enable_thinking %}<think>{% endif %}{{ dict(a=1)['a'] }}"
)
CHAT = [
    {"role": "system", "content": "Be brief & <exact>."},
    {"role": "user", "content": " Hello \n"},
    {"role": "assistant", "content": "Step 1: 3 + 4 = 7\nStep 2:"},
]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "é <b>"}}]


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})


def by_transformers(folder: Path, source: str, messages: list[dict[str, Any]], **options: Any) -> str:
    """What transformers renders."""
    make_tokenizer(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, bos_token="<s>", eos_token="</s>")
    return str(tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False, **options))


@pytest.mark.parametrize("source", [CHATML, TRIMMING, HELPERS])
@pytest.mark.parametrize(
    "options",
    [{"add_generation_prompt": True}, {"add_generation_prompt": False, "tools": TOOLS, "enable_thinking": True}],
)
def test_templates_render_as_in_transformers(tmp_path: Path, source: str, options: dict[str, Any]) -> None:
    assert template(source).render(CHAT, **options) == by_transformers(tmp_path, source, CHAT, **options)


def test_a_final_message_is_continued_right_after_its_text(tmp_path: Path) -> None:
    text = template(CHATML).render(CHAT, add_generation_prompt=False, continue_final_message=True)
    assert text.endswith("<|im_start|>assistant\nStep 1: 3 + 4 = 7\nStep 2:")
    options = {"add_generation_prompt": False, "continue_final_message": True}
    assert text == by_transformers(tmp_path, CHATML, CHAT, **options)


def test_a_trimming_template_keeps_the_white_space_at_the_end_of_a_continued_message() -> None:
    chat = [*CHAT[:2], {"role": "assistant", "content": "So \n"}]
    assert template(TRIMMING).render(chat, add_generation_prompt=False, continue_final_message=True).endswith("] So \n")


@pytest.mark.parametrize(
    ("source", "content"),
    [
        (TRIMMING, "  starts with spaces"),
        ("{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}", "<think>a</think>b"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "lower"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "left out"),
        ("{% for m in messages %}{{ m.content[:4] }}{% endfor %}", "cut off"),
    ],
)
def test_a_template_that_changes_the_last_message_cannot_continue_it(source: str, content: str) -> None:
    with pytest.raises(RequestError, match="continue_final_message cannot work"):
        template(source).render(
            [{"role": "assistant", "content": content}], add_generation_prompt=False, continue_final_message=True
        )


def test_continuing_and_starting_a_turn_exclude_each_other() -> None:
    with pytest.raises(RequestError, match="choose one"):
        template(CHATML).render(CHAT, continue_final_message=True)


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__ }}",
        "{{ (messages | attr('__class__')) }}",
        "{{ ('%s' | format(messages)).__init__ }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% set f = '{0.__class__}'.format %}{{ f(messages) }}",
    ],
)
def test_an_attacking_template_is_refused(attack: str) -> None:
    with pytest.raises(ModelError, match="leave its sandbox"):
        template(attack).render(CHAT)


def test_a_template_cannot_reach_files() -> None:
    with pytest.raises(RequestError):
        template("{% include '/etc/passwd' %}").render(CHAT)


@pytest.mark.parametrize(
    ("source", "error", "named"),
    [
        ("{{ raise_exception('roles must alternate') }}", RequestError, "refused the messages: roles must alternate"),
        ("{{ messages[7].content + 'x' }}", RequestError, "refused the messages"),
        ("{{ messages[0].content + 3 }}", RequestError, "TypeError"),
        ("{% for m in messages %}", ModelError, "not valid Jinja"),
    ],
)
def test_a_template_that_fails_says_why(source: str, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        template(source).render(CHAT)


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([], "messages is empty"),
        (["hi"], "message is a str"),
        ([{"content": "hi"}], "role None"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "'image_url'"),
        ([{"role": "user", "content": object()}], "only JSON's types"),
    ],
)
def test_messages_that_cannot_be_read_are_refused(messages: Any, named: str) -> None:
    with pytest.raises(RequestError, match=named):
        template(CHATML).render(messages)


def test_text_parts_are_joined_and_empty_entries_left_out() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    message = {"role": "user", "content": parts, "tool_calls": None}
    source = "{% for m in messages %}{{ m.content }}{{ m.tool_calls is defined }}{% endfor %}"
    assert template(source).render([message]) == "one\ntwoFalse"


def test_rendering_leaves_the_messages_as_they_were() -> None:
    chat = [dict(message) for message in CHAT]
    template(CHATML).render(chat, add_generation_prompt=False, continue_final_message=True)
    assert chat == CHAT


def test_the_template_is_found_wherever_checkpoints_keep_it(tmp_path: Path) -> None:
    def rendered(config: dict[str, Any], tools: list[dict[str, Any]] | None = None) -> str | None:
        found = load_chat_template(tmp_path, config, {})
        return None if found is None else found.render(CHAT, tools=tools)

    assert rendered({}) is None
    assert rendered({"chat_template": "one"}) == "one"
    named = [{"name": "default", "template": "two"}, {"name": "tool_use", "template": "three"}]
    assert rendered({"chat_template": named}) == "two"
    assert rendered({"chat_template": named}, TOOLS) == "three"
    (tmp_path / "chat_template.jinja").write_text("four")
    assert rendered({"chat_template": "one"}) == "four"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("five")
    assert rendered({}, TOOLS) == "five"
    for broken in ({"chat_template": 3}, {"chat_template": ["x"]}):
        with pytest.raises(CheckpointError, match="chat_template"):
            rendered(broken)


def test_a_broken_template_leaves_text_prompts_alone(tmp_path: Path) -> None:
    folder = make_tokenizer(tmp_path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "{% if %}"}))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.prompt_ids("hi")
    with pytest.raises(ModelError, match="not valid Jinja"):
        tokenizer.prompt_ids(CHAT)
