"""The grammar of every family: what a model can write under it is read back as calls that fit the schemas."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from ramify.errors import RequestError
from ramify.models.hub import resolve_model
from ramify.text.chat_parser import ChatParser
from ramify.text.constraints import Grammar, NextTokens, Vocabulary, bind
from ramify.text.tokenizer import Tokenizer, load_tokenizer
from ramify.text.tool_calls import Tool, ToolCallParser, tool_format
from ramify.text.tool_calls.families import FAMILIES
from ramify.text.tool_calls.grammar import GrammarWriter

TOOLS = (
    Tool(
        "add",
        "",
        {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "minimum": 0, "maximum": 99},
                "tags": {"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 2},
            },
            "required": ["a"],
        },
        True,
    ),
    Tool(
        "note",
        "",
        {"type": "object", "properties": {"level": {"enum": ["low", "high"]}, "urgent": {"type": "boolean"}}},
    ),
    Tool("now"),
)
NAMES = [family.name for family in FAMILIES]
MOST_TOKENS = 150


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(resolve_model("nano"))


def draw(allowed: NextTokens, vocabulary: Vocabulary, rng: random.Random) -> tuple[int, ...]:
    """An answer of a model that knows nothing: every token by chance, short ones liked."""
    ids: tuple[int, ...] = ()
    while len(ids) < MOST_TOKENS:
        choices = np.flatnonzero(allowed(ids)).tolist()
        assert choices, "the grammar leads nowhere"
        if vocabulary.end_ids & set(choices) and (len(choices) == 1 or rng.random() < 0.5):
            return ids
        ids += (rng.choice([token for token in choices if token not in vocabulary.end_ids]),)
    return ()


def fits(name: str, arguments: dict[str, object]) -> bool:
    if name == "add":
        tags = arguments.get("tags", [])
        known = (
            set(arguments) <= {"a", "tags"} and isinstance(tags, list) and len(tags) <= 2 and set(tags) <= {"x", "y"}
        )
        return known and isinstance(arguments["a"], int) and 0 <= arguments["a"] <= 99
    if name == "note":
        right = arguments.get("level", "low") in ("low", "high") and isinstance(arguments.get("urgent", True), bool)
        return set(arguments) <= {"level", "urgent"} and right
    return name == "now" and arguments == {}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("several", [False, True])
def test_whatever_the_grammar_lets_through_is_calls_that_fit(tokenizer: Tokenizer, name: str, several: bool) -> None:
    family, vocabulary, rng = tool_format(name), Vocabulary.of(tokenizer), random.Random(1)
    allowed = bind(Grammar(GrammarWriter().forced(family, TOOLS, several)), vocabulary)
    finished = 0
    for _ in range(2):
        ids = draw(allowed, vocabulary, rng)
        if not ids:
            continue
        finished += 1
        reader = ChatParser(None, ToolCallParser(family, TOOLS), family)
        reader.push(tokenizer.decode(ids))
        reader.finish()
        assert reader.content == ""
        assert len(reader.calls) >= 1 if several else len(reader.calls) == 1
        assert all(fits(call.name, json.loads(call.arguments)) for call in reader.calls)
    assert finished


@pytest.mark.parametrize("name", [name for name in NAMES if not tool_format(name).start_openers])
def test_a_free_answer_is_held_to_the_form_from_the_opener_on(tokenizer: Tokenizer, name: str) -> None:
    family, vocabulary = tool_format(name), Vocabulary.of(tokenizer)
    allowed = bind(Grammar(GrammarWriter().free(family, TOOLS, True)), vocabulary)
    text = tokenizer.encode("So: ", add_special_tokens=False)
    assert vocabulary.end_ids <= set(np.flatnonzero(allowed(text)).tolist())
    opened = tokenizer.encode(f"So: {family.openers[0]}", add_special_tokens=False)
    assert not vocabulary.end_ids & set(np.flatnonzero(allowed(opened)).tolist())
    assert allowed(opened).sum() < allowed(text).sum() / 4


def test_marks_that_are_special_tokens_are_written_as_such() -> None:
    writer = GrammarWriter({"[TOOL_CALLS]": 9, "[ARGS]": 32}.get)
    assert "<[9]> (" in (lark := writer.forced(tool_format("mistral_v11"), TOOLS, False))
    assert "<[32]>" in lark


def test_families_that_write_arguments_one_by_one_need_them_listed() -> None:
    anything = Tool("f", "", {"type": "object"})
    with pytest.raises(RequestError, match="list them under properties"):
        GrammarWriter().forced(tool_format("qwen3_coder"), [anything], False)
    strict = Tool("f", "", {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}, True)
    with pytest.raises(RequestError, match="'pattern'"):
        GrammarWriter().forced(tool_format("glm45"), [strict], False)
    GrammarWriter().forced(tool_format("hermes"), [anything, strict], False)
