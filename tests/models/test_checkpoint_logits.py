"""A checkpoint gives the logits that transformers gives it, for every family and every option that a config may set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ramify.config import EngineConfig
from ramify.engine.loading import load_engine
from ramify.engine.request import EngineRequest
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from tests.checkpoints import FAMILIES, VOCAB_SIZE, make_checkpoint, reference_model

LENGTH = 70  # longer than every window, and than llama3's original context
TOLERANCE = 2e-4
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.5}


def logits(folder: Path) -> torch.Tensor:
    """The engine's logits at every position of the prompt, [LENGTH, VOCAB_SIZE]; the prompt runs in chunks."""
    core, _ = load_engine(folder, EngineConfig(num_kv_blocks=16, max_num_seqs=4, max_num_batched_tokens=23))
    core.add(
        EngineRequest(
            prompt(),
            SamplingParams(max_tokens=1, temperature=0),
            BranchKey.root(0),
            score_positions=tuple(range(LENGTH)),
            score_token_ids=tuple(range(VOCAB_SIZE)),
        )
    )
    while core.has_work():
        for output in core.step().outputs:
            if output.error is not None:
                raise output.error
            if output.scores is not None:
                return torch.from_numpy(output.scores)
    raise AssertionError("the engine ended without scores")


def prompt() -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randint(0, VOCAB_SIZE, (LENGTH,), generator=generator).tolist())


def assert_same_logits(folder: Path) -> None:
    with torch.no_grad():
        expected = reference_model(folder)(torch.tensor([prompt()])).logits[0]
    assert expected.std() > 0.5  # far above the tolerance
    torch.testing.assert_close(logits(folder), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_gives_the_logits_of_transformers(tmp_path: Path, family: str) -> None:
    assert_same_logits(make_checkpoint(tmp_path, family, tokenizer=False))


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama2", {"attention_bias": True, "mlp_bias": True}),
        ("llama2", {"rope_parameters": YARN}),
        ("llama2", {"rope_parameters": LINEAR, "tie_word_embeddings": True}),
        ("llama2", {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 12}),
        (
            "llama3",
            {
                "tie_word_embeddings": False,
                "hidden_size": 45,
                "num_attention_heads": 9,
                "num_key_value_heads": 3,
                "head_dim": 14,
            },
        ),
        ("mistral", {"sliding_window": None}),
        ("mistral", {"sliding_window": 1}),
        ("mistral", {"sliding_window": 16, "num_attention_heads": 7, "num_key_value_heads": 1}),
        (
            "qwen2",
            {"tie_word_embeddings": False, "num_attention_heads": 14, "num_key_value_heads": 2, "hidden_size": 56},
        ),
        ("qwen2.5", {"max_window_layers": 0, "sliding_window": 33}),
        ("qwen2.5", {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
        ("qwen3", {"attention_bias": True, "rope_parameters": {**YARN, "rope_theta": 1_000_000.0}}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2}),
    ],
    ids=str,
)
def test_an_option_gives_the_logits_of_transformers(tmp_path: Path, family: str, options: dict[str, Any]) -> None:
    assert_same_logits(make_checkpoint(tmp_path, family, tokenizer=False, **options))


def test_shards_give_the_same_logits(tmp_path: Path) -> None:
    assert_same_logits(make_checkpoint(tmp_path, "qwen2.5", max_shard_size="30KB", tokenizer=False))


def test_the_older_spelling_of_a_config_gives_the_same_logits(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "llama3", tokenizer=False)
    expected = logits(folder)
    raw = json.loads((folder / "config.json").read_text())
    scaling = raw.pop("rope_parameters")
    older = {"rope_theta": scaling.pop("rope_theta"), "rope_scaling": {**scaling, "type": scaling["rope_type"]}}
    (folder / "config.json").write_text(json.dumps({**raw, **older, "torch_dtype": raw.pop("dtype", "float32")}))
    assert torch.equal(logits(folder), expected)
    assert_same_logits(folder)


def test_an_output_embedding_that_the_checkpoint_holds_counts_over_a_tie(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "qwen2", tokenizer=False)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].flip(0).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert_same_logits(folder)
