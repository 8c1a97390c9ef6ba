"""The tokenizer out of a GGUF file's metadata: byte-level BPE ("gpt2") and sentencepiece BPE ("llama").

The metadata holds vocabulary and merges, and for the splitting of text in front of them a name alone
(``tokenizer.ggml.pre``): a name that is not known here is refused, since a wrong one changes every prompt quietly.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from ramify.errors import CheckpointError, ModelError
from ramify.models.gguf.metadata import (
    CONTROL,
    NORMAL,
    TOKEN_TYPES_KEY,
    TOKENS_KEY,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Metadata,
)
from ramify.models.gguf.reader import read_gguf
from ramify.text.chat_template import ChatTemplate

logger = logging.getLogger(__name__)

_SPLITTING_KEY = "tokenizer.ggml.pre"
_MODEL_KEY = "tokenizer.ggml.model"
_TEMPLATE_KEY = "tokenizer.chat_template"
_SPACE = "\u2581"
_LONGEST_PIECE = 1024
"""Characters of a sentencepiece token at most; pieces are a word or a run of spaces."""
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = (rf"{_WORDS}|\p{{N}}{{1,3}}|{_REST}",)
_QWEN2 = (rf"{_WORDS}|\p{{N}}|{_REST}",)
_GPT2 = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",)
_DIGITS = (r"\p{N}", *_GPT2)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", *_GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")
_SPLITS: Mapping[str, Sequence[str]] = {
    "default": _DEFAULT,
    "gpt-2": _GPT2,
    "olmo": _GPT2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "smaug-bpe": _LLAMA3,
    "dbrx": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "tekken": _TEKKEN,
}
"""Regular expressions of each kind of splitting, one after the other."""
_STARTS_TEXTS = ("llama-bpe", "llama3", "llama-v3", "tekken")
"""Splittings whose models expect a start token where the metadata does not say, and take whole words first."""
_COMPOSED = ("qwen2", "deepseek-r1-qwen")
"""Splittings whose models were trained on text in Unicode's composed form (NFC)."""
_NAMED = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def load_parts(path: Path) -> tuple[Backend, dict[str, str], ChatTemplate | None]:
    """What a `Tokenizer` is made of: the backend, the texts of named tokens, and the chat template.

    Raises:
        CheckpointError: the file is corrupt, or its vocabulary cannot be.
        ModelError: it has no tokenizer, or one of a kind that ramify does not run.
    """
    metadata = Metadata(read_gguf(path))
    if _MODEL_KEY not in metadata or TOKENS_KEY not in metadata:
        raise ModelError(
            f"{path} holds no tokenizer: give LLM(..., tokenizer=FOLDER) with the tokenizer.json of the model"
        )
    kind = metadata.text(_MODEL_KEY)
    if kind not in ("gpt2", "llama"):
        raise ModelError(
            f"{path} has a tokenizer of the kind {kind!r}; ramify reads 'gpt2' and 'llama': "
            "give LLM(..., tokenizer=FOLDER) with the tokenizer.json of the model"
        )
    tokens = metadata.texts(TOKENS_KEY)
    kinds = metadata.numbers(TOKEN_TYPES_KEY, (int,)) if TOKEN_TYPES_KEY in metadata else [NORMAL] * len(tokens)
    if len(kinds) != len(tokens):
        raise metadata.wrong(TOKEN_TYPES_KEY, f"{len(kinds)} entries", f"{len(tokens)} entries, as tokens are")
    vocabulary = _vocabulary(metadata, tokens, kinds)
    try:
        backend = (_byte_level if kind == "gpt2" else _sentencepiece)(metadata, tokens, vocabulary)
    except (CheckpointError, ModelError):
        raise
    except Exception as error:  # the library raises plain Exception for a vocabulary that it cannot use
        raise CheckpointError(f"{path}: no tokenizer can be made of its vocabulary ({error})") from error
    for token, number in zip(tokens, kinds, strict=True):
        if token and number in (CONTROL, UNKNOWN, USER_DEFINED):
            backend.add_tokens([AddedToken(token, special=number != USER_DEFINED, normalized=False)])
    named = _named_tokens(metadata, tokens)
    _frame(metadata, backend, named, kind)
    template = metadata.text(_TEMPLATE_KEY) if _TEMPLATE_KEY in metadata else None
    tools = metadata.text(f"{_TEMPLATE_KEY}.tool_use") if f"{_TEMPLATE_KEY}.tool_use" in metadata else None
    return backend, named, None if template is None else ChatTemplate(template, named, tools)


def _vocabulary(metadata: Metadata, tokens: Sequence[str], kinds: Sequence[int]) -> dict[str, int]:
    """Token to id. Unused ids, which pad the model's vocabulary, stand for nothing."""
    used = [(token, index) for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind != UNUSED]
    vocabulary = dict(used)
    if len(vocabulary) != len(used) or not used:
        raise metadata.wrong(TOKENS_KEY, f"{len(used)} tokens, {len(vocabulary)} of them different", "one of each")
    return vocabulary


def _byte_level(metadata: Metadata, tokens: Sequence[str], vocabulary: dict[str, int]) -> Backend:
    """Byte-level BPE, as GPT-2, Llama 3 and Qwen have it."""
    splitting = metadata.text(_SPLITTING_KEY, "default")
    if _SPLITTING_KEY not in metadata:
        logger.warning(
            "%s does not say how text is split: ids of the prompt may be others than the model's", metadata.path
        )
    if splitting not in _SPLITS:
        raise ModelError(
            f"{metadata.path} splits text as {splitting!r} (tokenizer.ggml.pre), which ramify does not know; it knows "
            f"{', '.join(_SPLITS)}: give LLM(..., tokenizer=FOLDER) with the tokenizer.json of the model"
        )
    merges = [_pair(metadata, merge) for merge in metadata.texts("tokenizer.ggml.merges")]
    backend = Backend(models.BPE(vocabulary, merges, ignore_merges=splitting in _STARTS_TEXTS))
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in _SPLITS[splitting]]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    if splitting in _COMPOSED:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    return backend


def _pair(metadata: Metadata, merge: str) -> tuple[str, str]:
    at = merge.find(" ", 1)
    if at < 0:
        raise metadata.wrong("tokenizer.ggml.merges", merge, "pairs with a space between")
    return merge[:at], merge[at + 1 :]


def _sentencepiece(metadata: Metadata, tokens: Sequence[str], vocabulary: dict[str, int]) -> Backend:
    """Sentencepiece's BPE, as Llama 2 and Mistral have it: scores instead of merges, unknown characters as bytes."""
    scores = metadata.numbers("tokenizer.ggml.scores", (float,))
    if len(scores) != len(tokens):
        raise metadata.wrong("tokenizer.ggml.scores", f"{len(scores)} entries", f"{len(tokens)} entries, as tokens are")
    bytes_too = all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
    unknown = tokens[_id_of(metadata, "unknown", len(tokens)) or 0]
    merges = _merges(metadata, vocabulary, scores)
    backend = Backend(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=bytes_too))
    prefixed = metadata.flag("tokenizer.ggml.add_space_prefix", True)
    marked = normalizers.Replace(" ", _SPACE)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), marked]) if prefixed else marked
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefixed else steps)
    return backend


def _merges(metadata: Metadata, vocabulary: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every way to put a piece together from two others, the pieces of the highest score first."""
    found = []
    for piece, index in vocabulary.items():
        if len(piece) > _LONGEST_PIECE:
            raise metadata.wrong(TOKENS_KEY, piece[:20] + "...", f"pieces of {_LONGEST_PIECE} characters or fewer")
        for cut in range(1, len(piece)):
            left, right = vocabulary.get(piece[:cut]), vocabulary.get(piece[cut:])
            if left is not None and right is not None:
                found.append((-scores[index], index, left, right, cut, piece))
    return [(piece[:cut], piece[cut:]) for *_, cut, piece in sorted(found)]


def _named_tokens(metadata: Metadata, tokens: Sequence[str]) -> dict[str, str]:
    named = {name: _id_of(metadata, key, len(tokens)) for name, key in _NAMED.items()}
    return {name: tokens[index] for name, index in named.items() if index is not None}


def _id_of(metadata: Metadata, name: str, count: int) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    if key not in metadata:
        return None
    index = metadata.integer(key)
    if index >= count:
        raise metadata.wrong(key, index, f"below the number of tokens, {count}")
    return index


def _frame(metadata: Metadata, backend: Backend, named: Mapping[str, str], kind: str) -> None:
    """Put the start and end tokens around a text, where the metadata or the kind of tokenizer asks for them."""
    starts = kind == "llama" or metadata.text(_SPLITTING_KEY, "default") in _STARTS_TEXTS
    before = metadata.flag("tokenizer.ggml.add_bos_token", starts) and "bos_token" in named
    after = metadata.flag("tokenizer.ggml.add_eos_token", False) and "eos_token" in named
    tokens = [named[name] for name, wanted in (("bos_token", before), ("eos_token", after)) if wanted]
    if not tokens:
        return
    start, end = [named["bos_token"]] if before else [], [named["eos_token"]] if after else []
    ids = [(token, backend.token_to_id(token)) for token in dict.fromkeys(tokens)]
    try:
        backend.post_processor = processors.TemplateProcessing(
            single=[*start, "$A", *end], pair=[*start, "$A", *end, *start, "$B", *end], special_tokens=ids
        )
    except Exception as error:  # as above
        raise CheckpointError(f"{metadata.path}: {tokens} cannot stand around a text ({error})") from error
