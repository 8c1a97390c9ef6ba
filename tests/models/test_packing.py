"""Models in low-bit weights: the layers that calibration runs, folded channels, and what a format costs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ramify.engine.divergence import divergence
from ramify.errors import CheckpointError
from ramify.layers.rotary import RotaryTable
from ramify.models.checkpoint import Checkpoint, open_checkpoint
from ramify.models.config import ModelConfig, load_config
from ramify.models.decoder import Decoder, load_decoder
from ramify.models.float_layer import read_layer, run_layer
from ramify.models.packed_checkpoint import PackedCheckpoint
from ramify.models.packing import pack_model
from ramify.quantization.formats import W4A8, W8A8, W8A16, WeightFormat
from ramify.quantization.packed_file import PackedModel
from tests.checkpoints import FAMILIES, make_checkpoint, reference_model

CPU = torch.device("cpu")
SHAPE = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 1}
TEXTS = [torch.randint(4, 380, (23,), generator=torch.Generator().manual_seed(seed)).tolist() for seed in range(6)]


def opened(folder: Path) -> tuple[ModelConfig, Checkpoint]:
    config = load_config(folder)
    return config, open_checkpoint(folder, config.quantization)


def packed(folder: Path, made: WeightFormat, texts: list[list[int]]) -> PackedModel:
    return pack_model(*opened(folder), made, torch.float32, texts)


def decoder(folder: Path, model: PackedModel | None = None) -> Decoder:
    config, checkpoint = opened(folder)
    weights = checkpoint if model is None else PackedCheckpoint(folder, model)
    return load_decoder(config, weights, torch.float32, CPU, 64)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_that_calibration_runs_are_those_of_transformers(tmp_path: Path, family: str) -> None:
    folder = make_checkpoint(tmp_path, family, tokenizer=False)
    config, checkpoint = opened(folder)
    rope = config.rope
    table = RotaryTable(rope.inverse_frequencies(config.head_dim), rope.attention_scaling, 64, CPU)
    embedding = checkpoint.tensor("model.embed_tokens.weight", (config.vocab_size, config.hidden_size))
    hidden = [embedding[torch.tensor(text)] for text in TEXTS[:2]]
    for index in range(config.num_layers):
        prefix = f"model.layers.{index}."
        layer = read_layer(config, checkpoint, prefix)
        hidden = run_layer(config, layer, prefix, config.windows[index], hidden, table).hidden
    norm = checkpoint.tensor("model.norm.weight", (config.hidden_size,))
    for text, found in zip(TEXTS[:2], hidden, strict=True):
        with torch.no_grad():
            wanted = reference_model(folder)(torch.tensor([text]), output_hidden_states=True).hidden_states[-1][0]
        normed = torch.nn.functional.rms_norm(found, norm.shape, norm, config.rms_norm_eps)
        torch.testing.assert_close(normed, wanted, rtol=0, atol=2e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_eight_bits_keep_the_distribution_of_every_family(tmp_path: Path, family: str) -> None:
    folder = make_checkpoint(tmp_path, family, tokenizer=False, num_hidden_layers=2)
    texts = TEXTS[:3] if family in ("qwen2", "qwen3") else []
    model = packed(folder, W8A8(), texts)
    cost = divergence(decoder(folder), decoder(folder, model), TEXTS[:3])
    assert cost.kl < 5e-3
    assert cost.top1 > 0.9
    assert model.about["calibrated"] is bool(texts)


def outlier_checkpoint(folder: Path) -> Path:
    """A model with a few channels far above the rest in front of two products, as trained ones have them."""
    make_checkpoint(folder, "llama2", tokenizer=False, intermediate_size=96, **SHAPE)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name, tensor in tensors.items():
        if name.endswith("up_proj.weight"):
            tensor[5] *= 80
        if name.endswith("down_proj.weight"):
            tensor[:, 5] /= 40
        if name.endswith("input_layernorm.weight"):
            tensor[3] *= 60
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def test_channels_of_their_own_lessen_what_eight_bits_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = outlier_checkpoint(tmp_path)
    chosen = packed(folder, W8A16(), TEXTS)
    ours = divergence(decoder(folder), decoder(folder, chosen), TEXTS)
    products = {entry["name"]: entry["input_channels"] for entry in chosen.about["products"] if "error" in entry}
    assert products["model.layers.0.mlp.down_proj"] is True
    assert ours.kl < 5e-4  # folding changes nothing but the rounding
    ours = divergence(decoder(folder), decoder(folder, packed(folder, W8A8(), TEXTS)), TEXTS)
    monkeypatch.setattr("ramify.quantization.channels._KEEP_BELOW", 0.0)
    plain = divergence(decoder(folder), decoder(folder, packed(folder, W8A8(), TEXTS)), TEXTS)
    assert ours.kl < 0.7 * plain.kl


def test_calibration_lessens_what_four_bits_cost(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "llama2", tokenizer=False, **SHAPE)
    calibrated, plain = packed(folder, W4A8(), TEXTS), packed(folder, W4A8(), [])
    float_model = decoder(folder)
    costs = [divergence(float_model, decoder(folder, model), TEXTS).kl for model in (calibrated, plain)]
    assert costs[0] < 0.7 * costs[1]
    assert calibrated.num_bytes == plain.num_bytes


def test_the_vocabulary_gets_six_bits_and_is_stored_once_if_tied(tmp_path: Path) -> None:
    tied = packed(make_checkpoint(tmp_path / "tied", "qwen3", tokenizer=False), W4A8(), [])
    own = packed(make_checkpoint(tmp_path / "own", "llama2", tokenizer=False), W4A8(), [])
    assert tied.matrices["model.embed_tokens"].kind == "w6a8"
    assert "lm_head" not in tied.matrices
    assert own.matrices["lm_head"].kind == "w6a8"


def test_weights_that_are_not_finite_are_told_by_name(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "llama2", tokenizer=False)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.gate_up_proj.*not finite"):
        packed(folder, W4A8(), [])


def test_a_packed_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    small = packed(make_checkpoint(tmp_path / "small", "llama2", tokenizer=False), W4A8(), [])
    other = make_checkpoint(tmp_path / "other", "llama2", tokenizer=False, intermediate_size=80)
    with pytest.raises(CheckpointError, match=r"gate_up_proj.*\[152, 48\].*\[160, 48\]"):
        decoder(other, small)
