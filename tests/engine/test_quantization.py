"""Engines with low-bit weights: the laws hold, the cache serves, and what cannot work is told."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ramify.config import EngineConfig
from ramify.engine import packed_weights
from ramify.engine.core import EngineCore
from ramify.engine.loading import load_engine
from ramify.errors import ConfigError
from ramify.models.checkpoint import open_checkpoint
from ramify.models.config import load_config
from ramify.quantization import cache
from ramify.quantization.formats import parse_format
from ramify.quantization.packed_file import PackedModel
from tests.checkpoints import make_checkpoint
from tests.engine.harness import prompt, request, run

FORMATS = (
    "bfloat16",
    "w8a8:calibration=none",
    "w8a16:calibration=none",
    "w4a8:asymmetric=true",
    "w4a16:calibration=none",
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAMIFY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(folder: Path, **options: object) -> EngineCore:
    settings = {"num_kv_blocks": 64, "max_num_seqs": 16, "max_num_batched_tokens": 64, **options}
    return load_engine(folder, EngineConfig(**settings))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("quantization", FORMATS)
def test_a_sequence_is_the_same_alone_chunked_and_in_a_batch(tmp_path: Path, quantization: str) -> None:
    folder = make_checkpoint(tmp_path / "model", "qwen2", num_hidden_layers=2)
    lengths = (9, 33, 5, 17)
    requests = [request(prompt(length, seed), seed=seed) for seed, length in enumerate(lengths)]
    together = run(load(folder, quantization=quantization), *requests)
    chunked = load(folder, quantization=quantization, max_num_batched_tokens=7, max_num_seqs=3)
    alone = [run(chunked, each)[0] for each in requests]
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.tokens == theirs.tokens
        assert ours.logprobs == theirs.logprobs  # bit for bit


def test_a_second_start_maps_what_the_first_one_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2")
    first = run(load(folder, quantization="w4a8:calibration=none"), request(prompt(9)))
    (entry,) = cache.weights_folder().iterdir()
    written = entry.read_bytes()
    monkeypatch.setattr(packed_weights, "pack_model", lambda *arguments: pytest.fail("it was made again"))
    assert run(load(folder, quantization="w4a8:calibration=none"), request(prompt(9))) == first
    assert entry.read_bytes() == written


def test_another_checkpoint_of_the_same_name_is_not_served_from_the_cache(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2")
    load(folder, quantization="w4a8:calibration=none")
    shutil.rmtree(folder)
    make_checkpoint(folder, "llama2", seed=1)
    load(folder, quantization="w4a8:calibration=none")
    assert len(list(cache.weights_folder().iterdir())) == 2


def test_a_damaged_entry_is_told_and_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2")
    first = run(load(folder, quantization="w8a8:calibration=none"), request(prompt(9)))
    (entry,) = cache.weights_folder().iterdir()
    entry.write_bytes(entry.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        assert run(load(folder, quantization="w8a8:calibration=none"), request(prompt(9))) == first
    assert "made again" in caplog.text
    assert entry.stat().st_size > 1000


def test_a_cache_that_cannot_be_written_costs_only_the_next_start(
    tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2")
    own_cache.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        (ours,) = run(load(folder, quantization="w8a8:calibration=none"), request(prompt(9)))
    assert len(ours.tokens) == 8
    assert "not cached" in caplog.text


def test_a_small_model_is_calibrated_when_it_is_loaded_and_a_large_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2", num_hidden_layers=1)
    config = load_config(folder)

    def is_calibrated(spec: str) -> bool:
        checkpoint = open_checkpoint(folder, config.quantization)
        made = packed_weights.packed_checkpoint(folder, config, checkpoint, parse_format(spec), torch.float32)
        return bool(made.model.about["calibrated"])  # type: ignore[attr-defined]

    assert is_calibrated("w4a8")
    assert not is_calibrated("w4a8:calibration=none")
    monkeypatch.setattr(packed_weights, "CALIBRATED_AT_LOAD", 10)
    assert not is_calibrated("w4a8")
    assert is_calibrated("w4a8:calibration=text")


def test_a_start_calibrates_on_fewer_tokens_the_larger_the_model_and_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2", num_hidden_layers=1)
    seen: list[int] = []
    made = packed_weights.pack_model

    def counted(*arguments: Any) -> PackedModel:
        seen.append(sum(map(len, arguments[4])))
        return made(*arguments)

    monkeypatch.setattr(packed_weights, "pack_model", counted)
    monkeypatch.setattr(packed_weights, "_SAYS_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO):
        load(folder, quantization="w4a8")
    assert "packed 1 of 2 parts" in caplog.text
    monkeypatch.setattr(packed_weights, "_WEIGHTS_TIMES_TOKENS", 1)
    load(folder, quantization="w8a8")
    assert seen == [packed_weights.MAX_CALIBRATION_TOKENS, 512]


def test_without_a_tokenizer_scales_follow_the_weights_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2", tokenizer=False)
    with caplog.at_level(logging.WARNING):
        load(folder, quantization="w8a8")
    assert "weights alone" in caplog.text


@pytest.mark.parametrize(
    ("quantization", "said"), [("w4a9", "did you mean"), ("", "w4a8"), ("w4a8:group_size=7", "16, 32, 64, 128")]
)
def test_a_format_that_cannot_be_is_refused(tmp_path: Path, quantization: str, said: str) -> None:
    folder = make_checkpoint(tmp_path / "model", "llama2", tokenizer=False)
    with pytest.raises(ConfigError, match=said):
        load(folder, quantization=quantization)
