"""Forms that clients send, in plain calls and to methods: a bad one is a 400 of its own request, whatever it does."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2

from tests.serving.in_process import serving_in_process

NESTED = "(" * 10_000 + "a" + ")" * 10_000
CHAIN = "start: r0\n" + "".join(f'r{i}: "a" r{i + 1}\n' for i in range(2_500)) + 'r2500: "b"'
DOUBLED = "start: r0\n" + "".join(f"r{i}: r{i + 1} r{i + 1}\n" for i in range(1_500)) + 'r1500: "b" | ""'
BAD: list[tuple[dict[str, Any], str]] = [
    ({"regex": NESTED}, "regex cannot be used"),
    ({"regex": "[a"}, "unclosed"),
    ({"grammar": DOUBLED}, "too much work"),
    ({"json": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
    ({"json": {"enum": [f"name {i:09}" for i in range(10_000)]}}, "use at most 65,536"),
]


async def test_bad_forms_are_refused_and_others_are_served_meanwhile() -> None:
    async with (
        serving_in_process({"nano": "nano"}, engine={"num_kv_blocks": 200}) as (url, server),
        httpx2.AsyncClient(base_url=url, timeout=60) as client,
    ):
        plain = {"model": "nano", "prompt": "12 + 7 =", "max_tokens": 60, "seed": 1, "ignore_eos": True}
        alone = (await client.post("/v1/completions", json=plain)).json()["choices"][0]["text"]
        asked = [{**plain, "ignore_eos": False, "structured_outputs": form} for form, _ in BAD]
        streamed = [{**body, "stream": True} for body in asked]
        methods = [
            {
                "model": "nano",
                "prompt": "12 + 7 =",
                "ramify": {"strategy": "smc-steering", "params": {"n": 2, **form}, "budget": {"tokens": 100}},
            }
            for form, _ in BAD[:3]
        ]
        words = [*(word for _, word in BAD), *(word for _, word in BAD), *(word for _, word in BAD[:3])]
        calls = [client.post("/v1/completions", json=body) for body in (*asked, *streamed, *methods)]
        deep = {**plain, "ignore_eos": False, "structured_outputs": {"grammar": CHAIN}}  # can be read, and is followed
        *refused, crowded, followed = await asyncio.gather(
            *calls, client.post("/v1/completions", json=plain), client.post("/v1/completions", json=deep)
        )
        for response, word in zip(refused, words, strict=True):
            assert response.status_code == 400, response.text
            assert word in response.json()["error"]["message"]
        assert crowded.json()["choices"][0]["text"] == alone
        assert set(followed.json()["choices"][0]["text"]) == {"a"}
        process = server.forms._process
        assert process is not None
    assert process.returncode is not None  # it ends with the server
