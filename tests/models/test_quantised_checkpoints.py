"""Published GPTQ, AWQ, FP8 and compressed-tensors checkpoints: the files' numbers are the numbers of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ramify.errors import CheckpointError, UnsupportedModelError
from ramify.models.checkpoint import Checkpoint, open_checkpoint
from ramify.models.config import load_config
from ramify.models.stored.scheme import parse_quantization
from tests.checkpoints import make_checkpoint
from tests.models import quantised_files as files

SHAPE = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}
MODULE = "model.layers.1.mlp.down_proj"
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
PACKED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
}


def groups(weights: dict[str, Any], inputs: dict[str, Any] | None = None) -> dict[str, Any]:
    """The config_groups of one group of compressed-tensors."""
    return {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": inputs}}}


def weights(bits: int, strategy: str, **more: Any) -> dict[str, Any]:
    return {"num_bits": bits, "type": "int", "symmetric": True, "strategy": strategy, **more}


INT8 = {"num_bits": 8, "type": "int", "dynamic": True, "strategy": "token", "symmetric": True}
FLOAT = {"type": "float"}
KINDS: dict[str, tuple[files.Pack, dict[str, Any]]] = {
    "gptq": (files.gptq(4, 32, True), GPTQ),
    "gptq-asymmetric": (files.gptq(4, 16, False), {**GPTQ, "group_size": 16, "sym": False}),
    "gptq-v2": (files.gptq(4, 32, False, 2), {**GPTQ, "sym": False, "checkpoint_format": "gptq_v2"}),
    "gptq-act-order": (files.gptq(4, 32, False, 1, True), {**GPTQ, "sym": False, "desc_act": True}),
    "gptq-whole-rows": (files.gptq(4, -1, True), {**GPTQ, "group_size": -1}),
    "gptq-8-bits": (files.gptq(8, 32, True), {**GPTQ, "bits": 8}),
    "gptq-8-bits-asymmetric": (files.gptq(8, -1, False), {**GPTQ, "bits": 8, "group_size": -1, "sym": False}),
    "awq": (files.awq(32), {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}),
    "awq-older-names": (files.awq(16), {"quant_method": "awq", "w_bit": 4, "q_group_size": 16, "version": "GEMM"}),
    "fp8-blocks": (
        files.float8((32, 48), "weight_scale_inv"),
        {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [32, 48]},
    ),
    "fp8-tensor": (
        files.float8(None, "weight_scale"),
        {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]},
    ),
    "compressed-fp8-rows": (
        files.float8(None, "weight_scale", per_row=True),
        {**PACKED, "format": "float-quantized", **groups({**weights(8, "channel"), **FLOAT}, FLOAT)},
    ),
    "compressed-fp8-blocks": (
        files.float8((16, 32), "weight_scale"),
        {
            **PACKED,
            "format": "float-quantized",
            **groups({**weights(8, "block", block_structure=[16, 32]), **FLOAT}, FLOAT),
        },
    ),
    "compressed-int4": (
        files.compressed_integers(4, 32, True),
        {**PACKED, **groups(weights(4, "group", group_size=32))},
    ),
    "compressed-int4-asymmetric": (
        files.compressed_integers(4, 16, False),
        {**PACKED, **groups({**weights(4, "group", group_size=16), "symmetric": False})},
    ),
    "compressed-int8-packed": (files.compressed_integers(8, -1, True), {**PACKED, **groups(weights(8, "channel"))}),
    "compressed-int8": (
        files.compressed_int8(),
        {**PACKED, "format": "int-quantized", **groups(weights(8, "channel"), INT8)},
    ),
    "compressed-int8-asymmetric": (
        files.compressed_int8(symmetric=False),
        {**PACKED, "format": "int-quantized", **groups({**weights(8, "channel"), "symmetric": False}, INT8)},
    ),
}


def opened(folder: Path) -> Checkpoint:
    return open_checkpoint(folder, load_config(folder).quantization)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float checkpoint that the tests copy."""
    return make_checkpoint(tmp_path_factory.mktemp("plain"), "qwen2.5", tokenizer=False, num_hidden_layers=2, **SHAPE)


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    """A copy of it to rewrite."""
    for path in plain.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_of_the_files_are_the_numbers_of_the_weights(folder: Path, kind: str) -> None:
    pack, config = KINDS[kind]
    values = files.quantise_checkpoint(folder, pack, config)
    checkpoint = opened(folder)
    assert set(values) <= checkpoint.names()
    for name, value in values.items():
        assert torch.equal(checkpoint.tensor(name, value.shape), value), name
    checkpoint.check_all_used()
    stored = checkpoint.quantised(f"{MODULE}.weight", (64, 96))
    assert (stored is None) == ("fp8" in kind)
    assert checkpoint.activations == ("int8" if "compressed-int8" in kind and "packed" not in kind else "float")
    if stored is not None:
        assert torch.equal(stored.dequantised(), values[f"{MODULE}.weight"])
        assert (stored.permutation is not None) == ("act-order" in kind)
        assert stored.codes.dtype == (torch.int8 if stored.bits == 8 else torch.uint8)


def test_zero_points_in_the_middle_leave_a_symmetric_weight(folder: Path) -> None:
    files.quantise_checkpoint(folder, *KINDS["gptq"])
    stored = opened(folder).quantised(f"{MODULE}.weight", (64, 96))
    assert stored is not None
    assert stored.mins is None


@pytest.mark.parametrize(("kind", "group_size"), [("gptq-whole-rows", 32), ("gptq", 32), ("gptq-asymmetric", 16)])
def test_groups_become_those_of_the_kernels(folder: Path, kind: str, group_size: int) -> None:
    files.quantise_checkpoint(folder, *KINDS[kind])
    stored = opened(folder).quantised(f"{MODULE}.weight", (64, 96))
    assert stored is not None
    assert stored.group_size == group_size
    assert stored.scales.shape == (64, 96 // group_size)


def test_modules_that_stay_floats_are_read_as_floats(folder: Path) -> None:
    pack, config = KINDS["awq"]
    values = files.quantise_checkpoint(folder, pack, {**config, "modules_to_not_convert": ["layers.1"]}, ("layers.1",))
    checkpoint = opened(folder)
    assert checkpoint.quantised(f"{MODULE}.weight", (64, 96)) is None
    assert torch.equal(checkpoint.tensor(f"{MODULE}.weight", (64, 96)), values[f"{MODULE}.weight"])
    assert checkpoint.quantised("model.layers.0.mlp.down_proj.weight", (64, 96)) is not None


def test_overrides_of_bits_and_groups_are_read_from_the_tensors(folder: Path) -> None:
    def pack(name: str, weight: torch.Tensor) -> tuple[files.Tensors, torch.Tensor]:
        eight = name.endswith("down_proj")
        return files.gptq(8, 16, True)(name, weight) if eight else files.gptq(4, 32, True)(name, weight)

    rules = {r"+:.*down_proj": {"bits": 8, "group_size": 16}, "-:lm_head": {}}
    values = files.quantise_checkpoint(folder, pack, {**GPTQ, "dynamic": rules})
    checkpoint = opened(folder)
    for name, value in values.items():
        assert torch.equal(checkpoint.tensor(name, value.shape), value)
    stored = checkpoint.quantised(f"{MODULE}.weight", (64, 96))
    assert stored is not None
    assert (stored.bits, stored.group_size) == (8, 16)


def test_older_exports_say_it_in_a_file_of_its_own_and_name_their_weights_freely(folder: Path) -> None:
    pack, config = KINDS["gptq"]
    values = files.quantise_checkpoint(folder, pack, None)
    older = {key: value for key, value in config.items() if key != "quant_method"}
    (folder / "quantize_config.json").write_text(json.dumps(older))
    (folder / "model.safetensors").rename(folder / "gptq_model-4bit-32g.safetensors")
    name = f"{MODULE}.weight"
    assert torch.equal(opened(folder).tensor(name, (64, 96)), values[name])


def test_biases_of_zeros_and_scales_of_activations_change_nothing(folder: Path) -> None:
    files.quantise_checkpoint(folder, *KINDS["gptq"])
    extra = {"model.layers.0.mlp.up_proj.bias": torch.zeros(96), "model.layers.0.self_attn.k_scale": torch.ones(1)}
    change(folder, extra)
    checkpoint = opened(folder)
    for name, value in load_file(folder / "float" / "model.safetensors").items():
        checkpoint.tensor(name, value.shape)
    checkpoint.check_all_used()
    change(folder, {"model.layers.0.mlp.up_proj.bias": torch.ones(96)})
    again = opened(folder)
    for name, value in load_file(folder / "float" / "model.safetensors").items():
        again.tensor(name, value.shape)
    with pytest.raises(CheckpointError, match=r"does not account for: model\.layers\.0\.mlp\.up_proj\.bias"):
        again.check_all_used()


def change(folder: Path, tensors: dict[str, torch.Tensor], without: str = "") -> None:
    """Add or replace tensors of the checkpoint, or take one away."""
    stored = load_file(folder / "model.safetensors")
    stored.pop(without, None)
    save_file({**stored, **tensors}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("kind", "suffix", "tensor", "said"),
    [
        (
            "gptq",
            "qweight",
            torch.zeros(12, 63, dtype=torch.int32),
            r"shape \[12, 63\]; the config asks for \[12, 64\]",
        ),
        ("gptq", "qweight", torch.zeros(12, 64, dtype=torch.int64), "stored as I64; ramify reads I32"),
        ("gptq", "scales", torch.full((3, 64), float("nan"), dtype=torch.float16), "no finite number"),
        ("gptq", "scales", torch.full((3, 64), float("inf")), "no finite number"),
        ("gptq", "scales", torch.ones(3, 64, dtype=torch.int32), "stored as I32"),
        ("gptq", "qzeros", torch.zeros(3, 7, dtype=torch.int32), r"shape \[3, 7\]"),
        ("gptq", "g_idx", torch.full((96,), -1, dtype=torch.int32), "does not put 96 columns into 3 groups"),
        ("gptq", "g_idx", torch.arange(96, dtype=torch.int32), "does not put 96 columns into 3 groups"),
        ("gptq", "weight", torch.zeros(64, 96), "twice"),
        ("awq", "qweight", torch.zeros(64, 12, dtype=torch.int32), r"asks for \[96, 8\]"),
        ("fp8-blocks", "weight_scale_inv", torch.ones(3, 2), r"asks for \[2, 2\]"),
        ("fp8-tensor", "weight_scale", torch.tensor(float("nan")), "no finite number"),
        ("fp8-tensor", "weight", torch.zeros(64, 96, dtype=torch.float8_e5m2), "stored as F8_E5M2"),
        ("compressed-int4", "weight_shape", torch.tensor([96, 64]), r"says \[96, 64\]"),
        ("compressed-int4", "weight_packed", torch.zeros(64, 12), "stored as F32"),
        ("compressed-int8", "weight_scale", torch.ones(63, 1), r"asks for \[64, 1\]"),
    ],
)
def test_a_tensor_that_cannot_be_is_named(
    folder: Path, kind: str, suffix: str, tensor: torch.Tensor, said: str
) -> None:
    files.quantise_checkpoint(folder, *KINDS[kind])
    change(folder, {f"{MODULE}.{suffix}": tensor})
    with pytest.raises(CheckpointError, match=said) as caught:
        opened(folder).tensor(f"{MODULE}.weight", (64, 96))
    assert MODULE in str(caught.value)


@pytest.mark.parametrize("suffix", ["qzeros", "scales"])
def test_a_tensor_that_is_missing_is_named(folder: Path, suffix: str) -> None:
    files.quantise_checkpoint(folder, *KINDS["gptq"])
    change(folder, {}, without=f"{MODULE}.{suffix}")
    with pytest.raises(CheckpointError, match=f"no tensor {MODULE}.{suffix}"):
        opened(folder).tensor(f"{MODULE}.weight", (64, 96))


def test_sizes_that_a_layout_cannot_pack_are_told(folder: Path) -> None:
    files.quantise_checkpoint(folder, *KINDS["gptq"])
    with pytest.raises(UnsupportedModelError, match=r"down_proj is 64 x 92 by config.json; its format packs"):
        opened(folder).tensor(f"{MODULE}.weight", (64, 92))


def test_blocks_larger_than_a_weight_are_one_block(folder: Path) -> None:
    _, config = KINDS["fp8-blocks"]
    values = files.quantise_checkpoint(folder, files.float8((96, 96), "weight_scale_inv"), config)
    config_file = json.loads((folder / "config.json").read_text())
    config_file["quantization_config"]["weight_block_size"] = [2**40, 2**40]
    (folder / "config.json").write_text(json.dumps(config_file))
    name = f"{MODULE}.weight"
    assert torch.equal(opened(folder).tensor(name, (64, 96)), values[name])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "'bitsandbytes' are not supported; ramify reads gptq"),
        ({"quant_method": "mxfp4"}, "'mxfp4'"),
        ({**GPTQ, "bits": 3}, "bits=3"),
        ({**GPTQ, "checkpoint_format": "marlin"}, "checkpoint_format='marlin'"),
        ({**GPTQ, "pack_dtype": "int16"}, "pack_dtype='int16'"),
        ({**GPTQ, "group_size": 40}, "group_size=40"),
        ({**GPTQ, "dynamic": {"+:x": {"adapter": {"rank": 4}}}}, "adapter"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "version='gemv'"),
        ({"quant_method": "fp8", "fmt": "e5m2"}, "fmt='e5m2'"),
        ({**PACKED, "format": "nvfp4-pack-quantized", **groups(weights(4, "group", group_size=16))}, "nvfp4"),
        ({**PACKED, **groups(weights(2, "channel"))}, "num_bits=2"),
        ({**PACKED, "sparsity_config": {"format": "sparse-24-bitmask"}, **groups(weights(4, "channel"))}, "sparse"),
        ({**PACKED, "transform_config": {"x": 1}, **groups(weights(4, "channel"))}, "transform_config"),
    ],
)
def test_what_is_not_run_is_refused_by_name(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedModelError, match=said):
        parse_quantization(config)


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": 4},
        {**GPTQ, "group_size": 0},
        {**GPTQ, "group_size": "128"},
        {**GPTQ, "sym": "yes"},
        {"quant_method": "fp8", "weight_block_size": [128]},
        {"quant_method": "fp8", "weight_block_size": [0, 128]},
        {**PACKED, "config_groups": {}},
        {**PACKED, "config_groups": {"group_0": {"weights": None}}},
    ],
)
def test_a_config_that_cannot_be_is_told(config: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"quantization_config"):
        parse_quantization(config)
