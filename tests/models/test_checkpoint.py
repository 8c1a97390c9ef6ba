"""Weights come from the memory map as they are stored, and every fault of a file is told with its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ramify.errors import CheckpointError
from ramify.models.checkpoint import open_checkpoint
from tests.checkpoints import make_checkpoint, reference_model

NAME = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One file with two tensors."""
    tensors = {NAME: torch.arange(12.0).reshape(3, 4), "lm_head.weight": torch.ones(2, 3, dtype=torch.bfloat16)}
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model in several shards."""
    return make_checkpoint(tmp_path_factory.mktemp("sharded"), "qwen3", max_shard_size="40KB", tokenizer=False)


@pytest.mark.parametrize("size", ["1GB", "40KB"])
def test_every_tensor_equals_the_one_transformers_loads(tmp_path: Path, size: str) -> None:
    path = make_checkpoint(tmp_path, "llama2", max_shard_size=size, tokenizer=False)
    assert (path / "model.safetensors.index.json").exists() == (size == "40KB")
    expected = reference_model(path).state_dict()
    checkpoint = open_checkpoint(path)
    assert checkpoint.names() == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(checkpoint.tensor(name, tensor.shape), tensor)
    checkpoint.check_all_used()


def test_a_tensor_in_its_stored_format_is_a_view_of_the_map(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    first, again = checkpoint.tensor(NAME, (3, 4)), checkpoint.tensor(NAME, (3, 4), torch.float32)
    assert first.data_ptr() == again.data_ptr()


def test_writing_to_a_tensor_never_reaches_the_file(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    open_checkpoint(folder).tensor(NAME, (3, 4)).zero_()
    assert (folder / "model.safetensors").read_bytes() == before


def test_tensors_outlive_the_checkpoint(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    tensor = checkpoint.tensor(NAME, (3, 4))
    checkpoint.close()
    assert torch.equal(tensor, torch.arange(12.0).reshape(3, 4))


def test_a_tensor_is_converted_where_another_format_is_asked_for(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    tensor = checkpoint.tensor(NAME, (3, 4), torch.bfloat16)
    assert tensor.dtype == torch.bfloat16
    assert torch.equal(tensor, torch.arange(12.0).reshape(3, 4).bfloat16())
    assert checkpoint.stored_dtype(NAME) == torch.float32
    assert checkpoint.stored_dtype("lm_head.weight") == torch.bfloat16


def test_a_missing_tensor_is_named(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    assert "model.norm.weight" not in checkpoint
    with pytest.raises(CheckpointError, match=r"no tensor model\.norm\.weight"):
        checkpoint.tensor("model.norm.weight", (4,))


def test_a_misshapen_tensor_is_told_with_both_shapes(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"shape \[3, 4\]; the config asks for \[4, 3\]"):
        open_checkpoint(folder).tensor(NAME, (4, 3))


def test_weights_stored_as_integers_are_refused(tmp_path: Path) -> None:
    save_file({NAME: torch.ones(2, 2, dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="stored as I8"):
        open_checkpoint(tmp_path).tensor(NAME, (2, 2))


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_a_truncated_file_is_found_when_it_is_opened(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="corrupt or truncated"):
        open_checkpoint(folder)


def test_a_file_of_noise_is_corrupt(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 8)
    with pytest.raises(CheckpointError, match="corrupt"):
        open_checkpoint(folder)


def test_a_git_lfs_pointer_is_recognised(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        open_checkpoint(folder)


def test_pickled_weights_are_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*save_pretrained"):
        open_checkpoint(tmp_path)


def test_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="weights are missing"):
        open_checkpoint(tmp_path)


def copy_with_index(sharded: Path, target: Path, **changes: str) -> Path:
    """The sharded checkpoint with some entries of its index changed."""
    for path in sharded.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    index["weight_map"].update(changes)
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    return target


def test_a_missing_shard_is_named(sharded: Path, tmp_path: Path) -> None:
    copy = copy_with_index(sharded, tmp_path)
    gone = min(copy.glob("model-*.safetensors"))
    gone.unlink()
    with pytest.raises(CheckpointError, match=f"lacks {gone.name}"):
        open_checkpoint(copy)


@pytest.mark.parametrize(
    "place", ["../secret.safetensors", "/etc/passwd", "a/../../b.safetensors", "..\\secret.safetensors", "C:\\x", ""]
)
def test_an_index_that_points_outside_of_its_folder_is_refused(sharded: Path, tmp_path: Path, place: str) -> None:
    copy = copy_with_index(sharded, tmp_path, **{NAME: place})
    with pytest.raises(CheckpointError, match="outside of its folder"):
        open_checkpoint(copy)


def test_a_shard_that_lacks_a_tensor_of_its_index_is_told(sharded: Path, tmp_path: Path) -> None:
    shard = min(path.name for path in sharded.glob("model-*.safetensors"))
    checkpoint = open_checkpoint(copy_with_index(sharded, tmp_path, **{"model.extra.weight": shard}))
    with pytest.raises(CheckpointError, match=r"lacks the tensor model\.extra\.weight"):
        checkpoint.tensor("model.extra.weight", (1,))


@pytest.mark.parametrize("content", ["{}", '{"weight_map": {}}', '{"weight_map": []}'])
def test_an_index_without_a_map_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match="weight_map"):
        open_checkpoint(tmp_path)


def test_a_tensor_that_nothing_uses_is_an_error_only_where_it_would_change_answers(tmp_path: Path) -> None:
    harmless = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2), "v_head.weight": torch.ones(2)}
    bias = {"model.layers.0.self_attn.q_proj.bias": torch.ones(2)}
    save_file(harmless, tmp_path / "model.safetensors")
    open_checkpoint(tmp_path).check_all_used()
    save_file({**harmless, **bias}, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"does not account for: model\.layers\.0\.self_attn\.q_proj\.bias;"):
        checkpoint.check_all_used()
    checkpoint.tensor("model.layers.0.self_attn.q_proj.bias", (2,))
    checkpoint.check_all_used()
