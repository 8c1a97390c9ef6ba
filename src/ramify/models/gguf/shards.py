"""Models in several GGUF files: ``name-00001-of-00003.gguf`` and so on, the metadata in the first."""

from __future__ import annotations

import re
from pathlib import Path

from ramify.errors import CheckpointError
from ramify.models.gguf.reader import GgufFile, read_gguf

_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def first_file(path: Path) -> Path:
    """The file with the metadata: `path` itself, or the first shard of the model that it is a shard of."""
    found = _SHARD.fullmatch(path.name)
    return path if found is None else path.with_name(f"{found['stem']}-00001-of-{found['count']}.gguf")


def read_model(path: Path) -> list[GgufFile]:
    """Open a file, or all shards of the model that it is a shard of, the one with the metadata first.

    Raises:
        CheckpointError: a shard is missing, the shards do not belong together; else as `read_gguf`.
    """
    found = _SHARD.fullmatch(path.name)
    if found is None:
        file = read_gguf(path)
        count = file.metadata.get("split.count", 0)
        if count not in (0, 1):
            raise CheckpointError(
                f"{path} is one of {count!s:.20} parts of a model: keep their names (like name-00001-of-00003.gguf), "
                "by which the others are found"
            )
        return [file]
    count = int(found["count"])
    paths = [path.with_name(f"{found['stem']}-{index:05d}-of-{count:05d}.gguf") for index in range(1, count + 1)]
    missing = [each.name for each in paths if not each.is_file()]
    if missing or not paths:
        raise CheckpointError(f"{path.parent} lacks {len(missing)} of {count} parts of {path.name}: {missing[:3]}")
    files = [read_gguf(each) for each in paths]
    names = [name for file in files for name in file.tensors]
    if len(set(names)) != len(names):
        raise CheckpointError(f"{path} and its other parts hold a tensor twice: they do not belong together")
    if len(names) != files[0].metadata.get("split.tensors.count", len(names)):
        raise CheckpointError(f"{path} and its other parts hold {len(names)} tensors, not as many as the first says")
    return files
