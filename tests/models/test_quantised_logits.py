"""A quantised checkpoint gives the logits of the float model of the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from ramify.config import EngineConfig
from ramify.engine.loading import load_engine
from ramify.errors import ConfigError
from tests.checkpoints import make_checkpoint, reference_model
from tests.models.gguf_files import convert
from tests.models.quantised_files import quantise_checkpoint
from tests.models.test_checkpoint_logits import TOLERANCE, logits, prompt
from tests.models.test_quantised_checkpoints import KINDS, SHAPE

DIVERGENCE = 1e-3
"""Nats a position that activations in eight bits may cost; these models gave 2e-4 when this was written."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAMIFY_CACHE", str(tmp_path / "cache"))


def expected_logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = reference_model(folder)(torch.tensor([prompt()])).logits[0]
    assert found.std() > 0.5  # far above the tolerance
    return found


def assert_close_distributions(found: torch.Tensor, expected: torch.Tensor) -> None:
    """The mean divergence of the next token's distribution over all positions is small."""
    ours, theirs = found.log_softmax(-1), expected.log_softmax(-1)
    assert float((theirs.exp() * (theirs - ours)).sum(-1).mean()) < DIVERGENCE


@pytest.mark.parametrize("kind", ["gptq-act-order", "gptq-8-bits-asymmetric", "awq", "fp8-blocks", "compressed-int4"])
def test_float_activations_give_the_logits_of_the_dequantised_model(tmp_path: Path, kind: str) -> None:
    folder = make_checkpoint(tmp_path / "model", "qwen2.5", tokenizer=False, **{**SHAPE, "num_hidden_layers": 2})
    quantise_checkpoint(folder, *KINDS[kind])
    torch.testing.assert_close(logits(folder), expected_logits(folder / "float"), rtol=0, atol=TOLERANCE)


def test_the_name_of_the_format_that_a_checkpoint_has_may_be_said(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", "qwen2.5", tokenizer=False, **{**SHAPE, "num_hidden_layers": 2})
    quantise_checkpoint(folder, *KINDS["awq"])
    core, _ = load_engine(folder, EngineConfig(quantization="awq", num_kv_blocks=16))
    assert core.model_config.quantization is not None
    with pytest.raises(ConfigError, match="'gptq'"):
        load_engine(folder, EngineConfig(quantization="gptq", num_kv_blocks=16))


def test_integer_activations_of_a_checkpoint_made_for_them_stay_close(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2", tokenizer=False, **{**SHAPE, "num_hidden_layers": 2})
    quantise_checkpoint(folder, *KINDS["compressed-int8"])
    assert_close_distributions(logits(folder), expected_logits(folder / "float"))


@pytest.mark.parametrize("kind", ["F16", "Q4_0", "mixed"])
def test_a_gguf_file_gives_the_logits_of_the_model_it_was_converted_from(tmp_path: Path, kind: str) -> None:
    shape = {**SHAPE, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2}
    folder = make_checkpoint(tmp_path / "model", "llama2", tokenizer=False, **shape)

    def mixed(name: str) -> str:  # more bits for some, in the same product too
        return "Q6_K" if any(part in name for part in ("v_proj", "down_proj", "embed", "lm_head")) else "Q4_K"

    path, values = convert(folder, tmp_path / "model.gguf", mixed if kind == "mixed" else lambda name: kind)
    contiguous = {name: np.ascontiguousarray(value) for name, value in values.items()}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
    expected = expected_logits(folder)
    if kind == "F16":
        torch.testing.assert_close(logits(path), expected, rtol=0, atol=TOLERANCE)
    else:
        assert_close_distributions(logits(path), expected)
