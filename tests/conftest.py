"""Settings for all tests: one thread, no network, no deadline on generated examples (machines differ)."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("ramify", deadline=None)
settings.load_profile("ramify")


def _load_another_build(folder: str) -> None:
    """Take the compiled module from a build folder, such as that of `make sanitize`."""
    path = next(Path(folder).glob("_native*.so"))
    spec = importlib.util.spec_from_file_location("ramify.kernels._native", path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["ramify.kernels._native"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


if "RAMIFY_TEST_NATIVE" in os.environ:
    _load_another_build(os.environ["RAMIFY_TEST_NATIVE"])
