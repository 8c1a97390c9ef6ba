"""Tiny random-weight checkpoints of every family in Hugging Face form, with a small byte-level BPE tokenizer.

Every weight is random, norms and biases too, so that a forgotten one shows; heads are odd in number, and no size equals
another by accident. Two calls with the same arguments write the same weights.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

END, USER, ASSISTANT, SYSTEM = "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"
SPECIAL_TOKENS = (END, USER, ASSISTANT, SYSTEM)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TOKENIZER_VOCABULARY = 360
VOCAB_SIZE = 389  # the model's: odd, and larger than the tokenizer's, as padded vocabularies are
_TEXTS = (
    "Tom has 12 apples and buys 7 more. 12 + 7 = 19. How many are left? The answer is 19.",
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on; what a day it was!",
    "Each box holds 24 eggs; 3 boxes hold 3 * 24 = 72 eggs. #### 72\nNext line.\n",
)
_COMMON = {"vocab_size": VOCAB_SIZE, "rms_norm_eps": 1e-5, "pad_token_id": None, "bos_token_id": None}
_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama2": (
        "Llama",
        {"num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 48, "tie_word_embeddings": False},
    ),
    "llama3": (
        "Llama",
        {
            "num_attention_heads": 5,
            "num_key_value_heads": 1,
            "hidden_size": 40,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500_000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "mistral": (
        "Mistral",
        {
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "hidden_size": 60,
            "head_dim": 16,
            "sliding_window": 12,
            "tie_word_embeddings": False,
        },
    ),
    "qwen2": (
        "Qwen2",
        {"num_attention_heads": 7, "num_key_value_heads": 7, "hidden_size": 56, "tie_word_embeddings": True},
    ),
    "qwen2.5": (
        "Qwen2",
        {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "hidden_size": 48,
            "tie_word_embeddings": False,
            "use_sliding_window": True,
            "sliding_window": 10,
            "max_window_layers": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        },
    ),
    "qwen3": (
        "Qwen3",
        {
            "num_attention_heads": 5,
            "num_key_value_heads": 1,
            "hidden_size": 44,
            "head_dim": 16,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        },
    ),
}
FAMILIES = tuple(_FAMILIES)


def make_checkpoint(
    path: Path,
    family: str,
    *,
    seed: int = 0,
    max_shard_size: str = "1GB",
    dtype: torch.dtype = torch.float32,
    tokenizer: bool = True,
    head: str = "ForCausalLM",
    **overrides: Any,
) -> Path:
    """Write a checkpoint of one of `FAMILIES` into the folder `path` and return it.

    Args:
        path: the folder; made if need be.
        family: "llama2", "llama3" (rope scaling), "mistral" (sliding window), "qwen2" (biases), "qwen2.5" (windows by
            layer), "qwen3" (query and key norms).
        seed: of the weights.
        max_shard_size: e.g. "40KB" for several shards.
        dtype: of the stored weights.
        tokenizer: write the tokenizer of `make_tokenizer` beside them.
        head: the end of the class's name in transformers, for example "ForTokenClassification".
        overrides: entries of the config, by their names in transformers.
    """
    name, shape = _FAMILIES[family]
    settings = {
        **_COMMON,
        "num_hidden_layers": 3,
        "intermediate_size": 76,
        "max_position_embeddings": 512,
        "eos_token_id": 0,
        **shape,
        **overrides,
    }
    config = getattr(transformers, f"{name}Config")(**settings)
    model = getattr(transformers, f"{name}{head}")(config)
    _randomise(model, seed)
    path.mkdir(parents=True, exist_ok=True)
    model.to(dtype).save_pretrained(path, max_shard_size=max_shard_size)
    if tokenizer:
        make_tokenizer(path)
    return path


def reference_model(path: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The checkpoint as transformers loads it: the model to compare with."""
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager").eval()


def make_tokenizer(path: Path) -> Path:
    """Write `tokenizer.json` and `tokenizer_config.json` (with a chat template) into the folder `path`."""
    path.mkdir(parents=True, exist_ok=True)
    byte_level_bpe().save(str(path / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END,
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (path / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    return path


@cache
def byte_level_bpe() -> tokenizers.Tokenizer:
    """A byte-level BPE as GPT-2, Llama 3 and Qwen have it; ids 0 to 3 are the special tokens."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENIZER_VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXTS * 2, trainer)
    return tokenizer


def sentencepiece_bpe() -> tokenizers.Tokenizer:
    """A BPE as Llama 2 and Mistral have it: spaces as U+2581, one put before the text, unknown characters as bytes.

    Ids 0 to 2 are <unk>, <s> and </s>, then come the 256 bytes.
    """
    merged = ["▁T", "▁Th", "▁The", "▁d", "▁do", "▁dog", "▁a", "▁an", "▁and", "▁▁"]
    merges = [(piece[:-1], piece[-1]) for piece in merged]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁Theoadgnsl", *merged]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def _randomise(model: torch.nn.Module, seed: int) -> None:
    """Weights that keep activations near unit size and make the logits differ by a few units."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif name.endswith(".bias"):
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5 * (2.0 if "embed" in name else 1.0))
