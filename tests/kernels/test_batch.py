from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramify.kernels.batch import Chunk, lay_out, reference_lay_out


@st.composite
def chunks(draw: st.DrawFn, block_size: int) -> Chunk:
    first, rows = draw(st.integers(0, 70)), draw(st.integers(1, 40))
    tokens = list(range(first + rows + draw(st.integers(0, 3))))
    blocks = draw(st.lists(st.integers(0, 2**31 - 1), min_size=20, max_size=20))
    return tokens, blocks[: -(-len(tokens) // block_size)], first, rows


@given(st.data())
def test_a_batch_is_laid_out_as_in_numpy(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([8, 16, 64]))
    given_chunks = data.draw(st.lists(chunks(size), min_size=1, max_size=6))
    found, expected = lay_out(given_chunks, size), reference_lay_out(given_chunks, size)
    for name in ("token_ids", "positions", "slots"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    for name in ("query_start", "first_position", "table_start", "blocks"):
        assert np.array_equal(getattr(found.spans, name), getattr(expected.spans, name))


@pytest.mark.parametrize("operator", [lay_out, reference_lay_out])
@pytest.mark.parametrize("chunk", [([1, 2], [3], 1, 2), ([1] * 20, [3], 0, 17), ([1], [3], -1, 1), ([1], [3], 0, 0)])
def test_a_chunk_beyond_its_sequence_is_refused(operator: object, chunk: Chunk) -> None:
    with pytest.raises(ValueError, match="not within its sequence"):
        operator([chunk], 16)  # type: ignore[operator]
