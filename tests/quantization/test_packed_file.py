"""Files of packed weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ramify.errors import CheckpointError
from ramify.kernels.packed import PackedMatrix
from ramify.quantization.formats import W4A8, W4A16, W6A8, W8A8, BFloat16
from ramify.quantization.packed_file import PackedModel, read_packed, write_packed


def model() -> PackedModel:
    weight = torch.randn(37, 100, generator=torch.Generator().manual_seed(0))
    formats = (W8A8(), W4A8(asymmetric=True), W4A16(group_size=64), BFloat16())
    matrices = {f"layer.{made.name}": made.pack(weight) for made in formats}
    matrices |= {f"integers.{made.name}": made.pack(weight) for made in (W4A8(), W6A8())}
    return PackedModel("w4a8", matrices, {"norm.weight": torch.rand(7), "order": torch.arange(5)}, {"products": []})


def test_a_file_reads_back_as_what_was_written(tmp_path: Path) -> None:
    written = model()
    write_packed(tmp_path / "x.safetensors", written)
    found = read_packed(tmp_path / "x.safetensors")
    assert (found.spec, found.about, found.num_bytes) == (written.spec, written.about, written.num_bytes)
    assert found.matrices.keys() == written.matrices.keys()
    for name, matrix in written.matrices.items():
        assert found.matrices[name].kind == matrix.kind
        for part, buffer in matrix.tensors.items():
            assert torch.equal(found.matrices[name].tensors[part], buffer)
    assert all(torch.equal(found.vectors[name], vector) for name, vector in written.vectors.items())
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_buffers_of_the_kernels_begin_at_cache_lines(tmp_path: Path) -> None:
    write_packed(tmp_path / "x.safetensors", model())
    matrices = read_packed(tmp_path / "x.safetensors").matrices.values()
    assert all(buffer.data_ptr() % 64 == 0 for matrix in matrices for buffer in matrix.tensors.values())


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    write_packed(path, model())
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_packed(path, PackedModel("w8a8"))
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def edited(path: Path, edit: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change a file's header: takes the tensors' entries and what ramify wrote."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    about = json.loads(header["__metadata__"]["ramify"])
    edit(header, about)
    header["__metadata__"]["ramify"] = json.dumps(about)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def set_entry(key: str, value: Any, matrix: str = "layer.w4a8") -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda header, about: about["matrices"][matrix].__setitem__(key, value)


@pytest.mark.parametrize(
    "edit",
    [
        set_entry("rows", 10_000),
        set_entry("rows", -1),
        set_entry("rows", 0),
        set_entry("rows", True),
        set_entry("columns", 2**60),
        set_entry("columns", 3.5),
        set_entry("kind", "w8a8"),
        set_entry("kind", "w2a2"),
        set_entry("kind", ["w4a8"]),
        set_entry("group_size", 0),
        set_entry("group_size", 48),
        set_entry("activation_group", 7),
        set_entry("parts", ["codes"]),
        set_entry("parts", ["codes", "scales", "elsewhere"]),
        set_entry("parts", "codes"),
        set_entry("kind", "w6a8"),
        set_entry("kind", "w6a8", "integers.w4a8"),
        set_entry("kind", "w4a8", "integers.w6a8"),
        set_entry("kind", "w4a16", "integers.w4a8"),
        set_entry("group_size", 64, "integers.w4a8"),
        set_entry("activation_group", 64, "integers.w4a8"),
        set_entry("activation_group", 0, "integers.w4a8"),
        set_entry("parts", ["codes", "scales"], "integers.w4a8"),
        set_entry("parts", ["codes", "scales"], "integers.w6a8"),
        lambda header, about: header["integers.w4a8.factors"].__setitem__("dtype", "F16"),
        lambda header, about: about["matrices"].__setitem__("layer.w4a8", 3),
        lambda header, about: about.__setitem__("layout", 999),
        lambda header, about: about.pop("layout"),
        lambda header, about: about.__setitem__("matrices", []),
        lambda header, about: about.__setitem__("spec", None),
        lambda header, about: header["layer.w4a8.scales"].__setitem__("dtype", "BF16"),
        lambda header, about: header["layer.w4a8.codes"].__setitem__("data_offsets", [0, 2**63]),
    ],
)
def test_a_header_that_does_not_fit_is_told(
    tmp_path: Path, edit: Callable[[dict[str, Any], dict[str, Any]], None]
) -> None:
    path = tmp_path / "x.safetensors"
    write_packed(path, model())
    edited(path, edit)
    with pytest.raises(CheckpointError, match=r"x\.safetensors.*ramify quantize"):
        read_packed(path)


def test_half_of_a_pair_of_32_inputs_is_told(tmp_path: Path) -> None:
    """Kernels read 4-bit codes with integer scales 64 inputs at a time."""
    buffers = {
        "codes": torch.zeros(2, 4, 16, 4, dtype=torch.uint8),
        "scales": torch.zeros(2, 1, 16, dtype=torch.int8),
        "factors": torch.zeros(2, 1, 16, dtype=torch.bfloat16),
    }
    half = PackedMatrix(32, 32, "w4a8", 32, 32, buffers)
    write_packed(tmp_path / "x.safetensors", PackedModel("w4a8", {"half": half}))
    with pytest.raises(CheckpointError, match=r"the buffers of half.*ramify quantize"):
        read_packed(tmp_path / "x.safetensors")


@pytest.mark.parametrize("length", [0, 7, 100, 5000])
def test_a_truncated_file_is_told(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.safetensors"
    write_packed(path, model())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"x\.safetensors cannot be read"):
        read_packed(path)
