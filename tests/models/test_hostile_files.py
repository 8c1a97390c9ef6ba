"""A broken or malicious file gives an error that says so: never a crash, a hang or a huge allocation."""

from __future__ import annotations

import json
import random
import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ramify.errors import CheckpointError, UnsupportedModelError
from ramify.models.checkpoint import open_checkpoint
from ramify.models.config import load_config
from ramify.models.gguf.reader import read_gguf
from ramify.models.gguf.shards import read_model
from ramify.text.tokenizer import load_tokenizer
from tests.checkpoints import byte_level_bpe, make_checkpoint
from tests.models import quantised_files
from tests.models.gguf_files import Typed, convert, text, write_gguf
from tests.models.hostile import SPECIAL, load_everything, mutate
from tests.text.gguf_vocabularies import byte_level_metadata

ALLOWED_BYTES = 1 << 30
CASES = 60


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """No more address space than there is in use now and a little: a huge allocation is a MemoryError."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ALLOWED_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32}
    folder = tmp_path_factory.mktemp("plain")
    return make_checkpoint(folder, "llama2", tokenizer=False, num_hidden_layers=1, **shape)


@pytest.fixture(scope="module")
def good(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GGUF file with everything in it."""
    path = tmp_path_factory.mktemp("good") / "model.gguf"
    vocabulary = {key.replace(".", "__"): value for key, value in byte_level_metadata(byte_level_bpe()).items()}
    return convert(plain, path, lambda name: "Q8_0" if "up" in name else "Q4_0", **vocabulary)[0]


def test_mutated_gguf_files_load_or_say_why_not(good: Path, tmp_path: Path) -> None:
    raw = good.read_bytes()
    assert load_everything(good, load_tokenizer) is None
    head = min(each.offset for each in read_gguf(good).tensors.values())
    path = tmp_path / "model.gguf"
    for case in range(CASES):
        path.write_bytes(mutate(raw, head, random.Random(case)))
        load_everything(path, load_tokenizer)


@pytest.mark.parametrize("at", range(4, 24, 4))
@pytest.mark.parametrize("number", [each for each in SPECIAL if each < 2**32][::3])
def test_any_number_in_the_header_is_survived(good: Path, tmp_path: Path, at: int, number: int) -> None:
    raw = bytearray(good.read_bytes())
    raw[at : at + 4] = struct.pack("<I", number)
    path = tmp_path / "model.gguf"
    path.write_bytes(raw)
    wrong = load_everything(path)
    assert wrong is None or "model.gguf" in wrong


@pytest.mark.parametrize("kept", [0, 3, 4, 23, 24, 100, 1000, -1])
def test_a_truncated_gguf_file_is_told(good: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(good.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"model\.gguf is corrupt or truncated"):
        load_config(path)


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, sizes: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def header(tensors: int, entries: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, entries)


ONE = tensor("a", (32,), 0, 0)
BODY = bytes(4096)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"GGML" + bytes(40), "starts with b'GGML'"),
        (header(2**63, 0) + BODY, "claims 9223372036854775808 tensors"),
        (header(0, 2**63) + BODY, "claims 9223372036854775808 metadata entries"),
        (header(60000, 0) + BODY, "cannot be a name"),
        (header(0, 1) + struct.pack("<Q", 2**63) + BODY, "passes the end of the file"),
        (header(0, 1) + entry("a", 8, struct.pack("<Q", 2**64 - 1)) + BODY, "passes the end of the file"),
        (header(0, 1) + entry("a", 9, struct.pack("<IQ", 4, 2**62)) + BODY, "claims 4611686018427387904 elements"),
        (header(0, 1) + entry("a", 9, struct.pack("<IQ", 8, 2**21)) + BODY, "passes the end of the file"),
        (header(0, 1) + entry("a", 9, struct.pack("<IQ", 9, 1)) + BODY, "array of the type 9"),
        (header(0, 1) + entry("a", 99, b"") + BODY, "unknown type 99"),
        (header(0, 1) + entry("a", 7, b"\x02") + BODY, "true or false"),
        (header(0, 1) + text(b"\xff") + BODY, "UTF-8"),
        (header(0, 2) + entry("a", 0, b"\1") * 2 + BODY, "key 'a' stands in it twice"),
        (header(0, 1) + entry("general.alignment", 4, bytes(4)) + BODY, "alignment is 0; it must be a power of two"),
        (header(0, 1) + entry("general.alignment", 4, struct.pack("<I", 1)) + BODY, "alignment is 1;"),
        (header(0, 1) + entry("split.count", 8, text("many")) + BODY, "one of b'many' parts"),
        (header(0, 1) + entry("general.alignment", 4, struct.pack("<I", 24)) + BODY, "alignment is 24"),
        (header(0, 1) + entry("general.alignment", 8, text("32")) + BODY, "alignment is b'32'"),
        (header(2, 0) + ONE * 2 + BODY, "tensor a stands in it twice|on top of each other"),
        (header(2, 0) + ONE + tensor("b", (32,), 0, 64) + BODY, "tensors a and b lie on top of each other"),
        (header(1, 0) + tensor("a", (2**20,), 0, 0) + BODY, "tensor a ends at byte"),
        (header(1, 0) + tensor("a", (32,), 0, 2**63) + BODY, "tensor a ends at byte"),
        (header(1, 0) + tensor("a", (32,), 0, 2**64 - 32) + BODY, "tensor a ends at byte"),
        (header(1, 0) + tensor("a", (32,), 0, 7) + BODY, "no multiple of 32"),
        (header(1, 0) + tensor("a", (2**33, 2**33), 0, 0) + BODY, "ends at byte"),
        (header(1, 0) + tensor("a", (2**63, 2), 0, 0) + BODY, "which F32 cannot have"),
        (header(1, 0) + tensor("a", (0,), 0, 0) + BODY, "which F32 cannot have"),
        (header(1, 0) + tensor("a", (33,), 2, 0) + BODY, "which Q4_0 cannot have"),
        (header(1, 0) + tensor("a", (32,) * 5, 0, 0) + BODY, "has 5 dimensions"),
        (header(1, 0) + tensor("a", (32,), 77, 0) + BODY, "unknown type 77"),
    ],
)
def test_each_fault_of_a_gguf_header_is_told(tmp_path: Path, raw: bytes, said: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_model(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0) + BODY, "version 1; ramify reads versions 2 and 3"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + BODY, "byte order of other machines"),
        (header(1, 0) + tensor("a", (256,), 16, 0) + BODY, "tensor a is stored as IQ2_XXS, which ramify does not read"),
    ],
)
def test_what_is_not_read_is_refused_by_name(tmp_path: Path, raw: bytes, said: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(raw)
    with pytest.raises(UnsupportedModelError, match=said):
        read_gguf(path)


def test_another_alignment_is_honoured(tmp_path: Path) -> None:
    tensors = {name: ("F32", (3,), struct.pack("<3f", 1, 2, 3)) for name in ("a", "b")}
    path = write_gguf(tmp_path / "m.gguf", {"general.alignment": Typed(4, 128)}, tensors, alignment=128)
    file = read_gguf(path)
    assert file.tensors["b"].offset - file.tensors["a"].offset == 128
    assert file.bytes_of(file.tensors["b"]).view(torch.float32).tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", ["gptq", "fp8"])
def test_mutated_safetensors_files_load_or_say_why_not(plain: Path, tmp_path: Path, kind: str) -> None:
    packs = {
        "gptq": (quantised_files.gptq(4, 32, False), {"quant_method": "gptq", "bits": 4, "group_size": 32}),
        "fp8": (
            quantised_files.float8((32, 32), "weight_scale_inv"),
            {"quant_method": "fp8", "weight_block_size": [32, 32]},
        ),
    }
    for path in plain.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    quantised_files.quantise_checkpoint(tmp_path, *packs[kind])
    weights = tmp_path / "model.safetensors"
    raw = weights.read_bytes()
    assert load_everything(tmp_path) is None
    head = 8 + int.from_bytes(raw[:8], "little")
    for case in range(CASES // 2):
        weights.write_bytes(mutate(raw, head, random.Random(case)))
        load_everything(tmp_path)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 100_000_001, 0])
def test_a_safetensors_header_of_an_absurd_length_is_told(plain: Path, tmp_path: Path, length: int) -> None:
    raw = (plain / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", length) + raw[8:])
    with pytest.raises(CheckpointError, match="corrupt or truncated"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "offsets", [[0, 2**63], [64, 0], [0, 63], [8, 72], [-1, 64], [0, 1e300], [2**64, 2**64 + 64]], ids=str
)
def test_safetensors_offsets_that_cannot_be_are_told(tmp_path: Path, offsets: list[float]) -> None:
    entries = {"a": {"dtype": "F32", "shape": [16], "data_offsets": offsets}}
    save(tmp_path, json.dumps(entries), 64)
    with pytest.raises(CheckpointError, match="corrupt or truncated"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "header_text",
    [
        '{"a":{"dtype":"F32","shape":[16],"data_offsets":[0,64]},"b":{"dtype":"F32","shape":[16],"data_offsets":[32,96]}}',
        '{"a":{"dtype":"F32","shape":[16],"data_offsets":[0,64]},"a":{"dtype":"F32","shape":[8],"data_offsets":[64,96]}}',
        '{"a":{"dtype":"F99","shape":[24],"data_offsets":[0,96]}}',
        '{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,96]}}',
        '{"a":{"dtype":"F32","shape":[23],"data_offsets":[0,96]}}',
        '{"a":' * 3000 + "1" + "}" * 3000,
        "[]",
        "{",
    ],
)
def test_safetensors_headers_that_cannot_be_are_told(tmp_path: Path, header_text: str) -> None:
    save(tmp_path, header_text, 96)
    with pytest.raises(CheckpointError, match="corrupt or truncated"):
        open_checkpoint(tmp_path)


def save(folder: Path, header_text: str, size: int) -> None:
    raw = header_text.encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(size))


@pytest.mark.parametrize(
    "config",
    ["[" * 100_000, '{"vocab_size": ' + "9" * 5000 + "}", "\xff", '{"architectures": ["LlamaForCausalLM"]', ""],
)
def test_a_config_that_is_no_json_is_told(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_bytes(config.encode("latin-1"))
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_hidden_layers", 2**40), ("max_position_embeddings", 2**62), ("vocab_size", 2**63), ("hidden_size", -1)],
)
def test_a_size_that_memory_could_not_hold_is_told(plain: Path, tmp_path: Path, key: str, value: int) -> None:
    config = json.loads((plain / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(CheckpointError, match=f"{key}={value}"):
        load_config(tmp_path)


def test_floats_that_are_no_numbers_are_no_scales(plain: Path, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj"
    tensors = {f"{name}.weight": torch.ones(32, 64).to(torch.float8_e4m3fn), f"{name}.weight_scale": torch.ones(32, 1)}
    tensors[f"{name}.weight"].view(torch.uint8)[3, 3] = 0x7F
    save_file(tensors, tmp_path / "model.safetensors")
    config = {**json.loads((plain / "config.json").read_text()), "quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="no finite number"):
        open_checkpoint(tmp_path, load_config(tmp_path).quantization).tensor(f"{name}.weight", (32, 64))
