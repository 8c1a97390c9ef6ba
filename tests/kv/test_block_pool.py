"""The pool and the prefix cache keep their books: no leak, no double release, references equal owners."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.kv.block_pool import NULL_BLOCK, BlockPool
from ramify.kv.prefix_cache import PrefixCache, child_digest, root_digest
from ramify.kv.sizing import PoolWish, size_pools


@given(st.lists(st.tuples(st.sampled_from(["take", "share", "release"]), st.integers(0, 9)), max_size=80))
def test_references_always_equal_the_tables(actions: list[tuple[str, int]]) -> None:
    pool = BlockPool(9)
    tables: list[list[int]] = []
    for action, number in actions:
        if action == "take" and pool.num_free >= 2:
            tables.append([pool.allocate(), pool.allocate()])
        elif action == "share" and tables:
            source = tables[number % len(tables)]
            pool.share(source)
            tables.append(list(source))
        elif action == "release" and tables:
            pool.release(reversed(tables.pop(number % len(tables))))
        pool.check(tables)
        assert NULL_BLOCK not in {block for table in tables for block in table}
    for table in tables:
        pool.release(table)
    assert pool.num_free == pool.num_usable


def test_releasing_twice_is_an_error() -> None:
    pool = BlockPool(3)
    block = pool.allocate()
    pool.release([block])
    with pytest.raises(ValueError, match="nobody holds it"):
        pool.release([block])


def test_the_least_recently_released_block_is_reused_first() -> None:
    pool = BlockPool(4)
    blocks = [pool.allocate() for _ in range(3)]
    pool.release([blocks[1]])
    pool.release([blocks[0]])
    assert pool.allocate() == blocks[1]


def test_a_reused_block_is_forgotten_by_the_cache() -> None:
    cache = PrefixCache()
    pool = BlockPool(2, on_reuse=cache.forget)
    block = pool.allocate()
    cache.put(child_digest(root_digest(""), [1, 2]), block)
    assert cache.match([1, 2, 3], 2, "", 2)[0] == [block]
    pool.release([block])
    assert cache.match([1, 2, 3], 2, "", 2)[0] == [block]
    pool.allocate()
    assert cache.match([1, 2, 3], 2, "", 2)[0] == []


def test_a_prefix_is_matched_in_whole_blocks_up_to_the_limit_and_per_tenant() -> None:
    cache = PrefixCache()
    parent = root_digest("t")
    for index in range(3):
        parent = child_digest(parent, [index, index])
        cache.put(parent, index + 1)
    tokens = [0, 0, 1, 1, 2, 2, 9]
    assert cache.match(tokens, 2, "t", 6)[0] == [1, 2, 3]
    assert cache.match(tokens, 2, "t", 5)[0] == [1, 2]
    assert cache.match(tokens, 2, "other", 6)[0] == []
    assert cache.match([0, 0, 9, 9, 2, 2], 2, "t", 6)[0] == [1]
    assert cache.match([1, 1, 0, 0], 2, "t", 4)[0] == []


@given(st.integers(1, 1000), st.integers(1, 5000), st.integers(1 << 20, 1 << 34))
def test_the_pool_is_the_least_of_what_is_useful_and_what_fits(seqs: int, length: int, free: int) -> None:
    useful = seqs * -(-length // 16)
    (budget,) = size_pools([PoolWish(4096, useful)], block_size=16, free_bytes=free, share=0.5)
    assert budget.num_blocks - 1 == min(useful, free // 2 // 4096 - 1)
    assert budget.pool_bytes <= free / 2
