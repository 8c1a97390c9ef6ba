"""Files that somebody broke: mutations of good ones, and what may come of loading them."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

from ramify.errors import ModelError
from ramify.models.checkpoint import open_checkpoint
from ramify.models.config import load_config
from ramify.models.products import layer_norms, layer_products

SPECIAL = (0, 1, 2, 7, 8, 9, 31, 32, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1)


def mutate(raw: bytes, head: int, rng: random.Random) -> bytes:
    """A file with one to three faults in its first `head` bytes, or cut short, or with a piece twice."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(min(head, len(data)))
        kind = rng.randrange(8)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[at : at + 8] = struct.pack("<Q", rng.choice(SPECIAL))
        elif kind == 3:
            data[at : at + 4] = struct.pack("<I", rng.choice(SPECIAL) & 0xFFFFFFFF)
        elif kind == 4:
            del data[at : at + rng.choice((1, 4, 8, 64))]
        elif kind == 5:
            data[at:at] = data[at : at + rng.choice((1, 8, 40))]
        elif kind == 6:
            del data[rng.choice((at, len(data) - 1 - at % 64)) :]
        else:
            other, size = rng.randrange(min(head, len(data))), rng.choice((4, 8, 16))
            data[at : at + size] = data[other : other + size]
        data = data or bytearray(b"\0")
    return bytes(data)


def load_everything(path: Path, also: Callable[[Path], object] = lambda path: None) -> str | None:
    """Load all that a model is made of; what was wrong with it, if anything.

    Raises:
        BaseException: anything but the errors that a broken file may give.
    """
    try:
        config = load_config(path)
        checkpoint = open_checkpoint(path, config.quantization)
        checkpoint.tensor("model.embed_tokens.weight", (config.vocab_size, config.hidden_size))
        for index in range(config.num_layers):
            prefix = f"model.layers.{index}."
            for product in layer_products(config, prefix):
                for name, rows in product.names("weight"):
                    checkpoint.quantised(name, (rows, product.columns))
                    checkpoint.tensor(name, (rows, product.columns))
            for name, size in layer_norms(config, prefix).items():
                checkpoint.tensor(name, (size,))
        checkpoint.tensor("model.norm.weight", (config.hidden_size,))
        if not config.tie_word_embeddings:
            checkpoint.tensor("lm_head.weight", (config.vocab_size, config.hidden_size))
        checkpoint.check_all_used()
        also(path)
    except ModelError as error:
        return str(error) or "an error without a word"
    return None
