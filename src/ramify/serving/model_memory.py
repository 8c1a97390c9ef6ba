"""How much memory each model of a server takes, known before it is loaded: its weights and its KV pool, as a sum.

Models share one budget. Their pools are sized together, so that several engines of one machine do not each take what
is free: if all configured models fit, each pool gets room for the same number of tokens, and an equal part of the
memory is left for reward models and drafters that methods ask for; if not, they take turns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ramify.config import EngineConfig
from ramify.errors import CheckpointError, ConfigError
from ramify.kv.sizing import PoolWish, size_pools
from ramify.models.config import ModelConfig, load_config
from ramify.models.hub import resolve_model

Kind = Literal["generate", "reward", "embed"]
SHARE_OF_FREE = {"cpu": 0.8, "cuda": 0.9}
"""Part of the free memory that models may take by default; on a CPU the server itself and others live there too."""
_ALONE = 0.5
"""Part of what its weights leave that the pool of a model may take where not all models fit together."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model before it is loaded.

    Attributes:
        folder: of its checkpoint.
        config: its shape and options.
        max_model_len: tokens of prompt and answer together.
        weight_bytes: its weights in the number format that they will have.
        wish: what its pool is made of, and how much of it could be used.
    """

    folder: Path
    config: ModelConfig
    max_model_len: int
    weight_bytes: int
    wish: PoolWish

    @property
    def kind(self) -> Kind:
        """What it is good for."""
        if self.config.embeds:
            return "embed"
        return "reward" if self.config.reward is not None or self.config.head != "vocabulary" else "generate"


def read_facts(source: str, engine: EngineConfig) -> ModelFacts:
    """Look at a model; a hub id is fetched. Slow: call it on a thread.

    Raises:
        ModelError, ConfigError: see `load_engine`.
    """
    from ramify.engine.loading import kv_block_bytes, pick_device, pick_dtype, pick_max_model_len

    folder = resolve_model(source, engine.revision)
    config = load_config(folder)
    dtype = pick_dtype(engine, config, pick_device(engine))
    length = pick_max_model_len(engine, config)
    wish = PoolWish(kv_block_bytes(engine, config, dtype), engine.max_num_seqs * -(-length // engine.block_size))
    return ModelFacts(folder, config, length, weight_bytes(folder, config, dtype.itemsize), wish)


def weight_bytes(path: Path, config: ModelConfig, itemsize: int) -> int:
    """Memory of a model's weights: floats in the number format that they will have, codes as large as their file."""
    stored = config.quantization
    if path.is_file():
        from ramify.models.gguf.shards import read_model
        from ramify.models.gguf.types import FLOATS

        tensors = [tensor for file in read_model(path) for tensor in file.tensors.values()]
        return sum(math.prod(t.shape) * itemsize if t.type.name in FLOATS else t.num_bytes for t in tensors)
    if stored is None or stored.layout == "float8":
        return count_weights(path) * itemsize
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))


def count_weights(folder: Path) -> int:
    """Numbers in the safetensors files of a checkpoint, from their headers."""
    return sum(math.prod(shape) for path in sorted(folder.glob("*.safetensors")) for shape in _shapes(path))


def _shapes(path: Path) -> list[list[int]]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError(f"its header claims {length} bytes")
            header = json.loads(file.read(length))
        return [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is corrupt or truncated ({error}): fetch the file again") from error


class MemoryPlan:
    """Who gets how much.

    Args:
        budget_bytes: for all models together.
        configured: models that are served.
        engine: options of every engine; a `num_kv_blocks` in them is the size of every pool.
    """

    def __init__(self, budget_bytes: int, configured: Sequence[ModelFacts], engine: EngineConfig) -> None:
        self.budget_bytes = budget_bytes
        self._engine = engine
        self._parts = len(configured) + 1
        self._left_bytes = budget_bytes - sum(facts.weight_bytes for facts in configured)
        self._blocks: dict[Path, int] = {}
        try:
            shares = self._size(configured, self._left_bytes, len(configured) / self._parts)
        except ConfigError:
            return  # they take turns
        self._blocks = {facts.folder: blocks for facts, blocks in zip(configured, shares, strict=True)}

    def num_blocks(self, facts: ModelFacts) -> int:
        """Blocks of a model's KV pool.

        Raises:
            ConfigError: not one fits; says what would.
        """
        if self._engine.num_kv_blocks is not None:
            return self._engine.num_kv_blocks
        if facts.folder in self._blocks:
            return self._blocks[facts.folder]
        if self._blocks:
            try:
                return self._size([facts], self._left_bytes // self._parts - facts.weight_bytes, 1.0)[0]
            except ConfigError:
                pass  # the configured models leave it no room: it takes turns with them
        return self._size([facts], self.budget_bytes - facts.weight_bytes, _ALONE)[0]

    def bytes_of(self, facts: ModelFacts) -> int:
        """What a model takes: weights and pool, with the pool's null block.

        Raises:
            ConfigError: it can never fit.
        """
        weights = facts.weight_bytes
        needed = weights + (self.num_blocks(facts) + 1) * facts.wish.block_bytes
        if needed > self.budget_bytes:
            raise ConfigError(
                f"{facts.folder.name} needs {_mib(needed)} ({_mib(weights)} of it weights) and models may take "
                f"{_mib(self.budget_bytes)}: raise model_memory_gib to {needed / 2**30:.2f} or more, "
                "or lower num_kv_blocks"
            )
        return needed

    def _size(self, models: Sequence[ModelFacts], free_bytes: int, share: float) -> list[int]:
        if free_bytes <= 0:
            raise ConfigError(
                f"the weights do not fit: models may take {_mib(self.budget_bytes)}: raise model_memory_gib"
            )
        wishes = [facts.wish for facts in models]
        budgets = size_pools(wishes, block_size=self._engine.block_size, free_bytes=free_bytes, share=share)
        return [budget.num_blocks - 1 for budget in budgets]


def default_budget_bytes(engine: EngineConfig) -> int:
    """Memory for models where the options name none: most of what is free now."""
    from ramify.engine.loading import pick_device
    from ramify.kv.sizing import free_memory_bytes

    device = pick_device(engine)
    return int(free_memory_bytes(str(device)) * SHARE_OF_FREE[device.type])


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB"
