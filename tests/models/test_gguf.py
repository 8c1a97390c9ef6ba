"""GGUF files: the numbers of the file are the numbers of the model, and its metadata says what a config.json would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ramify.errors import CheckpointError, ModelNotFoundError, UnsupportedModelError
from ramify.models.checkpoint import open_checkpoint
from ramify.models.config import ModelConfig, load_config
from ramify.models.gguf.blocks import FORMATS, read_blocks
from ramify.models.gguf.types import FLOATS, READABLE
from ramify.models.hub import resolve_model
from tests.checkpoints import make_checkpoint
from tests.models.gguf_files import PACKERS, Typed, convert, read_parts, write_gguf

SHAPE = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256}
UINT32, BOOL = 4, 7


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose rows are a whole number of the largest blocks."""
    folder = tmp_path_factory.mktemp("llama")
    return make_checkpoint(folder, "llama2", tokenizer=False, num_hidden_layers=1, **SHAPE)


@pytest.mark.parametrize("kind", PACKERS)
def test_the_numbers_of_the_file_are_the_numbers_of_the_weights(llama: Path, tmp_path: Path, kind: str) -> None:
    path, values = convert(llama, tmp_path / "model.gguf", lambda name: kind)
    checkpoint = open_checkpoint(path, load_config(path).quantization)
    assert checkpoint.names() == set(values)
    for name, value in values.items():
        assert torch.equal(checkpoint.tensor(name, value.shape, torch.float32), torch.from_numpy(value)), name
        assert (checkpoint.stored_dtype(name) is None) == (kind not in FLOATS and value.ndim == 2)
    checkpoint.check_all_used()
    name = "model.layers.0.self_attn.k_proj.weight"  # whose rows the converter has put in another order
    stored = checkpoint.quantised(name, (128, 256))
    assert (stored is None) == (kind in FLOATS)
    if stored is not None:
        assert torch.equal(stored.dequantised(), torch.from_numpy(values[name]))


def fields(raw: np.ndarray[Any, Any], kind: str) -> list[float]:
    """One block of the rarer formats by its definition, weight after weight."""
    byte = [int(each) for each in raw]

    def half(at: int) -> float:
        return float(raw[at : at + 2].view("<f2")[0])

    if kind == "Q2_K":
        return [
            half(80) * (byte[i // 16] & 15) * ((byte[16 + 32 * (i // 128) + i % 32] >> (2 * (i // 32 % 4))) & 3)
            - half(82) * (byte[i // 16] >> 4)
            for i in range(256)
        ]
    if kind == "Q3_K":
        scales = [
            ((byte[96 + j % 8] >> (4 * (j // 8))) & 15) | ((byte[104 + j % 4] >> (2 * (j // 4))) & 3) << 4
            for j in range(16)
        ]
        codes = [
            ((byte[32 + 32 * (i // 128) + i % 32] >> (2 * (i // 32 % 4))) & 3)
            - (0 if byte[i % 32] >> (i // 32) & 1 else 4)
            for i in range(256)
        ]
        return [half(108) * (scales[i // 16] - 32) * codes[i] for i in range(256)]
    table = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
    if kind == "IQ4_NL":
        return [half(0) * table[(byte[2 + i % 16] >> (4 * (i // 16))) & 15] for i in range(32)]
    high = byte[2] | byte[3] << 8
    scales = [((byte[4 + j // 2] >> (4 * (j % 2))) & 15) | ((high >> (2 * j)) & 3) << 4 for j in range(8)]
    return [
        half(0) * (scales[i // 32] - 32) * table[(byte[8 + 16 * (i // 32) + i % 16] >> (4 * (i // 16 % 2))) & 15]
        for i in range(256)
    ]


@pytest.mark.parametrize(("kind", "halves"), [("Q2_K", (80, 82)), ("Q3_K", (108,)), ("IQ4_NL", (0,)), ("IQ4_XS", (0,))])
def test_the_rarer_formats_follow_their_definitions(kind: str, halves: tuple[int, ...]) -> None:
    known = next(each for each in READABLE.values() if each.name == kind)
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (6, known.block_bytes), dtype=np.uint8)
    for at in halves:
        blocks[:, at : at + 2] = random.standard_normal(6).astype("<f2")[:, None].view(np.uint8)
    raw = torch.from_numpy(blocks.reshape(-1).copy())
    weight = read_blocks("x", kind, raw, 3, 2 * known.block_size).dequantised()
    expected = np.array([fields(block, kind) for block in blocks], dtype=np.float32).reshape(3, -1)
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6)


def test_every_format_but_floats_has_a_reader() -> None:
    assert set(FORMATS) == {kind.name for kind in READABLE.values()} - {"F32", "F16", "BF16"}


@pytest.mark.parametrize("family", ["llama2", "mistral", "qwen2", "qwen2.5", "qwen3"])
def test_the_metadata_says_what_the_config_says(family: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"use_sliding_window": False} if family == "qwen2.5" else {}
    folder = make_checkpoint(tmp_path, family, tokenizer=False, **options)
    more = {"llama__attention__sliding_window": 12} if family == "mistral" else {}
    path, values = convert(folder, tmp_path / "model.gguf", lambda name: "F32", **more)
    expected, found = load_config(folder), load_config(path)
    assert found.quantization is not None
    assert found.quantization.method == "gguf"
    assert same(found) == same(expected)
    checkpoint = open_checkpoint(path)
    for name, value in values.items():
        assert torch.equal(checkpoint.tensor(name, value.shape), torch.from_numpy(value)), name


def same(config: ModelConfig) -> dict[str, Any]:
    """A configuration without what the file of floats and the file of blocks differ in."""
    skip = ("quantization", "rms_norm_eps", "dtype")
    return {name: getattr(config, name) for name in config.__slots__ if name not in skip} | {
        "rms_norm_eps": pytest.approx(config.rms_norm_eps, rel=1e-6)
    }


def test_factors_of_the_wavelengths_stand_for_the_scaling_of_llama3(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "llama3", tokenizer=False)
    expected = load_config(folder).rope
    plain = expected.theta ** -(torch.arange(0, 8, 2) / 8)
    factors = (plain / expected.inverse_frequencies(8)).numpy().astype("<f4")
    path, _ = convert(folder, tmp_path / "model.gguf", lambda name: "F32")
    metadata, tensors = read_parts(path)
    path = write_gguf(path, metadata, {**tensors, "rope_freqs.weight": ("F32", (4,), factors.tobytes())})
    torch.testing.assert_close(load_config(path).rope.inverse_frequencies(8), expected.inverse_frequencies(8))
    open_checkpoint(path)


def test_scalings_of_the_rotary_embedding_are_read(llama: Path, tmp_path: Path) -> None:
    def rope(**metadata: Any) -> Any:
        path, _ = convert(llama, tmp_path / "model.gguf", lambda name: "F32", **metadata)
        return load_config(path).rope

    yarn = {
        "ARCH__rope__scaling__type": "yarn",
        "ARCH__rope__scaling__factor": 4.0,
        "ARCH__rope__scaling__original_context_length": 128,
    }
    found = rope(**yarn)
    assert (found.type, found.factor, found.original_max_position_embeddings) == ("yarn", 4.0, 128)
    assert found.attention_scaling == pytest.approx(1.1386, abs=1e-4)
    assert rope(ARCH__rope__scaling__type="linear", ARCH__rope__scaling__factor=2.0).type == "linear"
    assert rope(ARCH__rope__scaling__type="none").type == "default"


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"general__architecture": "mamba"}, "'mamba'; ramify reads llama, qwen2, qwen3"),
        ({"llama__expert_count": 8}, "llama.expert_count=8"),
        ({"llama__logit_scale": 0.5}, "llama.logit_scale=0.5"),
        ({"llama__rope__dimension_count": 32}, "rotates whole heads"),
        ({"llama__rope__scaling__type": "longrope", "llama__rope__scaling__factor": 2.0}, "'longrope'"),
        ({"llama__attention__causal": False}, "causal"),
        ({"llama__attention__head_count_kv": [2, 1]}, "differs between layers"),
        ({"llama__pooling_type": 4}, "pooling_type=4"),
    ],
)
def test_what_is_not_run_is_refused_by_name(llama: Path, tmp_path: Path, metadata: dict[str, Any], said: str) -> None:
    path, _ = convert(llama, tmp_path / "model.gguf", lambda name: "F32", **metadata)
    with pytest.raises(UnsupportedModelError, match=said):
        load_config(path)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"llama__block_count": 2**32 - 1}, "num_hidden_layers=4294967295"),
        ({"llama__context_length": 2**31}, "max_position_embeddings"),
        ({"llama__attention__head_count": 0}, "num_attention_heads=0"),
        ({"llama__embedding_length": "256"}, "embedding_length is b'256'"),
        ({"llama__rope__freq_base": float("nan")}, "freq_base"),
        ({"llama__attention__layer_norm_rms_epsilon": float("inf")}, "rms_epsilon"),
        ({"tokenizer__ggml__eos_token_id": Typed(5, -3)}, "eos_token_id"),
        ({"tokenizer__ggml__tokens": ["a"] * 400}, "no more tokens"),
        ({"general__architecture": b"\xff\xfe"}, "UTF-8"),
    ],
)
def test_metadata_that_cannot_be_is_told(llama: Path, tmp_path: Path, metadata: dict[str, Any], said: str) -> None:
    path, _ = convert(llama, tmp_path / "model.gguf", lambda name: "F32", **metadata)
    with pytest.raises(CheckpointError, match=said):
        load_config(path)


def test_a_shape_that_the_metadata_does_not_ask_for_is_told(llama: Path, tmp_path: Path) -> None:
    path, _ = convert(llama, tmp_path / "model.gguf", lambda name: "Q8_0")
    with pytest.raises(CheckpointError, match=r"blk\.0\.ffn_up\.weight .*shape \[256, 256\]; .* \[128, 256\]"):
        open_checkpoint(path).tensor("model.layers.0.mlp.up_proj.weight", (128, 256))


def test_a_tensor_that_nothing_uses_is_told(llama: Path, tmp_path: Path) -> None:
    path, values = convert(llama, tmp_path / "model.gguf", lambda name: "F32")
    metadata, tensors = read_parts(path)
    write_gguf(path, metadata, {**tensors, "blk.0.attn_sinks.weight": ("F32", (4,), bytes(16))})
    checkpoint = open_checkpoint(path)
    for name, value in values.items():
        checkpoint.tensor(name, value.shape)
    with pytest.raises(CheckpointError, match="does not account for: blk.0.attn_sinks.weight"):
        checkpoint.check_all_used()


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "Q4_K", "Q6_K"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_scale_that_is_no_finite_number_is_told(kind: str, number: float) -> None:
    known = next(each for each in READABLE.values() if each.name == kind)
    block = np.ones((4, known.block_bytes), dtype=np.uint8)
    at = 208 if kind == "Q6_K" else 0
    block[2, at : at + 2] = np.array([number], dtype="<f2").view(np.uint8)
    with pytest.raises(CheckpointError, match=f"tensor x .*{kind}.* no finite number"):
        read_blocks("x", kind, torch.from_numpy(block.reshape(-1)), 4, known.block_size)


def test_a_model_in_several_files_is_put_together(llama: Path, tmp_path: Path) -> None:
    path, values = convert(llama, tmp_path / "model.gguf", lambda name: "Q8_0")
    metadata, tensors = read_parts(path)
    path.unlink()
    names = sorted(tensors)
    counts = {"split.count": Typed(UINT32, 2), "split.tensors.count": len(names)}
    first = write_gguf(tmp_path / "m-00001-of-00002.gguf", {**metadata, **counts}, {n: tensors[n] for n in names[:4]})
    second = write_gguf(tmp_path / "m-00002-of-00002.gguf", counts, {n: tensors[n] for n in names[4:]})
    for given in (first, second, tmp_path):
        assert resolve_model(given) == first
    checkpoint = open_checkpoint(first, load_config(first).quantization)
    for name, value in values.items():
        assert torch.equal(checkpoint.tensor(name, value.shape), torch.from_numpy(value))
    second.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"lacks 1 of 2 parts .*m-00002-of-00002\.gguf"):
        load_config(first)
    (tmp_path / "elsewhere").rename(second)
    first.unlink()
    with pytest.raises(ModelNotFoundError, match=r"lacks m-00001-of-00002\.gguf, the first part"):
        resolve_model(second)


def test_a_file_is_found_by_its_path_its_folder_and_its_tag(tmp_path: Path) -> None:
    small = write_gguf(tmp_path / "m-Q4_K_M.gguf", {}, {})
    assert resolve_model(small) == resolve_model(str(tmp_path)) == small
    large = write_gguf(tmp_path / "m-Q8_0.gguf", {}, {})
    write_gguf(tmp_path / "mmproj-m-F16.gguf", {}, {})
    for choice in ("Q8_0", "q8_0", "m-Q8_0.gguf"):
        assert resolve_model(f"{tmp_path}:{choice}") == large
    nameless = write_gguf(tmp_path / "sha256-0123", {}, {})
    assert resolve_model(nameless) == nameless
    with pytest.raises(ModelNotFoundError, match=r"has 2 GGUF files .*m-Q4_K_M\.gguf, m-Q8_0\.gguf.*name one"):
        resolve_model(tmp_path)
    with pytest.raises(ModelNotFoundError, match="no GGUF file of 'Q5_0'"):
        resolve_model(f"{tmp_path}:Q5_0")


def test_a_file_of_the_hub_is_fetched_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    path = write_gguf(tmp_path / "model-Q4_0.gguf", {}, {})
    for name in ("org/repo:Q4_0", "org/repo:model-Q4_0.gguf", "org/repo/model-Q4_0.gguf"):
        assert resolve_model(name) == path
    assert {repository for repository, _ in asked} == {"org/repo"}
    assert asked[1][1] == asked[2][1] == ["model-Q4_0.gguf"]
    assert all("Q4_0" in pattern or "q4_0" in pattern for pattern in asked[0][1])
