import httpx2


def test_the_map_has_a_letter_a_block(url: str) -> None:
    found = httpx2.get(f"{url}/v1/kv/nano").json()
    assert found["model"] == "nano"
    assert found["block_size"] == 16
    assert len(found["blocks"]) >= 32
    assert set(found["blocks"]) <= set("fchs")


def test_a_model_that_is_not_there_has_no_map(url: str) -> None:
    answer = httpx2.get(f"{url}/v1/kv/other")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
