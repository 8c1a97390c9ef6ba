"""Pools of one process share one budget, by the rule that the module states, and an error says what would fit."""

import random
import re

import pytest

from ramify.backends.local import LocalBackend
from ramify.config import EngineConfig
from ramify.engine import loading
from ramify.errors import ConfigError
from ramify.kv.sizing import PoolWish, size_pools
from tests.engine.harness import checkpoint

MIB = 2**20


def sizes(wishes, free_bytes, share=0.5, **options):
    """Blocks of each pool, the null block included."""
    return [
        budget.num_blocks for budget in size_pools(wishes, block_size=16, free_bytes=free_bytes, share=share, **options)
    ]


def test_each_pool_gets_what_the_limits_can_use_where_all_of_it_fits():
    wishes = [PoolWish(MIB, 20), PoolWish(2 * MIB, 5)]
    assert sizes(wishes, 2 * 33 * MIB) == [21, 6]
    budgets = size_pools(wishes, block_size=16, free_bytes=2 * 33 * MIB, share=0.5)
    assert [budget.limited_by for budget in budgets] == ["limits", "limits"]
    assert sizes(wishes, 2 * 33 * MIB - 2)[0] < 21


def test_where_it_does_not_each_has_room_for_as_many_tokens():
    wishes = [PoolWish(MIB, 1000), PoolWish(3 * MIB, 1000)]
    assert sizes(wishes, 2 * 84 * MIB) == [21, 21]  # 21 blocks of 4 MiB together
    budgets = size_pools(wishes, block_size=16, free_bytes=2 * 84 * MIB, share=0.5)
    assert [(budget.tokens, budget.limited_by, budget.pools) for budget in budgets] == [(320, "memory", 2)] * 2
    assert "for 2 pools together" in str(budgets[0])


def test_what_a_short_context_cannot_use_goes_to_the_others():
    wishes = [PoolWish(MIB, 1000), PoolWish(3 * MIB, 9)]
    assert sizes(wishes, 2 * 84 * MIB) == [54, 10]


def test_no_split_passes_the_budget_or_leaves_a_block_of_each_unused():
    generator = random.Random(3)
    for _ in range(300):
        wishes = [PoolWish(generator.randint(1, 50), generator.randint(1, 300)) for _ in range(generator.randint(1, 5))]
        free = generator.randint(200, 50_000)
        try:
            found = sizes(wishes, free)
        except ConfigError:
            assert sum(2 * wish.block_bytes for wish in wishes) > free // 2
            continue
        used = sum(count * wish.block_bytes for count, wish in zip(found, wishes, strict=True))
        short = [wish for count, wish in zip(found, wishes, strict=True) if count - 1 < wish.useful_blocks]
        assert used <= free // 2
        assert all(count - 1 <= wish.useful_blocks for count, wish in zip(found, wishes, strict=True))
        assert len({count for count, wish in zip(found, wishes, strict=True) if wish in short}) <= 1
        assert not short or used + sum(wish.block_bytes for wish in short) > free // 2


def test_an_error_names_the_number_that_would_fit():
    wishes = [PoolWish(MIB, 100), PoolWish(3 * MIB, 100)]
    with pytest.raises(ConfigError, match=r"num_kv_blocks=50 in each of 2 pools .* at most 24 blocks fit"):
        sizes(wishes, 100 * MIB, num_blocks=50)
    assert sizes(wishes, 100 * MIB, num_blocks=24) == [25, 25]
    with pytest.raises(ConfigError, match="raise gpu_memory_utilization to") as refused:
        sizes(wishes, 10 * MIB, share=0.5)
    least = float(re.search(r"utilization to ([0-9.]+)", str(refused.value))[1])
    assert sizes(wishes, 10 * MIB, share=least) == [2, 2]
    with pytest.raises(ConfigError, match="fewer or smaller models"):
        sizes(wishes, 7 * MIB, share=1.0)


def test_models_that_are_loaded_together_share_the_free_memory(monkeypatch):
    def block(model, element_bytes=4):
        return 2 * model.num_layers * model.num_kv_heads * model.head_dim * 16 * element_bytes

    free = 1_000_000
    monkeypatch.setattr(loading, "free_memory_bytes", lambda device: free)
    folders = [checkpoint("llama2"), checkpoint("qwen2")]
    alone = loading.load_engine(folders[0], EngineConfig())[0].kv_budget
    backend = LocalBackend.load(folders[0], models=[str(folders[1])])
    cores = [served.engine.core for served in backend._models.values()]
    budgets = [core.kv_budget for core in cores]
    assert budgets[0].tokens == budgets[1].tokens < alone.tokens
    assert sum(budget.pool_bytes for budget in budgets) <= free // 2 < alone.pool_bytes + block(cores[1].model_config)
    assert [budget.block_bytes for budget in budgets] == [block(core.model_config) for core in cores]
    assert [core.scheduler.pool.num_usable for core in cores] == [budget.num_blocks - 1 for budget in budgets]
    monkeypatch.setattr(loading, "free_memory_bytes", lambda device: 50_000)
    with pytest.raises(ConfigError, match="2 KV pools do not fit"):
        LocalBackend.load(folders[0], models=[str(folders[1])])


def test_one_pool_is_sized_as_ever():
    assert sizes([PoolWish(MIB, 100)], 50 * MIB) == [25]
    assert sizes([PoolWish(MIB, 10)], 50 * MIB) == [11]
