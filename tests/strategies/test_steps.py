"""Step splitters: where steps end, and how they are written in a spec."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify import registry
from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import ConfigError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from ramify.strategies import Beam, StepSplitter, describe, parse_strategy
from ramify.strategies.spec_text import SpecText, escape, unescape
from ramify.strategies.steps import code, lines, paragraphs, parse_splitter, thinking, tokens

TEXT = st.text(alphabet="ab \n\t,'+#\\=\u00e9\u2003", min_size=1, max_size=6)


def steps_of(text, splitter):
    """The steps in which a backend draws `text`, with a token a character."""
    letters = sorted(set(text))
    ids = {letter: i + 1 for i, letter in enumerate(letters)}
    path = tuple(ids[letter] for letter in text)
    size = len(letters) + 1
    table = {path[:n]: [float(i == token) for i in range(size)] for n, token in enumerate((*path, 0))}
    backend = ToyBackend(ToyModel(("", *letters), table), max_model_len=1000)

    async def run():
        node = await backend.root("x", BranchKey.root(0, "p"))
        steps = []
        while node.open:
            drawn = [
                child async for child in backend.extend(node, SamplingParams(max_tokens=None), 1, 0, splitter.step_end)
            ]
            steps.append(drawn[0].text.removeprefix(node.text))
            node = drawn[0]
        return steps

    return asyncio.run(run())


def test_lines_paragraphs_and_numbers_of_tokens():
    assert steps_of("ab\ncd\n\nef", lines()) == ["ab\n", "cd\n", "\n", "ef"]
    assert steps_of("ab\ncd\n\nef", paragraphs()) == ["ab\ncd\n\n", "ef"]
    assert steps_of("abcdefgh", tokens(3)) == ["abc", "def", "gh"]


def test_thinking_ends_a_step_behind_a_word_that_turns_round():
    text = "I add.\nWait, no.\n\nHmm. So\nButter\nBut then\nSo Wait, x"
    assert steps_of(text, thinking()) == ["I add.\nWait,", " no.\n\n", "Hmm. So\nButter\nBut ", "then\nSo Wait, x"]


def test_code_ends_a_step_at_fences_and_top_level_definitions():
    text = "So:\n```py\nimport re\ndef f():\n    def g(): 0\n\nclass A: 0\n```\nok"
    steps = ["So:\n```", "py\nimport re\ndef ", "f():\n    def g(): 0\n\n", "class A: 0\n```", "\nok"]
    assert steps_of(text, code()) == steps


@pytest.mark.parametrize(
    ("written", "made"),
    [
        ("line", lines()),
        ("paragraph", paragraphs()),
        ("thinking", thinking()),
        ("code", code()),
        ("32", StepSplitter(max_tokens=32)),
        ("tokens:k=8", StepSplitter(max_tokens=8)),
        ("'###'", StepSplitter(stop=("###",))),
        (r"'\n\n'", paragraphs()),
        (r"'a\x2cb'", StepSplitter(stop=("a,b",))),
        (r"'it\'s + 1'", StepSplitter(stop=("it's + 1",))),
        ("#7+#9", StepSplitter(stop_token_ids=(7, 9))),
        ("thinking+256", StepSplitter(stop=thinking().stop, max_tokens=256)),
        ("line + '.' + 64+32", StepSplitter(stop=("\n", "."), max_tokens=32)),
    ],
)
def test_specs_name_splitters_strings_ids_and_numbers(written, made):
    assert parse_splitter(written) == made
    assert parse_splitter(str(made)) == made


@given(
    st.lists(TEXT, max_size=3, unique=True), st.lists(st.integers(0, 99), max_size=2, unique=True), st.integers(0, 99)
)
def test_any_splitter_in_a_spec_is_read_back(strings, ids, limit):
    if not (strings or ids or limit):
        return
    splitter = StepSplitter(tuple(strings), tuple(ids), limit or None)
    made = Beam(n=4, m=2, until=splitter)
    assert parse_splitter(str(splitter)) == splitter
    assert parse_strategy(describe(made)) == made


@pytest.mark.parametrize("spec", ["thinking", "code", "paragraph", "line", "32", "'###'", "code+128", "#3"])
def test_a_strategy_with_a_splitter_is_described_as_it_was_written(spec):
    until = f",until={spec}" if spec != "line" else ""
    assert describe(parse_strategy(f"beam:n=4,m=2,until={spec}")) == f"beam:n=4,m=2{until}"


@pytest.mark.parametrize("written", ["", "line+", "+line", "'open", "''", "0", "word", "#x", "line paragraph"])
def test_what_cannot_be_read_is_refused(written):
    with pytest.raises(ConfigError):
        parse_splitter(written)


def test_all_registered_splitters_can_be_named():
    for entry in registry.techniques("splitter"):
        assert isinstance(parse_splitter(entry.name), StepSplitter)


@given(st.text(max_size=20))
def test_text_in_a_spec_is_read_back_whatever_it_holds(text):
    assert unescape(escape(text)) == text
    assert "," not in escape(text)
    assert escape(text) == escape(text).strip()
    value = SpecText.of(text)
    assert value == text
    assert SpecText(f"{value}") == text
