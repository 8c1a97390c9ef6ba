"""The tokenizer out of a GGUF file is the one that the model was converted from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from ramify.errors import CheckpointError, ModelError
from ramify.text.tokenizer import load_tokenizer
from tests.checkpoints import CHAT_TEMPLATE, END, USER, byte_level_bpe, sentencepiece_bpe
from tests.models.gguf_files import write_gguf
from tests.text.gguf_vocabularies import byte_level_metadata, sentencepiece_metadata

TEXTS = (
    "Tom has 12 apples and buys 7 more. 12 + 7 = 19.",
    "  two spaces, a tab\t, lines\n\n and an end ",
    "The dog's 1234567 bones; we'LL see: naïve café, 数字 и слова 😀",
    f"{USER}What is 2+2?{END} rest",
    "",
)
CASELESS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = rf"{CASELESS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{REST}"
LLAMA3 = rf"{CASELESS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{REST}"


def written(folder: Path, metadata: dict[str, Any]) -> Path:
    return write_gguf(folder / "model.gguf", {"general.architecture": "llama", **metadata}, {})


def splitting_by(pattern: str) -> Tokenizer:
    """The tests' byte-level BPE behind another way of splitting."""
    backend = Tokenizer.from_str(byte_level_bpe().to_str())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    return backend


@pytest.mark.parametrize("name", ["gpt-2", "qwen2", "llama-bpe"])
def test_a_byte_level_tokenizer_gives_the_ids_it_was_converted_from(tmp_path: Path, name: str) -> None:
    original = {"qwen2": splitting_by(QWEN2), "llama-bpe": splitting_by(LLAMA3)}.get(name, byte_level_bpe())
    if name == "qwen2":
        original.normalizer = normalizers.NFC()
    ours = load_tokenizer(written(tmp_path, byte_level_metadata(original, name, padded_to=389)))
    for text in TEXTS:
        assert ours.encode(text) == tuple(original.encode(text).ids), text
        assert ours.decode(ours.encode(text), skip_special_tokens=False) == original.decode(
            original.encode(text).ids, skip_special_tokens=False
        )
    assert ours.special_ids == frozenset(range(4))
    assert ours.decode([380]) == ""  # an id that pads the vocabulary


def test_a_sentencepiece_tokenizer_gives_the_ids_it_was_converted_from(tmp_path: Path) -> None:
    original = sentencepiece_bpe()
    ours = load_tokenizer(written(tmp_path, sentencepiece_metadata(original)))
    for text in (*TEXTS, "The dog and the dogs", " The  end"):
        assert ours.encode(text) == tuple(original.encode(text).ids), text
        assert ours.decode(ours.encode(text)) == original.decode(original.encode(text).ids)
    assert (ours.bos_token_id, ours.eos_token_id) == (1, 2)
    assert len(ours.byte_ids) == 256


def test_start_and_end_tokens_and_the_space_in_front_follow_the_metadata(tmp_path: Path) -> None:
    metadata = sentencepiece_metadata(sentencepiece_bpe())
    plain = load_tokenizer(written(tmp_path, {**metadata, "tokenizer.ggml.add_bos_token": False}))
    assert plain.encode("The dog")[0] != 1
    both = load_tokenizer(written(tmp_path, {**metadata, "tokenizer.ggml.add_eos_token": True}))
    assert (both.encode("The")[0], both.encode("The")[-1]) == (1, 2)
    without = load_tokenizer(written(tmp_path, {**metadata, "tokenizer.ggml.add_space_prefix": False}))
    assert without.decode(without.encode("The dog")) == "The dog"
    assert without.encode("The dog", add_special_tokens=False) != plain.encode("The dog")


def test_the_chat_template_comes_along(tmp_path: Path) -> None:
    metadata = byte_level_metadata(byte_level_bpe())
    messages = [{"role": "user", "content": "Hi"}]
    bare = load_tokenizer(written(tmp_path, metadata))
    assert bare.chat_template is None
    ours = load_tokenizer(written(tmp_path, {**metadata, "tokenizer.chat_template": CHAT_TEMPLATE}))
    assert ours.apply_chat_template(messages) == f"{USER}Hi<|assistant|>"
    assert ours.chat_ids(messages)[0] == 1


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"tokenizer.ggml.model": "bert"}, ModelError, r"kind 'bert'; .*tokenizer=FOLDER"),
        ({"tokenizer.ggml.pre": "own-regex"}, ModelError, r"'own-regex' \(tokenizer\.ggml\.pre\).*knows default"),
        ({"tokenizer.ggml.merges": ["ab"]}, CheckpointError, "pairs with a space between"),
        ({"tokenizer.ggml.merges": ["no such"]}, CheckpointError, "no tokenizer can be made of its vocabulary"),
        ({"tokenizer.ggml.tokens": ["a", "a"], "tokenizer.ggml.token_type": [1, 1]}, CheckpointError, "one of each"),
        ({"tokenizer.ggml.token_type": [1, 1]}, CheckpointError, "as tokens are"),
        ({"tokenizer.ggml.eos_token_id": 4000}, CheckpointError, "below the number of tokens, 360"),
        ({"tokenizer.ggml.tokens": [b"\xff\xfe"], "tokenizer.ggml.token_type": [1]}, CheckpointError, "UTF-8"),
        ({"tokenizer.ggml.tokens": "abc"}, CheckpointError, "a list of texts"),
    ],
)
def test_a_vocabulary_that_cannot_be_is_told(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    path = written(tmp_path, {**byte_level_metadata(byte_level_bpe()), **changes})
    with pytest.raises(error, match=said):
        load_tokenizer(path)


def test_a_file_that_does_not_say_how_it_splits_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metadata = byte_level_metadata(byte_level_bpe())
    del metadata["tokenizer.ggml.pre"]
    load_tokenizer(written(tmp_path, metadata))
    assert "does not say how text is split" in caplog.text


def test_a_file_without_a_tokenizer_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no tokenizer: give LLM\(\.\.\., tokenizer=FOLDER\)"):
        load_tokenizer(written(tmp_path, {}))


def test_a_piece_of_absurd_length_is_told(tmp_path: Path) -> None:
    metadata = sentencepiece_metadata(sentencepiece_bpe())
    metadata["tokenizer.ggml.tokens"][-1] = "a" * 100_000
    with pytest.raises(CheckpointError, match="pieces of 1024 characters or fewer"):
        load_tokenizer(written(tmp_path, metadata))
