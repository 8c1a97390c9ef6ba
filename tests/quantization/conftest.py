"""Weights of the bundled policy, and a cache of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ramify.models.checkpoint import open_checkpoint
from ramify.models.config import load_config
from ramify.models.float_layer import read_layer
from ramify.models.hub import resolve_model


@pytest.fixture(scope="session")
def nano_weights() -> list[torch.Tensor]:
    """The products of its first and last layers, float32."""
    folder = resolve_model("nano")
    config = load_config(folder)
    checkpoint = open_checkpoint(folder, config.quantization)
    layers = [read_layer(config, checkpoint, f"model.layers.{index}.") for index in (0, config.num_layers - 1)]
    return [weight for layer in layers for weight in layer.weights.values()]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache."""
    monkeypatch.setenv("RAMIFY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
