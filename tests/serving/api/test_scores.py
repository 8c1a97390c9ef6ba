"""/v1/score and /v1/rerank: the scores are those of the models themselves."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
import transformers

from ramify.backends.base import Node
from ramify.backends.local import LocalBackend
from ramify.randomness import BranchKey
from ramify.serving.auth import Caller
from ramify.serving.dispatch import answer
from ramify.text.tokenizer import load_tokenizer
from tests.checkpoints import make_checkpoint
from tests.serving.in_process import serving_in_process

QUESTION = "Use the numbers 3, 7 and 4 to make 25. Use every number exactly once."
ANSWERS = ["3 * 7 = 21\n21 + 4 = 25\n#### 3 * 7 + 4", "3 + 7 = 12\n12 + 4 = 17\n#### 3 + 7 + 4", "7"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An outcome reward model with one raw score, one with two classes, and an embedding model."""
    folder = tmp_path_factory.mktemp("models")
    labels = {"head": "ForSequenceClassification", "num_labels": 2, "id2label": {0: "bad", 1: "good"}}
    return {
        "raw": make_checkpoint(folder / "raw", "qwen2", head="ForSequenceClassification", num_labels=1),
        "classes": make_checkpoint(folder / "classes", "qwen2", seed=1, **labels),
        "embedder": make_checkpoint(folder / "embedder", "qwen3", head="Model"),
    }


@pytest.fixture
async def served(folders: dict[str, Path]) -> AsyncIterator[tuple[httpx2.AsyncClient, Any]]:
    models = {"nano": "nano", "nano-prm": "nano-prm", **{name: str(path) for name, path in folders.items()}}
    options = {"num_kv_blocks": 100, "max_num_seqs": 8}
    async with (
        serving_in_process(models, engine=options) as (url, server),
        httpx2.AsyncClient(base_url=url) as client,
    ):
        yield client, server


async def test_a_process_reward_model_scores_each_step_and_its_last_one_stands_for_the_answer(served: Any) -> None:
    client, server = served
    body = {"model": "nano-prm", "text_1": QUESTION, "text_2": ANSWERS[:2]}
    scored = (await client.post("/v1/score", json=body)).json()
    async with LocalBackend.load("nano", ["nano-prm"]) as backend:
        root = await backend.root(QUESTION, BranchKey.root(0))
        nodes = [
            Node(
                root.key.child(i),
                root,
                backend.encode(text),
                text,
                root.prompt_tokens,
                finish_reason="stop",
                handle=root.handle,
            )
            for i, text in enumerate(ANSWERS[:2])
        ]
        expected = await backend.reward(nodes, "nano-prm")
    assert [each["step_scores"] for each in scored["data"]] == [list(each.scores) for each in expected]
    assert [len(each["step_scores"]) for each in scored["data"]] == [3, 3]
    assert [each["score"] for each in scored["data"]] == [each.scores[-1] for each in expected]
    assert scored["score_kind"] == "probability"
    assert scored["usage"]["prompt_tokens"] == sum(each.num_tokens for each in expected)
    talk = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWERS[1]}]
    again = (await client.post("/score", json={"model": "nano-prm", "messages": talk})).json()
    assert again["data"][0]["step_scores"] == scored["data"][1]["step_scores"]
    several = (await client.post("/v1/score", json={"model": "nano-prm", "conversations": [talk, talk]})).json()
    assert [each["score"] for each in several["data"]] == [scored["data"][1]["score"]] * 2
    line = await answer(server, Caller(), "/v1/score", body, "score-1")
    assert line["data"] == scored["data"]


@pytest.mark.parametrize("name", ["raw", "classes"])
async def test_an_outcome_reward_model_agrees_with_transformers(
    name: str, served: Any, folders: dict[str, Path]
) -> None:
    client, _ = served
    tokenizer = load_tokenizer(folders[name])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folders[name], dtype=torch.float32).eval()
    expected = []
    for text in ANSWERS:
        talk = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": text}]
        with torch.inference_mode():
            ids = torch.tensor([tokenizer.chat_ids(talk, add_generation_prompt=False)])
            logits = model.score(model.model(ids).last_hidden_state[0, -1])
        expected.append(float(logits[0] if name == "raw" else torch.softmax(logits, -1)[1]))
    scored = (await client.post("/v1/score", json={"model": name, "queries": QUESTION, "documents": ANSWERS})).json()
    assert [each["score"] for each in scored["data"]] == pytest.approx(expected, abs=1e-4)
    assert scored["score_kind"] == ("raw" if name == "raw" else "probability")
    assert "step_scores" not in scored["data"][0]
    for path in ("/v1/rerank", "/rerank", "/v2/rerank"):
        ranking = (await client.post(path, json={"model": name, "query": QUESTION, "documents": ANSWERS})).json()
        order = [each["index"] for each in ranking["results"]]
        assert order == np.argsort(-np.array(expected)).tolist()
        assert [each["document"]["text"] for each in ranking["results"]] == [ANSWERS[i] for i in order]
    best = {"model": name, "query": QUESTION, "documents": [{"text": ANSWERS[0]}, *ANSWERS[1:]], "top_n": 1}
    top = (await client.post("/v1/rerank", json={**best, "return_documents": False})).json()
    assert [set(each) for each in top["results"]] == [{"index", "relevance_score"}]
    assert top["results"][0]["relevance_score"] == pytest.approx(max(expected), abs=1e-4)


async def test_an_embedding_model_compares_texts(served: Any) -> None:
    client, _ = served
    sent = await client.post("/v1/embeddings", json={"model": "embedder", "input": [QUESTION, *ANSWERS]})
    question, *answers = np.array([each["embedding"] for each in sent.json()["data"]])
    body = {"model": "embedder", "text_1": QUESTION, "text_2": ANSWERS}
    scored = (await client.post("/v1/score", json=body)).json()
    assert [each["score"] for each in scored["data"]] == pytest.approx([question @ each for each in answers], abs=1e-5)
    assert scored["score_kind"] == "cosine"


async def test_what_cannot_be_scored_is_refused_and_leaves_nothing_behind(served: Any) -> None:
    client, server = served
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    refused = [
        ({"model": "nano", "text_1": "a", "text_2": "b"}, "a reward or an embedding model"),
        ({"model": "embedder", "messages": talk}, "needs a reward model"),
        ({"model": "raw"}, "text_1 and text_2"),
        ({"model": "raw", "text_1": "a"}, "give both"),
        ({"model": "raw", "text_1": "a", "text_2": "b", "messages": talk}, "or messages"),
        ({"model": "raw", "text_1": ["a", "b"], "text_2": ["c"]}, "2 texts and text_2 has 1"),
        ({"model": "raw", "text_1": "a", "text_2": ["b"] * 3000}, "2,048 at most"),
        ({"model": "raw", "text_1": "a", "text_2": ""}, "answer to be scored is empty"),
        ({"model": "raw", "messages": talk[:1]}, "end the messages with it"),
        ({"model": "raw", "text_1": "a", "text_2": ["b", "c " * 900]}, "context is 512"),
        ({"model": "nano-prm", "text_1": "a " * 600, "text_2": "b"}, "context is"),
        ({"model": "raw", "text_1": "a", "text_2": "b", "softmax": True}, "softmax"),
    ]
    for body, words in refused:
        response = await client.post("/v1/score", json=body)
        assert response.status_code == 400, (body, response.text)
        assert words in response.json()["error"]["message"], (words, response.text)
    wrong = await client.post("/v1/rerank", json={"model": "raw", "query": "a", "documents": []})
    assert wrong.status_code == 400
    for name in ("raw", "nano-prm"):
        async with server.models.use(name, Caller()) as model:
            core = model.engine.core
        assert not core._sequences
        assert core.num_free_blocks == core.scheduler.pool.num_usable
        assert json.loads((await client.post("/v1/score", json={"model": name, "messages": talk})).text)["data"]
