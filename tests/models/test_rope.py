"""Rotary frequencies equal those of transformers, in both forms that a config may write them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ramify.models.rope import parse_rope

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 128}
SCALINGS: list[dict[str, Any]] = [
    {"rope_type": "linear", "factor": 2.5},
    {"rope_type": "llama3", **LLAMA3},
    {"rope_type": "llama3", **LLAMA3, "factor": 32.0, "original_max_position_embeddings": 8192},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "truncate": False},
    {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 16, "beta_slow": 2},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "attention_factor": 1.3},
    {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.7, "original_max_position_embeddings": 64},
]


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("head_dim", [8, 64])
def test_frequencies_and_scaling_equal_those_of_transformers(
    scaling: dict[str, Any], theta: float, head_dim: int
) -> None:
    reference = transformers.LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        head_dim=head_dim,
        max_position_embeddings=1024,
        rope_parameters={**scaling, "rope_theta": theta},
    )
    frequencies, attention_scaling = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](reference, torch.device("cpu"))
    older = parse_rope({"rope_theta": theta, "rope_scaling": dict(scaling)}, 1024)
    newer = parse_rope({"rope_parameters": {**scaling, "rope_theta": theta}}, 1024)
    assert older == newer
    torch.testing.assert_close(older.inverse_frequencies(head_dim), frequencies, rtol=1e-6, atol=0)
    assert older.attention_scaling == pytest.approx(attention_scaling, rel=1e-12)


def test_the_default_type_is_the_same_in_every_spelling() -> None:
    spellings: list[dict[str, Any]] = [
        {"rope_theta": 5e5},
        {"rope_theta": 5e5, "rope_scaling": None},
        {"rope_theta": 5e5, "rope_scaling": {"type": "default"}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    ]
    assert len({parse_rope(raw, 64) for raw in spellings}) == 1
    expected = 1.0 / (5e5 ** (torch.arange(0, 16, 2).float() / 16))
    torch.testing.assert_close(parse_rope(spellings[0], 64).inverse_frequencies(16), expected, rtol=0, atol=0)


def test_the_original_context_falls_back_to_the_models_own() -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0}
    assert parse_rope({"rope_scaling": scaling}, 96).original_max_position_embeddings == 96
