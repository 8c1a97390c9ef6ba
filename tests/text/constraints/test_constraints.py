"""Constraints: what they allow is exactly what can still keep them, whatever the borders of tokens."""

import itertools
import re

import numpy as np
import pytest

from ramify.errors import ConfigError
from ramify.models.hub import resolve_model
from ramify.text.constraints import (
    AllOf,
    AllowedIds,
    Constraint,
    Forbidden,
    Grammar,
    JsonSchema,
    Length,
    Regex,
    Vocabulary,
    bind,
)
from ramify.text.tokenizer import load_tokenizer

SMALL = Vocabulary((b"", b"a", b"b", b"ab", b"\n", b""), frozenset({0}))
"""Two letters, both together, and a token that is no text."""


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(resolve_model("nano"))


def answers(constraint, vocabulary=SMALL, depth=4):
    """Every sequence of at most so many tokens that the constraint lets end."""
    allowed = constraint.over(vocabulary)
    found, front = set(), [()]
    for _ in range(depth + 1):
        grown = []
        for tokens in front:
            mask = allowed(tokens)
            found |= {tokens} if mask[0] else set()
            grown += [(*tokens, int(token)) for token in np.flatnonzero(mask) if token not in vocabulary.end_ids]
        front = grown
    return {tokens for tokens in found if len(tokens) <= depth}


def texts(keep, vocabulary=SMALL, depth=4):
    """Every sequence of text tokens whose text is kept."""
    letters = [token for token, piece in enumerate(vocabulary.pieces) if piece]
    return {
        tokens
        for length in range(depth + 1)
        for tokens in itertools.product(letters, repeat=length)
        if keep(b"".join(vocabulary.pieces[token] for token in tokens).decode())
    }


@pytest.mark.parametrize("pattern", ["a{2}b*", "(ab)*", "(a|b\n)*a", "ab|abab\n", "", "[^b]*"])
def test_a_regex_allows_every_tokenisation_of_what_it_matches_and_nothing_else(pattern):
    assert answers(Regex(pattern)) == texts(lambda text: re.fullmatch(pattern, text) is not None)


@pytest.mark.parametrize("words", [("ab",), ("ba",), ("aab", "bb"), ("a\nb", "\n\n"), ("b", "abab")])
def test_a_forbidden_text_never_occurs_whatever_tokens_spell_it(words):
    assert answers(Forbidden(words)) == texts(lambda text: not any(word in text for word in words))


def test_a_forbidden_text_is_found_when_prefixes_are_asked_for_in_any_order():
    allowed = Forbidden(("abab", "bb")).over(SMALL)
    sequences = [tokens for length in range(5) for tokens in itertools.product((1, 2, 3), repeat=length)]
    expected = [Forbidden(("abab", "bb")).over(SMALL)(tokens).tolist() for tokens in sequences]
    order = np.random.default_rng(0).permutation(len(sequences))
    assert all(allowed(sequences[i]).tolist() == expected[i] for i in order)


def test_a_context_free_grammar_is_followed():
    keep = {"b", "aba", "aabaa"}
    found = answers(Grammar('start: "b" | "a" start "a"'), depth=5)
    assert found == texts(lambda text: text in keep, depth=5)


def test_a_length_counts_tokens_before_the_end():
    assert {len(tokens) for tokens in answers(Length(1, 3))} == {1, 2, 3}
    assert {len(tokens) for tokens in answers(Length(2))} == {2, 3, 4}


def test_allowed_ids_are_all_there_is():
    assert answers(AllowedIds((2,)), depth=2) == {(), (2,), (2, 2)}


def test_all_of_allows_what_every_part_allows():
    parts = (Forbidden(("bb",)), Length(1, 2), Regex("[ab]*"))
    assert answers(AllOf(parts)) == set.intersection(*(answers(part) for part in parts))
    assert answers(AllOf(())) == texts(lambda text: True)


def test_tokens_that_are_no_text_are_never_allowed():
    for constraint in (Regex("(?s).*"), Forbidden(("ab",)), Length(), AllOf(())):
        assert not constraint.over(SMALL)(())[5]
        assert isinstance(constraint, Constraint)


def test_equal_constraints_are_bound_once():
    assert bind(Regex("a+"), SMALL) is bind(Regex("a+"), SMALL)


@pytest.mark.parametrize("text", ["12 + 3 = 15\n#### 15", " spaces  and\ttabs", "é ü 漢字 🙂", "<|end|"])
def test_the_bytes_of_a_texts_tokens_are_the_texts(tokenizer, text):
    vocabulary = Vocabulary.of(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(vocabulary.pieces[token] for token in ids) == text.encode()
    assert vocabulary.end_ids == {tokenizer.eos_token_id}


def test_a_letter_of_several_bytes_is_forbidden_in_all_its_tokens(tokenizer):
    vocabulary = Vocabulary.of(tokenizer)
    ids = tokenizer.encode("é", add_special_tokens=False)
    allowed = Forbidden(("é",)).over(vocabulary)
    assert len(ids) == 2
    assert allowed(())[ids[0]]
    assert not allowed(ids[:1])[ids[1]]


def test_json_of_a_schema_is_read_to_its_end(tokenizer):
    vocabulary = Vocabulary.of(tokenizer)
    schema = '{"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}'
    allowed = JsonSchema(schema).over(vocabulary)
    ids = tokenizer.encode('{"x": 12}', add_special_tokens=False)
    assert all(allowed(ids[:length])[token] for length, token in enumerate(ids))
    assert allowed(ids)[tokenizer.eos_token_id]
    assert not allowed(ids[:-1])[tokenizer.eos_token_id]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Regex("[a").over(SMALL), "cannot be used"),
        (lambda: Grammar("start: nothing").over(SMALL), "cannot be used"),
        (lambda: JsonSchema("{").over(SMALL), "no JSON"),
        (lambda: Forbidden(()), "at least one"),
        (lambda: Forbidden(("a", "")), "no empty one"),
        (lambda: Length(3, 2), "at_most=2"),
        (lambda: AllowedIds((9,)).over(SMALL), "id 9 is not in the vocabulary"),
    ],
)
def test_a_constraint_that_cannot_work_is_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
