"""From a model's name to its files, a folder or a GGUF file: bundled, local, or from the Hugging Face hub."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from ramify.errors import ModelNotFoundError
from ramify.models.config import CONFIG_FILE
from ramify.models.gguf.choose import choose_file, is_gguf, patterns, split_choice, starts_as_gguf
from ramify.models.gguf.shards import first_file

BUNDLED = ("nano", "nano-drafter", "nano-prm")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# What a checkpoint is made of; pickled weights and code are never fetched.
WANTED_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.tiktoken", "merges.txt", "vocab.txt")


def resolve_model(name: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The local folder of a model, or its GGUF file.

    Args:
        name: a bundled model ("nano", "nano-drafter", "nano-prm"), a folder, a GGUF file, or a hub id
            ``organisation/model``. A colon behind a folder or a hub id chooses one of its GGUF files:
            ``organisation/model:Q4_K_M`` or ``organisation/model:file.gguf``.
        revision: branch, tag or commit of a hub model.

    Raises:
        ModelNotFoundError: says where it was looked for and what to do.
    """
    text = os.fspath(name)
    if text in BUNDLED:
        return _bundled(text)
    path = Path(text).expanduser()
    if path.is_dir():
        return _local_folder(path)
    if path.is_file():
        if is_gguf(path) or starts_as_gguf(path):
            return _existing(first_file(path))
        raise ModelNotFoundError(f"{path} is a file: give a GGUF file, or the folder with config.json and the weights")
    place, choice = split_choice(text) or (text, None)
    if choice is not None and Path(place).expanduser().is_dir():
        return choose_file(Path(place).expanduser(), choice)
    if isinstance(name, os.PathLike) or not _is_hub_id(place):
        raise ModelNotFoundError(
            f"no model {text!r}: it is no bundled model ({', '.join(BUNDLED)}) and no such folder exists; "
            "give an existing folder, a GGUF file, or a hub id such as Qwen/Qwen2.5-0.5B-Instruct"
        )
    if choice is None:
        return _from_hub(place, revision, WANTED_FILES)
    return choose_file(_from_hub(place, revision, patterns(choice)), choice)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ModelNotFoundError(f"{path.parent} lacks {path.name}, the first part of the model: fetch all parts")
    return path


def _local_folder(folder: Path) -> Path:
    """The folder, or the one GGUF file in it if it holds no other weights."""
    config, weights = folder / CONFIG_FILE, (*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json"))
    if weights and config.is_file():
        return folder
    if any(is_gguf(path) for path in folder.iterdir()):
        return choose_file(folder)
    if not config.is_file():
        raise ModelNotFoundError(f"{folder} is a folder without {CONFIG_FILE} and without GGUF files: give a model's")
    return folder


def _bundled(name: str) -> Path:
    folder = Path(str(resources.files("ramify.models"))) / "bundled" / name
    if not (folder / CONFIG_FILE).is_file():
        raise ModelNotFoundError(
            f"the bundled model {name!r} is not in this installation ({folder}): install ramify anew"
        )
    return folder


def _is_hub_id(text: str) -> bool:
    """Whether a name can be a hub id; ``./x``, ``../x``, ``/x``, ``~/x`` and deeper paths are paths."""
    return HUB_ID.fullmatch(text) is not None and not text.startswith((".", "~")) and ".." not in text


def _from_hub(repository: str, revision: str | None, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    named = repository if revision is None else f"{repository} at revision {revision}"
    tried = f"no folder {repository!r} exists, and from the Hugging Face hub"
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))
    except GatedRepoError as error:
        raise ModelNotFoundError(f"{named} is gated: accept its terms on its page, then `hf auth login`") from error
    except RevisionNotFoundError as error:
        raise ModelNotFoundError(f"{repository} has no revision {revision!r}: name a branch, tag or commit") from error
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"{tried} {named} is not to be had: check the spelling, or log in with `hf auth login` if it is private"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelNotFoundError(
            f"{tried} {named} could not be fetched ({type(error).__name__}: {_first_line(error)}): go online and try "
            "again, or fetch it elsewhere with `hf download` and give the folder"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no detail").splitlines()[0]
