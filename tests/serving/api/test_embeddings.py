"""/v1/embeddings through OpenAI's own client."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
import torch
import transformers

from ramify.serving.dispatch import answer
from ramify.text.tokenizer import load_tokenizer
from tests.checkpoints import make_checkpoint
from tests.serving.in_process import serving_in_process

TEXTS = ["Tom has 12 apples.", "The quick brown fox", "a", "Each box holds 24 eggs; 3 boxes hold 72 eggs. " * 4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding model whose vectors may be cut."""
    path = tmp_path_factory.mktemp("embedder")
    return make_checkpoint(path, "qwen3", head="Model", matryoshka_dimensions=[8, 16])


@pytest.fixture
async def served(folder: Path) -> AsyncIterator[tuple[openai.AsyncOpenAI, Any]]:
    options = {"num_kv_blocks": 100, "max_num_seqs": 8}
    models = {"embedder": str(folder), "nano": "nano", "nano-prm": "nano-prm"}
    async with (
        serving_in_process(models, engine=options) as (url, server),
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client, server


def expected(folder: Path) -> list[np.ndarray]:
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = load_tokenizer(folder)
    with torch.inference_mode():
        rows = [model(torch.tensor([tokenizer.encode(text)])).last_hidden_state[0, -1] for text in TEXTS]
    return [torch.nn.functional.normalize(row, dim=0).numpy() for row in rows]


async def test_vectors_agree_with_transformers_in_every_form(served: Any, folder: Path) -> None:
    client, server = served
    tokenizer = load_tokenizer(folder)
    ids = [list(tokenizer.encode(text)) for text in TEXTS]
    whole = await client.embeddings.create(model="embedder", input=TEXTS)  # the client asks for base64
    vectors = np.array([entry.embedding for entry in whole.data])
    assert [entry.index for entry in whole.data] == [0, 1, 2, 3]
    assert np.abs(vectors - np.array(expected(folder))).max() < 1e-5
    assert whole.usage.prompt_tokens == whole.usage.total_tokens == sum(map(len, ids))
    floats = await client.embeddings.create(model="embedder", input=ids, encoding_format="float")
    assert np.array_equal(np.array([entry.embedding for entry in floats.data], np.float32), vectors.astype(np.float32))
    for given, place in ((TEXTS[0], 0), (ids[1], 1)):
        one = await client.embeddings.create(model="embedder", input=given)
        assert np.array_equal(one.data[0].embedding, vectors[place])
    short = await client.embeddings.create(model="embedder", input=TEXTS, dimensions=8)
    cut = vectors[:, :8] / np.linalg.norm(vectors[:, :8], axis=1, keepdims=True)
    assert np.abs(np.array([entry.embedding for entry in short.data]) - cut).max() < 1e-6
    batch = await answer(server, _anonymous(), "/v1/embeddings", {"model": "embedder", "input": TEXTS}, "line-1")
    assert np.array_equal(
        np.array([each["embedding"] for each in json.loads(bytes(batch["data"]))], np.float32), vectors
    )
    generative = await client.embeddings.create(model="nano", input=TEXTS)
    assert np.linalg.norm([entry.embedding for entry in generative.data], axis=1) == pytest.approx(1, abs=1e-5)


def _anonymous() -> Any:
    from ramify.serving.auth import Caller

    return Caller()


async def test_base64_is_of_little_endian_floats(served: Any) -> None:
    client, _ = served
    body = {"model": "embedder", "input": "a", "encoding_format": "base64"}
    async with httpx2.AsyncClient() as http:
        sent = await http.post(f"{client.base_url}embeddings", json=body)
        plain = await http.post(f"{client.base_url}embeddings", json={**body, "encoding_format": "float"})
    decoded = np.frombuffer(base64.b64decode(sent.json()["data"][0]["embedding"]), "<f4")
    assert np.array_equal(decoded, np.array(plain.json()["data"][0]["embedding"], np.float32))


REFUSED = [
    ({"model": "nano-prm", "input": "a"}, "gives no vectors"),
    ({"model": "nano", "input": "a", "dimensions": 8}, "may be cut"),
    ({"model": "embedder", "input": "a", "dimensions": 9}, "8, 16"),
    ({"model": "embedder", "input": []}, "at least 1"),
    ({"model": "embedder", "input": ""}, "empty"),
    ({"model": "embedder", "input": ["a", ""]}, "empty"),
    ({"model": "embedder", "input": [1, 99_999]}, "token id 99999"),
    ({"model": "embedder", "input": [-1]}, "greater than or equal to 0"),
    ({"model": "embedder", "input": ["x"] * 2049}, "2,048"),
    ({"model": "embedder", "input": "a " * 600}, "context is 512"),
    ({"model": "embedder", "input": "a", "encoding_format": "hex"}, "encoding_format"),
    ({"model": "embedder", "input": "a", "truncate_prompt_tokens": 4}, "truncate_prompt_tokens"),
    ({"model": "embedder", "input": "a", "pooling": "mean"}, "pooling"),
]


async def test_what_cannot_be_embedded_is_refused(served: Any) -> None:
    client, _ = served
    async with httpx2.AsyncClient() as http:
        for body, words in REFUSED:
            response = await http.post(f"{client.base_url}embeddings", json=body)
            assert response.status_code == 400, (body, response.text)
            assert words in response.json()["error"]["message"]


async def test_a_client_that_leaves_frees_everything(served: Any) -> None:
    client, server = served
    async with server.models.use("embedder", _anonymous()) as model:
        core = model.engine.core
    async with httpx2.AsyncClient() as http:
        body = {"model": "embedder", "input": [f"{i} " * 200 for i in range(1000)]}
        with pytest.raises(httpx2.ReadTimeout):
            await http.post(f"{client.base_url}embeddings", json=body, timeout=0.2)
    while core.has_work():
        await asyncio.sleep(0.01)
    assert core.num_free_blocks == core.scheduler.pool.num_usable
    assert core.counters.prompt < 1000 * 200
    assert (await client.embeddings.create(model="embedder", input="a")).data
