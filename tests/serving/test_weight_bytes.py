"""What a server counts for a model's weights is what they take: floats by their number format, codes by their files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ramify.config import EngineConfig
from ramify.errors import CheckpointError
from ramify.serving.model_memory import count_weights, read_facts
from tests.checkpoints import make_checkpoint
from tests.models.gguf_files import convert
from tests.models.quantised_files import gptq, quantise_checkpoint

SHAPE = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}


def test_codes_count_as_they_are_stored(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2", tokenizer=False, **SHAPE)
    floats = read_facts(str(folder), EngineConfig()).weight_bytes
    path, values = convert(folder, tmp_path / "model.gguf", lambda name: "F32" if "embed" in name else "Q8_0")
    expected = sum(
        math.prod(value.shape) * 34 // 32 if value.ndim == 2 and "embed" not in name else 4 * value.size
        for name, value in values.items()
    )
    assert read_facts(str(path), EngineConfig()).weight_bytes == expected
    quantise_checkpoint(folder, gptq(4, 32, True), {"quant_method": "gptq", "bits": 4, "group_size": 32})
    packed = read_facts(str(folder), EngineConfig()).weight_bytes
    assert packed == (folder / "model.safetensors").stat().st_size
    assert packed < floats / 2


@pytest.mark.parametrize("length", [2**63, 2**40])
def test_a_header_of_an_absurd_length_is_told(tmp_path: Path, length: int) -> None:
    (tmp_path / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match=f"claims {length} bytes"):
        count_weights(tmp_path)
