"""Random-weight checkpoints: the shapes of models that people serve, and any other by its `config.json`.

Speed does not depend on what the weights say, so every machine makes its own from one seed and nothing is downloaded.
The configurations have the keys of the published ones, so that each engine's own tools can read them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

_QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "rope_theta": 1_000_000.0,
    "rms_norm_eps": 1e-6,
}
_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 131_072,
    "rope_theta": 500_000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "attention_bias": False,
    "mlp_bias": False,
    "rms_norm_eps": 1e-5,
}
_QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "rope_theta": 1_000_000.0,
    "attention_bias": False,
    "rms_norm_eps": 1e-6,
}
_TINY = {
    **_QWEN2,
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 4096,
}
_EVERY = {
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "bos_token_id": 0,
    "eos_token_id": 0,
}
SHAPES: dict[str, dict[str, Any]] = {
    name: {**shape, **_EVERY}
    for name, shape in {
        "qwen2.5-0.5b": _QWEN2,
        "llama-3.2-1b": _LLAMA,
        "qwen3-1.7b": _QWEN3,
        "tiny": _TINY,
    }.items()
}
_DONE = "complete"


def shape_of(name: str) -> tuple[str, dict[str, Any]]:
    """A shape by its name here, or by the path of a `config.json` or of the folder that holds one.

    Returns:
        A name for its files, and the configuration.

    Raises:
        SystemExit: there is no such shape and no such file.
    """
    if name in SHAPES:
        return name, SHAPES[name]
    path = Path(name) / "config.json" if Path(name).is_dir() else Path(name)
    if not path.is_file():
        raise SystemExit(f"{name!r} is neither a shape ({', '.join(SHAPES)}) nor the path of a config.json")
    return path.resolve().parent.name, json.loads(path.read_text(encoding="utf-8"))


def make_checkpoint(config: dict[str, Any], folder: Path) -> None:
    """Write a bfloat16 checkpoint of random weights with a byte-level tokenizer; does nothing if it is there."""
    if (folder / _DONE).exists():
        return
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # First alone, so that transformers reads it like a published one; last again, over what it makes of it.
    _write_json(folder / "config.json", config)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="100GB")
    _write_json(folder / "config.json", config)
    _write_tokenizer(folder, config["vocab_size"])
    (folder / _DONE).touch()


def _write_tokenizer(folder: Path, size: int) -> None:
    """A tokenizer of bytes whose further ids have names that no text contains: each id of the vocabulary decodes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|end|>": 0}
    for word in (*alphabet, *(f"t{number}" for number in range(size))):
        if len(vocabulary) == size:
            break
        vocabulary[word] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
