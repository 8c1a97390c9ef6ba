"""Ids equal those of transformers' AutoTokenizer, and a prompt may take any of its forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, pre_tokenizers

from ramify.errors import CheckpointError, ModelError, RequestError
from ramify.models.hub import resolve_model
from ramify.text.tokenizer import Tokenizer, load_tokenizer
from tests.checkpoints import END, SPECIAL_TOKENS, byte_level_bpe, make_tokenizer, sentencepiece_bpe

TEXTS = [
    "",
    " ",
    "The dog",
    "  two  spaces\n\n and lines \t",
    "a<|end|>b <|user|> c",
    "<s>The</s> dog",
    "naïve café – 中文 👩‍👩‍👧 e\u0301 \u200b \x00",
    "12 + 7 = 19. #### 19",
]
MESSAGES = [{"role": "user", "content": "What is 2 + 2?"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def sentencepiece() -> Tokenizer:
    return Tokenizer(sentencepiece_bpe(), {"bos_token": "<s>", "eos_token": "</s>"})


def write(folder: Path, backend: Backend, **config: Any) -> Path:
    """A tokenizer's two files."""
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def assert_same_ids(folder: Path) -> None:
    """Encoding and decoding agree with AutoTokenizer's."""
    ours, reference = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        for special in (True, False):
            ids = reference.encode(text, add_special_tokens=special)
            assert ours.encode(text, add_special_tokens=special) == tuple(ids), text
            assert ours.decode(ids, skip_special_tokens=special) == reference.decode(ids, skip_special_tokens=special)
    assert ours.eos_token_id == reference.eos_token_id
    assert ours.bos_token_id == reference.bos_token_id
    assert ours.vocab_size == len(reference)


LLAMA_3 = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL_TOKENS[1], "eos_token": END}
STARTED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


@pytest.mark.parametrize(
    "config",
    [
        LLAMA_3,
        {**LLAMA_3, "clean_up_tokenization_spaces": True},
        {**LLAMA_3, "add_bos_token": True},
        {**LLAMA_3, "add_bos_token": True, "add_eos_token": True},
        {**LLAMA_3, "add_bos_token": False},
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|new|>", "pad_token": "<|pad|>"},
        {**LLAMA_3, "additional_special_tokens": ["<|tool|>"]},
        {**LLAMA_3, "added_tokens_decoder": {"360": {"content": "<|x|>", "special": True}, "361": {"content": "user"}}},
    ],
)
def test_byte_level_ids_equal_those_of_transformers(tmp_path: Path, config: dict[str, Any]) -> None:
    assert_same_ids(write(tmp_path, Backend.from_str(byte_level_bpe().to_str()), **config))


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer_class": "PreTrainedTokenizerFast", **STARTED},
        {"tokenizer_class": "PreTrainedTokenizerFast", **STARTED, "add_bos_token": True, "add_eos_token": False},
        {"tokenizer_class": "PreTrainedTokenizerFast", **STARTED, "add_bos_token": False, "add_eos_token": True},
    ],
)
def test_sentencepiece_style_ids_equal_those_of_transformers(tmp_path: Path, config: dict[str, Any]) -> None:
    assert_same_ids(write(tmp_path, sentencepiece_bpe(), **config))


def test_ids_equal_those_of_transformers_llama_class_where_it_builds_its_own_pipeline(tmp_path: Path) -> None:
    backend = sentencepiece_bpe()
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    assert_same_ids(write(tmp_path, backend, tokenizer_class="LlamaTokenizer", **STARTED, legacy=False))


def test_older_files_of_special_tokens_are_read(tmp_path: Path) -> None:
    write(tmp_path, Backend.from_str(byte_level_bpe().to_str()), tokenizer_class="PreTrainedTokenizerFast")
    special = {"eos_token": {"content": END, "lstrip": False}, "bos_token": "<|begin|>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(special))
    assert_same_ids(tmp_path)
    assert load_tokenizer(tmp_path).eos_token_id == 0


def test_truncation_and_padding_of_the_file_are_not_applied(tmp_path: Path) -> None:
    backend = Backend.from_str(byte_level_bpe().to_str())
    backend.enable_truncation(4)
    backend.enable_padding(length=8)
    ours = load_tokenizer(write(tmp_path, backend))
    assert ours.decode(ours.encode("The quick brown fox jumps")) == "The quick brown fox jumps"


def test_decoding_leaves_special_tokens_out_unless_told(tokenizer: Tokenizer) -> None:
    ids = (*tokenizer.encode("hi"), 0)
    assert tokenizer.decode(ids) == "hi"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "hi<|end|>"
    assert tokenizer.special_ids == {0, 1, 2, 3}


def test_ids_beyond_the_vocabulary_have_no_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([*tokenizer.encode("hi"), tokenizer.vocab_size + 3]) == "hi"


def test_a_tokens_text_keeps_its_leading_space(tokenizer: Tokenizer, sentencepiece: Tokenizer) -> None:
    for one in (tokenizer, sentencepiece):
        ids = one.encode("The dog and", add_special_tokens=False)
        assert "".join(one.token_text(index) for index in ids).lstrip() == "The dog and"
        assert any(one.token_text(index).startswith(" ") for index in ids[1:])
    assert tokenizer.token_text(0) == END


def test_the_id_of_a_text_that_is_one_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_id(END) == 0
    assert tokenizer.encode("\n", add_special_tokens=False) == (tokenizer.token_id("\n"),)
    with pytest.raises(ModelError, match="it must be one"):
        tokenizer.token_id("The quick")


def test_a_prompt_may_be_text_ids_messages_or_a_dict(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("The dog")
    chat = tokenizer.encode("<|user|>What is 2 + 2?<|assistant|>")
    assert tokenizer.prompt_ids("The dog") == ids
    assert tokenizer.prompt_ids(ids) == ids
    assert tokenizer.prompt_ids(np.array(ids)) == ids  # type: ignore[arg-type]
    assert tokenizer.prompt_ids({"prompt": "The dog"}) == ids
    assert tokenizer.prompt_ids({"prompt_token_ids": list(ids)}) == ids
    assert tokenizer.prompt_ids(MESSAGES) == chat


def test_chat_ids_equal_those_of_transformers(folder: Path, tokenizer: Tokenizer) -> None:
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    expected = reference.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    assert tokenizer.prompt_ids(MESSAGES) == tuple(expected)


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("", "empty"),
        ([], "empty"),
        ({"prompt_token_ids": []}, "empty"),
        (3, "type int"),
        ([1, 2.5], "no integer"),
        ([1, "a"], "no integer"),
        ([1, -2], "-2 is negative"),
        ({"text": "x"}, "dict with text"),
        ({"prompt": "x", "multi_modal_data": {}}, "multi_modal_data"),
        ({"prompt": 3}, "dict with prompt"),
        ("bad \ud800", "lone surrogate"),
        ([{"role": "user"}, 3], "message is a int"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_a_request_error(tokenizer: Tokenizer, prompt: Any, named: str) -> None:
    with pytest.raises(RequestError, match=named):
        tokenizer.prompt_ids(prompt)


def test_a_model_without_a_chat_template_says_so(sentencepiece: Tokenizer) -> None:
    with pytest.raises(RequestError, match="no chat template"):
        sentencepiece.prompt_ids(MESSAGES)


def test_corrupt_and_missing_tokenizer_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_tokenizer(tmp_path)


def test_files_of_two_models_are_told(tmp_path: Path) -> None:
    wrong = {"9": {"content": END, "special": True}}
    folder = write(tmp_path, Backend.from_str(byte_level_bpe().to_str()), added_tokens_decoder=wrong)
    with pytest.raises(CheckpointError, match="not of one model"):
        load_tokenizer(folder)


def test_a_checkpoint_without_tokenizer_json_is_converted_by_transformers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = json.loads(byte_level_bpe().to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(pair) for pair in model["merges"]))
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": END}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours, reference = load_tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert "converting" in caplog.text
    for text in TEXTS:
        assert ours.encode(text) == tuple(reference.encode(text))
    assert ours.eos_token_id == reference.eos_token_id == 0


def test_a_conversation_carries_what_its_template_is_told_and_the_ids_it_became() -> None:
    tokenizer = load_tokenizer(resolve_model("nano"))
    messages = [{"role": "user", "content": "hi"}]
    ids = tokenizer.chat_ids(messages)
    assert tokenizer.prompt_ids({"messages": messages}) == ids
    continued = [*messages, {"role": "assistant", "content": "5 +"}]
    template = {"add_generation_prompt": False, "continue_final_message": True}
    told = {"messages": continued, "template": template}
    assert tokenizer.prompt_ids(told) == tokenizer.chat_ids(continued, **template)
    assert tokenizer.prompt_ids({"messages": messages, "prompt_token_ids": [5, 6]}) == (5, 6)
    with pytest.raises(RequestError, match="a prompt dict with messages, prompt does not work"):
        tokenizer.prompt_ids({"messages": messages, "prompt": "hi"})
