"""Settings for all tests: one thread, no network, no deadline on generated examples (machines differ)."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("ramify", deadline=None)
settings.load_profile("ramify")
