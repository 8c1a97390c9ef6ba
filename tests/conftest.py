"""Settings for all tests: one thread, no network, no deadline on generated examples (machines differ).

And what would cost seconds again and again: collecting the garbage of all modules, the certificates of every client,
imports of every program.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import httpcore2
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("ramify", deadline=None)
settings.load_profile("ramify")


def pytest_collection_finish() -> None:
    """What the modules hold is no garbage: do not look through it again after every few tests."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def certificates_are_read_once() -> Iterator[None]:
    """Every HTTP client would read those of all authorities, of which the tests meet none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", cache(httpcore2.default_ssl_context))
        yield


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of a Python that starts programs at once: see `tests.warm_python`."""
    door = str(tmp_path_factory.mktemp("warm") / "door")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.warm_python", door]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], env=environment, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield door
        server.kill()


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
