"""The pieces of an incremental text add up to the whole text, are never broken, and come at once at a constant cost."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.text.detokenizer import _WINDOW_TOKENS, Detokenizer
from ramify.text.tokenizer import Tokenizer
from tests.checkpoints import byte_level_bpe, sentencepiece_bpe

TOKENIZERS = {"byte-level": Tokenizer(byte_level_bpe()), "sentencepiece": Tokenizer(sentencepiece_bpe())}
TEXT = "The dog 中文字 and 👩‍👩‍👧‍👦 naïve e\u0301\u0323 ﷽ \u200d\n  The"
both = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())


def pieces_of(tokenizer: Tokenizer, ids: list[int], skip: bool = True) -> list[str]:
    """One piece a token, and the last from the flush."""
    detokenizer = Detokenizer(tokenizer, skip)
    return [*(detokenizer.push([token]) for token in ids), detokenizer.flush()]


# Any id, with the ids of single bytes (broken UTF-8) and of special tokens far more often than by chance.
ids_of_anything = st.lists(st.one_of(st.integers(0, 400), st.integers(0, 4), st.integers(130, 260)), max_size=60)


@both
@given(ids=ids_of_anything, skip=st.booleans())
def test_the_pieces_add_up_to_the_text_of_all_ids(tokenizer: Tokenizer, ids: list[int], skip: bool) -> None:
    assert "".join(pieces_of(tokenizer, ids, skip)) == tokenizer.decode(ids, skip_special_tokens=skip)


@both
@given(text=st.text(max_size=40))
def test_valid_text_comes_out_without_a_replacement_character(tokenizer: Tokenizer, text: str) -> None:
    text = text.replace("\ufffd", "")
    pieces = pieces_of(tokenizer, list(tokenizer.encode(text, add_special_tokens=False)), skip=False)
    assert "".join(pieces) == tokenizer.decode(tokenizer.encode(text, add_special_tokens=False), False)
    assert not any("\ufffd" in piece for piece in pieces)


@both
@given(ids=ids_of_anything, cuts=st.lists(st.integers(0, 60), max_size=5))
def test_it_does_not_matter_how_many_tokens_come_at_once(tokenizer: Tokenizer, ids: list[int], cuts: list[int]) -> None:
    detokenizer = Detokenizer(tokenizer)
    borders = sorted({0, len(ids), *(min(cut, len(ids)) for cut in cuts)})
    chunks = [ids[start:end] for start, end in pairwise(borders)]
    text = "".join(detokenizer.push(chunk) for chunk in chunks) + detokenizer.flush()
    assert text == "".join(pieces_of(tokenizer, ids))


@both
def test_a_character_of_several_tokens_comes_out_whole(tokenizer: Tokenizer) -> None:
    pieces = pieces_of(tokenizer, list(tokenizer.encode(TEXT, add_special_tokens=False)))
    assert "".join(pieces) == TEXT
    assert all("\ufffd" not in piece for piece in pieces)


def test_text_is_out_with_the_token_that_completes_it() -> None:
    tokenizer = TOKENIZERS["byte-level"]
    detokenizer, so_far = Detokenizer(tokenizer), ""
    ids = tokenizer.encode(TEXT)
    for count, token in enumerate(ids, start=1):
        so_far += detokenizer.push([token])
        assert so_far == tokenizer.decode(ids[:count]).rstrip("\ufffd")


def test_bytes_that_never_become_a_character_are_not_held_for_ever() -> None:
    tokenizer = TOKENIZERS["byte-level"]
    stray = next(index for index in range(tokenizer.vocab_size) if tokenizer.decode([index]) == "\ufffd")
    pieces = pieces_of(tokenizer, [stray] * 100)
    assert "".join(pieces[:-1]) == "\ufffd" * 99


@both
def test_the_work_for_a_token_does_not_grow_with_the_text(tokenizer: Tokenizer) -> None:
    detokenizer = Detokenizer(tokenizer)
    for _ in range(50):
        detokenizer.push(tokenizer.encode(" The dog and"))
        assert len(detokenizer._window) < _WINDOW_TOKENS


@both
def test_after_a_context_the_first_token_keeps_its_leading_space(tokenizer: Tokenizer) -> None:
    prompt, ids = tokenizer.encode("The"), tokenizer.encode("The dog")[len(tokenizer.encode("The")) :]
    detokenizer = Detokenizer(tokenizer, context=prompt)
    assert detokenizer.push(ids) + detokenizer.flush() == " dog"


def test_a_character_begun_in_the_context_is_completed() -> None:
    tokenizer = TOKENIZERS["byte-level"]
    ids = tokenizer.encode("The 中")
    detokenizer = Detokenizer(tokenizer, context=ids[:-1])
    assert detokenizer.push(ids[-1:]) == "中"


@both
@given(ids=ids_of_anything, at=st.integers(0, 60))
def test_a_copy_goes_on_alone(tokenizer: Tokenizer, ids: list[int], at: int) -> None:
    detokenizer = Detokenizer(tokenizer)
    before = detokenizer.push(ids[:at])
    twin = detokenizer.copy()
    detokenizer.push(ids)
    assert before + twin.push(ids[at:]) + twin.flush() == tokenizer.decode(ids)
