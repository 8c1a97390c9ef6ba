"""Which GGUF file of a folder or repository is meant: ``repo:Q4_K_M`` or ``repo:file.gguf``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ramify.errors import ModelNotFoundError
from ramify.models.gguf.reader import MAGIC

SUFFIX = ".gguf"
_TAG = re.compile(r"[\w.-]+")
_SHARD = re.compile(r"-(\d{5})-of-\d{5}$")
_NOT_A_MODEL = "mmproj"
"""Files that stand beside a model: what turns pictures into its input."""


def is_gguf(path: Path) -> bool:
    """Whether a file's name says that it is a GGUF file."""
    return path.name.lower().endswith(SUFFIX)


def starts_as_gguf(path: Path) -> bool:
    """Whether a file is a GGUF file by its first bytes, whatever it is called."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def split_choice(name: str) -> tuple[str, str] | None:
    """``place:choice`` or ``organisation/repository/file.gguf`` taken apart; None for other names."""
    place, _, choice = name.rpartition(":")
    if place and _TAG.fullmatch(choice) and len(place) > 1:
        return place, choice
    parts = name.split("/")
    if len(parts) == 3 and name.lower().endswith(SUFFIX) and not name.startswith((".", "/", "~")):
        return f"{parts[0]}/{parts[1]}", parts[2]
    return None


def patterns(choice: str) -> list[str]:
    """Glob patterns of the files that a choice can mean, for fetching no others."""
    if choice.lower().endswith(SUFFIX):
        shard = _SHARD.search(choice[: -len(SUFFIX)])
        return [choice] if shard is None else [choice.replace(shard[0], "-?????" + shard[0][6:])]
    found = []
    for tag in dict.fromkeys((choice, choice.upper(), choice.lower())):
        found += [f"*[-._]{tag}{SUFFIX}", f"*[-._]{tag}-?????-of-?????{SUFFIX}", f"{tag}{SUFFIX}"]
    return found


def choose_file(folder: Path, choice: str | None = None) -> Path:
    """The GGUF file of a folder (of a model in several files, the first).

    Args:
        folder: where to look; one level below it as well.
        choice: a file's name or the tag of a quantisation, such as "Q4_K_M"; None where there is one file only.

    Raises:
        ModelNotFoundError: none or several fit; names what there is.
    """
    found = (path for depth in ("*", "*/*") for path in folder.glob(depth))
    files = sorted(path for path in found if is_gguf(path) and path.is_file() and _is_model(path))
    fitting = files if choice is None else [path for path in files if _fits(path, choice)]
    if len(fitting) == 1:
        return fitting[0]
    what = "GGUF file" if choice is None else f"GGUF file of {choice!r}"
    there = _listed(path.relative_to(folder) for path in files)
    raise ModelNotFoundError(
        f"{folder} has {len(fitting) or 'no'} {what}{'s' if len(fitting) > 1 else ''} (there are: {there}): "
        f"name one, for example {folder}:{fitting[0].name if fitting else 'Q4_K_M'}"
    )


def _is_model(path: Path) -> bool:
    shard = _SHARD.search(path.stem)
    return _NOT_A_MODEL not in path.name.lower() and (shard is None or shard[1] == "00001")


def _fits(path: Path, choice: str) -> bool:
    name, wanted = path.name.lower(), choice.lower()
    if wanted.endswith(SUFFIX):
        return name == wanted or (path.suffix != "" and _SHARD.sub("", path.stem).lower() + SUFFIX == wanted)
    stem = _SHARD.sub("", path.name[: -len(SUFFIX)]).lower()
    return stem == wanted or stem.endswith(tuple(mark + wanted for mark in "-._"))


def _listed(paths: Iterable[Path]) -> str:
    names = [str(path) for path in paths]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "none"
