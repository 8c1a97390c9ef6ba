"""Architectures as data: how they are written and read, which orders are refused; and replies as text."""

import pytest

from ramify.errors import ConfigError
from ramify.strategies import describe, parse_strategy
from ramify.strategies.programs.archon import Archon
from ramify.strategies.programs.archon_layers import (
    CodeTests,
    Critic,
    Evaluator,
    Fuser,
    Generator,
    Ranker,
    UnitTests,
    Verifier,
    one_answer,
    read_layers,
    write_layers,
)
from ramify.strategies.programs.archon_replies import (
    read_code_tests,
    read_outcomes,
    read_ranking,
    read_sections,
    read_tests,
    read_verdict,
    whole_ranking,
)

EVERYTHING = (
    "generator:8+generator:2@small/verifier/tests:7/evaluator:6/critic@large/ranker:4/fuser:3+fuser@small/fuser"
)


def test_an_architecture_is_read_and_written_back():
    layers = read_layers(EVERYTHING)
    assert layers[0] == (Generator(8), Generator(2, "small"))
    assert read_layers("generator/code-tests:2/evaluator")[1] == (CodeTests(2),)
    assert layers[1:4] == ((Verifier(),), (UnitTests(7),), (Evaluator(6),))
    assert layers[4:] == ((Critic(model="large"),), (Ranker(4),), (Fuser(3), Fuser(model="small")), (Fuser(),))
    assert write_layers(layers) == EVERYTHING
    assert write_layers(read_layers("generator:1/ranker:0/fuser:1")) == "generator/ranker/fuser"


def test_components_and_a_spec_make_the_same_strategy():
    built = Archon([[Generator(4), Generator(2, "small")], Critic(), Ranker(3), Fuser()])
    read = parse_strategy("archon:layers=generator:4+generator:2@small/critic/ranker:3/fuser")
    assert built == read
    assert hash(built) == hash(read)
    assert parse_strategy(describe(read)) == read
    assert describe(read) == "archon:layers=generator:4+generator:2@small/critic/ranker:3/fuser"


def test_prompts_are_options_of_a_spec():
    made = parse_strategy("archon:layers=generator:2/fuser,item={answer},fuser_prompt=Mend:\\n{answers}")
    assert (made.item, made.fuser_prompt) == ("{answer}", "Mend:\n{answers}")
    assert parse_strategy(describe(made)) == made


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ("", "is no component"),
        ("critic/fuser", "critic cannot come first"),
        ("fuser", "fuser cannot come first"),
        ("generator:8/fuser/generator:2", "generators come first"),
        ("generator:8/critic", "put a ranker or a fuser behind it"),
        ("generator:8/ranker:2/critic", "put a ranker or a fuser behind it"),
        ("generator:8/critic/verifier/critic/fuser", "whose critiques nobody reads"),
        ("generator:8/tests", "put an evaluator behind"),
        ("generator:8/code-tests/tests/evaluator", "put an evaluator behind"),
        ("generator:8/evaluator", "tests:5"),
        ("generator:8/evaluator/tests", "evaluator"),
        ("generator:8+critic/fuser", "layers of their own"),
        ("generator:8/ranker+ranker/fuser", "one is enough"),
        ("generator:0", "generator:0"),
        ("generator:4/ranker:-1", "ranker:-1"),
        ("generator:4/tests:11/evaluator", "1 to 10"),
        ("generator:4/critic:2/fuser", "takes no number"),
        ("generator:4/judge", "'judge' is no component"),
        ("generator:4//fuser", "is no component"),
    ],
)
def test_an_order_or_a_number_that_cannot_work_is_refused(layers, named):
    with pytest.raises(ConfigError, match=named):
        Archon(layers)


def test_other_options_that_do_not_work_are_refused():
    with pytest.raises(ConfigError, match="without layers"):
        Archon([])
    with pytest.raises(ConfigError, match="no '/'"):
        Archon([Generator(2, "a/b")])
    with pytest.raises(ConfigError, match="retries=4"):
        Archon(retries=4)
    with pytest.raises(ConfigError, match="answers"):
        Archon(fuser_prompt="write")
    with pytest.raises(ConfigError, match="tests"):
        Archon(evaluator_prompt="{answer}")
    for several in ("generator:3", "generator:4/ranker:2", "generator:4/fuser:2", "generator:4/fuser/verifier"):
        with pytest.raises(ConfigError, match="end them with fuser"):
            Archon(several, final="single")
    for single in ("generator", "generator:4/ranker:1", "generator:4/fuser", "generator:4/tests/evaluator:1"):
        assert one_answer(Archon(single, final="single").architecture)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("[1] good\n[2] bad", ["good", "bad"]),
        ("**[2]**: late\nand long\n\n### [1]\nearly", ["early", "late\nand long"]),
        ("[1] good", None),
        ("[1] good\n[2]", None),
        ("[1] good\n[1] better\n[2] bad", None),
        ("[1] good\n[2] bad\n[3] who?", None),
        ("I cannot judge these.", None),
        ("", None),
        (f"[{'1' * 9000}] good\n[2] bad", None),
    ],
)
def test_critiques_are_read_by_number_or_not_at_all(text, read):
    assert read_sections(text, 2) == read


@pytest.mark.parametrize(
    ("text", "ranked"),
    [
        ("[3] > [1] > [2]", [2, 0, 1]),
        ("3 > 1>2", [2, 0, 1]),
        ("[3, 1, 2]", [2, 0, 1]),
        ("I liked [1] > [2] first, but\n[2] > [1] > [3]", [1, 0, 2]),
        ("[2] > [2] > [9] > [0] > [1]", [1, 0]),
        ("[1] is worse than\n[2]", [1]),
        ("I cannot rank these 3 answers.", []),
        ("1" * 9000 + " > [2]", [1]),
        ("1" * 50_000, []),
        ("", []),
    ],
)
def test_a_ranking_holds_each_number_once_and_no_other(text, ranked):
    assert read_ranking(text, 3) == ranked
    assert sorted(whole_ranking(ranked, 3)) == [0, 1, 2]


def test_what_was_left_out_of_a_ranking_comes_last_in_its_order():
    assert whole_ranking([2], 4) == [2, 0, 1, 3]
    assert whole_ranking([], 3) == [0, 1, 2]


def test_the_last_verdict_counts():
    assert read_verdict("Is it [Incorrect]? No: [correct]") is True
    assert read_verdict("so [Incorrect].") is False
    assert read_verdict("It is correct.") is None
    assert read_verdict("") is None


def test_outcomes_are_read_by_number_and_never_guessed():
    assert read_outcomes("[1] PASS\n[2] FAILED\n[3]: passes", 4) == [True, False, True, None]
    assert read_outcomes("[1] PASS, or rather [1] FAIL; [7] PASS", 2) == [False, None]
    assert read_outcomes("all pass", 2) == [None, None]


def test_tests_are_a_list_of_texts_or_numbered_lines():
    assert read_tests('Here: ["a", "b", "a", " "]') == (["a", "b"], True)
    assert read_tests('["a", 2]\n1. it ends\n- it holds') == (["it ends", "it holds"], False)
    assert read_tests('["a", "b"') == ([], False)
    assert read_tests("No.") == ([], False)
    assert read_tests("[" * 50_000 + "]") == ([], False)


def test_code_tests_are_fenced_blocks():
    one = "```python\nassert f(1) == 2\n```\n"
    text = f"{one}and\n```py\n\n```\n```\nassert f(2) == 3\n```\n{one}"
    assert read_code_tests(text) == ["assert f(1) == 2", "assert f(2) == 3"]
    assert read_code_tests("assert f(1) == 2") == []
