"""Bundled folders in standard Hugging Face form, with weights rounded to bfloat16, and reading them back."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from training.model import Llama, Shape

BUNDLED = Path(__file__).parents[1] / "src" / "ramify" / "models" / "bundled"
PRM_ENTRY = {"kind": "prm", "step_token": "\n", "good_token": "<|good|>", "bad_token": "<|bad|>"}


def export(model: Llama, tokenizer_folder: Path, folder: Path, ramify: dict[str, str] | None = None) -> None:
    """Write one model: config, weights, tokenizer with chat template, generation config.

    The weights are stored in bfloat16; config.json says float32, the type they are to be computed in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **model.shape.as_dict(),
        "head_dim": model.shape.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "dtype": "float32",
    }
    if ramify:
        config["ramify"] = ramify
    generation = {"eos_token_id": 0, "pad_token_id": 0, "max_length": model.shape.max_position_embeddings}
    _write(folder / "config.json", config)
    _write(folder / "generation_config.json", generation)
    weights = {name: weight.to(torch.bfloat16).contiguous().cpu() for name, weight in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer_folder / name, folder / name)


def load_bundled(folder: Path) -> tuple[Llama, Tokenizer]:
    """Read an exported model (weights rounded as stored, computed in float32) and its tokenizer."""
    config = json.loads((folder / "config.json").read_text())
    model = Llama(Shape(**{name: config[name] for name in Shape.__dataclass_fields__}))
    model.load_state_dict({name: weight.float() for name, weight in load_file(folder / "model.safetensors").items()})
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def _write(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
