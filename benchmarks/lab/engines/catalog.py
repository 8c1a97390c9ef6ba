"""The engines by name: what each needs, how its model files are made, and how it is started."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.lab.engines.base import Engine, MissingError


@dataclass(frozen=True, slots=True)
class Kind:
    """An engine in one weight format.

    Attributes:
        name: in options and results.
        label: in tables and plots.
        package: what must be installed.
        bits: of a weight in the matrices.
        files: makes its model files in the folder of a model (see `shapes`), if they are not there.
        weights: names of the files that hold its weights, in that folder.
        make: starts it on the folder with a number of threads.
    """

    name: str
    label: str
    package: str
    bits: int
    files: Callable[[Path], None]
    weights: tuple[str, ...]
    make: Callable[[Path, int], Engine]

    @property
    def ours(self) -> bool:
        """Whether it is ramify."""
        return self.package == "ramify"

    def check(self, folder: Path) -> None:
        """Make its files. Raises `MissingError` if it is not installed or cannot take the model, with the reason."""
        if importlib.util.find_spec(self.package) is None:
            raise MissingError(f"the package {self.package} is not installed")
        self.files(folder)


def _nothing(folder: Path) -> None:
    del folder


def _gguf(form: str, folder: Path) -> None:
    from benchmarks.lab.gguf_file import quantise_gguf, write_gguf

    target, plain = folder / f"{form}.gguf", folder / "plain.gguf"
    if target.exists():
        return
    if importlib.util.find_spec("gguf") is None:
        raise MissingError("the package gguf is not installed")
    part = folder / f"{form}.gguf.part"
    try:
        if not plain.exists():
            write_gguf(folder / "checkpoint", part)
            os.replace(part, plain)
        quantise_gguf(plain, part, form)
    except (ValueError, RuntimeError) as error:
        raise MissingError(str(error)) from error
    os.replace(part, target)


def _openvino(form: str, folder: Path) -> None:
    from benchmarks.lab.openvino_export import export

    export(folder / "checkpoint", folder / f"openvino-{form}", form)


def _ramify(form: str, folder: Path, threads: int) -> Engine:
    from benchmarks.lab.engines.ramify_engine import RamifyEngine

    return RamifyEngine(folder, threads, form)


def _make_openvino(form: str, folder: Path, threads: int) -> Engine:
    from benchmarks.lab.engines.openvino_engine import OpenVINOEngine

    return OpenVINOEngine(folder, threads, form)


def _make_llamacpp(form: str, folder: Path, threads: int) -> Engine:
    from benchmarks.lab.engines.llamacpp_engine import LlamaCppEngine

    return LlamaCppEngine(folder, threads, form)


def _make_hf(dtype: str, folder: Path, threads: int) -> Engine:
    from benchmarks.lab.engines.hf_engine import HFEngine

    return HFEngine(folder, threads, dtype)


_CHECKPOINT = ("checkpoint/model.safetensors",)
KINDS = {
    kind.name: kind
    for kind in (
        Kind("ramify-w8a8", "ramify W8A8", "ramify", 8, _nothing, (), partial(_ramify, "w8a8")),
        Kind("ramify-w4a8", "ramify W4A8", "ramify", 4, _nothing, (), partial(_ramify, "w4a8")),
        Kind("ramify-bf16", "ramify BF16", "ramify", 16, _nothing, _CHECKPOINT, partial(_ramify, "bfloat16")),
        *(
            Kind(
                f"openvino-{form}",
                f"OpenVINO {form}",
                "openvino_genai",
                bits,
                partial(_openvino, form),
                (f"openvino-{form}/openvino_model.bin",),
                partial(_make_openvino, form),
            )
            for form, bits in (("int8", 8), ("int4", 4))
        ),
        *(
            Kind(
                f"llamacpp-{form.lower()}",
                f"llama.cpp {form}",
                "llama_cpp",
                bits,
                partial(_gguf, form),
                (f"{form}.gguf",),
                partial(_make_llamacpp, form),
            )
            for form, bits in (("Q8_0", 8), ("Q4_0", 4))
        ),
        Kind(
            "transformers-bf16",
            "transformers BF16",
            "transformers",
            16,
            _nothing,
            _CHECKPOINT,
            partial(_make_hf, "bfloat16"),
        ),
    )
}


def pick(names: str) -> list[Kind]:
    """Kinds by names or beginnings of names, separated by commas; all of them for "all".

    Raises:
        SystemExit: a name fits none.
    """
    if names == "all":
        return list(KINDS.values())
    found: dict[str, Kind] = {}
    for name in names.split(","):
        fitting = {key: kind for key, kind in KINDS.items() if key.startswith(name)}
        if not fitting:
            raise SystemExit(f"{name!r} is no engine: the engines are {', '.join(KINDS)}")
        found |= fitting
    return list(found.values())


def context_of(folder: Path) -> int:
    """Positions of the model in a folder."""
    config = json.loads((folder / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    return int(config["max_position_embeddings"])
