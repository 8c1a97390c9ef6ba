"""The cache of packed weights: made once a checkpoint and format, mapped ever after.

An entry's key is a hash of the checkpoint's content, the format with its options and the layout, so nothing ever has
to be invalidated. Hashing gigabytes takes seconds; the hash of a file is therefore remembered with its size, time and
inode. Entries that were not used for longest are removed where the cache would pass its bound.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path

CACHE_VARIABLE = "RAMIFY_CACHE"
MAX_CACHE_BYTES = 20 * 2**30
_SUFFIX = ".safetensors"
_CHUNK_BYTES = 1 << 22
_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """`RAMIFY_CACHE`, else ``ramify`` in `XDG_CACHE_HOME` or ``~/.cache``."""
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "ramify"


def weights_folder() -> Path:
    """Where packed weights lie."""
    return cache_folder() / "weights"


def entry_path(files: Iterable[Path], *parts: str) -> Path:
    """The place of the entry that is made of these files by what `parts` say.

    Raises:
        OSError: a file cannot be read.
    """
    key = hashlib.blake2b(digest_size=20)
    for file in files:
        key.update(f"{file.name}\0{_content_hash(file)}\0".encode())
    for part in parts:
        key.update(part.encode() + b"\0")
    return weights_folder() / (key.hexdigest() + _SUFFIX)


def touch(entry: Path) -> None:
    """Note that an entry is in use."""
    try:
        os.utime(entry)
    except OSError as error:  # a cache on a read-only disk serves all the same
        _log.debug("%s: %s", entry, error)


def trim(keep: Path, most_bytes: int = MAX_CACHE_BYTES) -> None:
    """Remove the entries that were not used for longest until the rest is within the bound; never `keep`."""
    found = []
    for path in weights_folder().glob("*" + _SUFFIX):
        try:
            found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        except FileNotFoundError:
            continue  # another process removed it
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= most_bytes:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            total -= size


def clear() -> int:
    """Remove everything that was cached; running engines keep what they have mapped. Returns the bytes set free."""
    freed = 0
    for path in [*weights_folder().glob("*"), *_hashes_folder().glob("*")]:
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            continue
        freed += size
    return freed


def cached_bytes() -> int:
    """Bytes of all entries."""
    return sum(path.stat().st_size for path in weights_folder().glob("*" + _SUFFIX))


def _hashes_folder() -> Path:
    return cache_folder() / "hashes"


def _content_hash(file: Path) -> str:
    file = file.resolve()
    stat = file.stat()
    identity = f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ino}\0{stat.st_dev}"
    note = _hashes_folder() / hashlib.blake2b(identity.encode(), digest_size=20).hexdigest()
    try:
        known = note.read_text(encoding="ascii")
        if len(known) == 40:
            return known
    except (OSError, UnicodeDecodeError):
        pass  # not known yet: it is worked out below
    digest = hashlib.blake2b(digest_size=20)
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            digest.update(chunk)
    _remember(note, digest.hexdigest())
    return digest.hexdigest()


def _remember(note: Path, text: str) -> None:
    temporary = note.with_name(f".{note.name}.{os.getpid()}.part")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="ascii")
        temporary.replace(note)
    except OSError as error:
        _log.info("the hash of a checkpoint is not remembered, so the next start works it out again: %s", error)
