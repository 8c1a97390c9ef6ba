"""Tokenizers as the metadata of GGUF files has them."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def byte_level_metadata(backend: Tokenizer, splitting: str = "gpt-2", padded_to: int = 0) -> dict[str, Any]:
    """Of a byte-level BPE.

    Args:
        backend: the tokenizer.
        splitting: the name of its way of splitting texts.
        padded_to: ids, of which those that no token has are unused.
    """
    model = json.loads(backend.to_str())["model"]
    tokens = {index: token for token, index in backend.get_vocab().items()}
    added = {index: each.special for index, each in backend.get_added_tokens_decoder().items()}
    count = max(len(tokens), padded_to)
    kinds = {index: CONTROL if special else USER_DEFINED for index, special in added.items()}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": splitting,
        "tokenizer.ggml.tokens": [tokens.get(index, f"[PAD{index}]") for index in range(count)],
        "tokenizer.ggml.token_type": [
            kinds.get(index, NORMAL if index in tokens else UNUSED) for index in range(count)
        ],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
    }


def sentencepiece_metadata(backend: Tokenizer) -> dict[str, Any]:
    """Of a sentencepiece BPE: earlier merges have higher scores."""
    model = json.loads(backend.to_str())["model"]
    tokens = {index: token for token, index in backend.get_vocab().items()}
    rank = {"".join(merge): position for position, merge in enumerate(model["merges"])}
    special = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL}
    ordered = [tokens[index] for index in range(len(tokens))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ordered,
        "tokenizer.ggml.scores": [float(-rank.get(token, 10_000)) for token in ordered],
        "tokenizer.ggml.token_type": [
            BYTE if token.startswith("<0x") else special.get(token, NORMAL) for token in ordered
        ],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
