"""`Pooling`: how one vector is made of the last layer's rows, as the files of a sentence-transformers checkpoint say.

Without such files it is the last token's row, at unit length. A step in those files that ramify does not do would
change every vector: it is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ramify.errors import CheckpointError, UnsupportedModelError

PoolingMode = Literal["last", "mean", "cls"]
MODULES_FILE = "modules.json"
_MODES: Mapping[str, PoolingMode] = {
    "pooling_mode_lasttoken": "last",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "lasttoken": "last",
    "mean": "mean",
    "cls": "cls",
}


@dataclass(frozen=True, slots=True)
class Pooling:
    """One vector a text.

    Attributes:
        mode: the row of the last token, the mean of all rows, or the row of the first token; behind the last norm.
        normalise: to unit length.
        max_tokens: the longest text that the checkpoint was made for; None is the model's context.
        prompt: what is put before each text.
        matryoshka: the first numbers of a vector are a vector themselves; at every length in `dimensions`, or at any.
        dimensions: lengths to which a vector may be cut; none stands for all.
    """

    mode: PoolingMode = "last"
    normalise: bool = True
    max_tokens: int | None = None
    prompt: str = ""
    matryoshka: bool = False
    dimensions: tuple[int, ...] = ()


def read_pooling(folder: Path, config: Mapping[str, Any]) -> Pooling:
    """The pooling of a checkpoint.

    Args:
        folder: of the checkpoint.
        config: the content of its `config.json`.

    Raises:
        UnsupportedModelError: it has a step that ramify does not do.
        CheckpointError: a file is no JSON, or says something that cannot be.
    """
    dimensions = config.get("matryoshka_dimensions") or ()
    if not isinstance(dimensions, list | tuple) or not all(type(size) is int and size > 0 for size in dimensions):
        raise CheckpointError(f"config.json: matryoshka_dimensions={dimensions!r}; it must be a list of sizes")
    matryoshka = bool(dimensions) or config.get("is_matryoshka") is True
    if not (folder / MODULES_FILE).is_file():
        return Pooling(matryoshka=matryoshka, dimensions=tuple(dimensions))
    modules = _read(folder / MODULES_FILE, list)
    kinds = {str(module.get("type", "")).rsplit(".", 1)[-1]: module for module in modules if isinstance(module, dict)}
    unknown = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
    if unknown:
        raise UnsupportedModelError(f"{MODULES_FILE} has a {unknown[0]} module, which ramify does not run")
    if "Pooling" not in kinds:
        raise CheckpointError(f"{folder / MODULES_FILE} has no Pooling module: its vectors are not defined")
    transformer = folder / str(kinds.get("Transformer", {}).get("path", ""))
    return Pooling(
        mode=_mode(_read(folder / str(kinds["Pooling"].get("path", "1_Pooling")) / "config.json", dict)),
        normalise="Normalize" in kinds,
        max_tokens=_max_tokens(transformer / "sentence_bert_config.json"),
        prompt=_prompt(folder / "config_sentence_transformers.json"),
        matryoshka=matryoshka,
        dimensions=tuple(dimensions),
    )


def _mode(config: Mapping[str, Any]) -> PoolingMode:
    named = config.get("pooling_mode")
    chosen = [named] if named else [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    if len(chosen) != 1 or chosen[0] not in _MODES:
        raise UnsupportedModelError(
            f"pooling {' and '.join(map(str, chosen)) or 'without a mode'} is not supported: ramify pools by the last "
            "token, the mean or the first token"
        )
    if config.get("include_prompt") is False:
        raise UnsupportedModelError("pooling with include_prompt=false is not supported: it would change the vectors")
    return _MODES[chosen[0]]


def _max_tokens(path: Path) -> int | None:
    config = _read(path, dict) if path.is_file() else {}
    if config.get("do_lower_case"):
        raise UnsupportedModelError(
            f"{path.name} with do_lower_case=true is not supported: it would change the vectors"
        )
    longest = config.get("max_seq_length")
    if longest is not None and (type(longest) is not int or longest < 1):
        raise CheckpointError(f"{path}: max_seq_length={longest!r}; it must be a number of tokens")
    return longest


def _prompt(path: Path) -> str:
    config = _read(path, dict) if path.is_file() else {}
    name, prompts = config.get("default_prompt_name"), config.get("prompts") or {}
    if name is None:
        return ""
    if not isinstance(prompts.get(name), str):
        raise CheckpointError(f"{path}: default_prompt_name={name!r} is not one of its prompts")
    return str(prompts[name])


def _read(path: Path, kind: type[Any]) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): fetch the file again") from error
    if not isinstance(content, kind):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; it must be a JSON {kind.__name__}")
    return content
