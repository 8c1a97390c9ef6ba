"""Keys: who may call, what each may do, and what is kept of them."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ramify.cli.main import app
from ramify.errors import ConfigError, RequestError
from ramify.serving.auth import Caller, digest_of, new_token, presented_token
from ramify.serving.config import ServerConfig
from ramify.serving.errors import ApiError
from ramify.serving.keys import KeyLimits, Keys
from ramify.serving.storage import Storage

MODELS = {"nano": "nano"}


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    made = Storage(":memory:")
    await made.start()
    yield made
    await made.close()


async def test_without_keys_everybody_is_anonymous_and_with_one_nobody_else_comes_in(storage: Storage) -> None:
    keys = Keys(ServerConfig(MODELS), storage)
    assert keys.identify(None) == keys.identify(b"anything") == Caller()
    token, _ = await keys.create("alice")
    assert keys.identify(token.encode()).name == "alice"
    for wrong in (None, b"", b"anything", token.encode()[:-1], token.encode() + b"x", token.upper().encode()):
        with pytest.raises(ApiError) as refused:
            keys.identify(wrong)
        assert refused.value.status == 401


async def test_a_revoked_or_expired_key_is_refused_and_the_server_stays_closed(storage: Storage) -> None:
    keys = Keys(ServerConfig(MODELS), storage)
    alice, _ = await keys.create("alice")
    bob, _ = await keys.create("bob", expires_at=time.time() + 0.05)
    assert await keys.revoke("alice")
    assert not await keys.revoke("alice")
    time.sleep(0.06)
    for token in (alice, bob):
        with pytest.raises(ApiError):
            keys.identify(token.encode())
    with pytest.raises(ApiError):
        keys.identify(None)
    with pytest.raises(ApiError):
        keys.caller_named("alice")


async def test_a_server_takes_up_keys_that_another_process_makes(storage: Storage) -> None:
    serving, other = Keys(ServerConfig(MODELS), storage), Keys(ServerConfig(MODELS), storage)
    token, _ = await other.create("alice")
    await serving.refresh()
    assert serving.identify(token.encode()).name == "alice"
    await other.revoke("alice")
    await serving.refresh()
    with pytest.raises(ApiError):
        serving.identify(token.encode())


async def test_rates_go_on_when_keys_are_read_again(storage: Storage) -> None:
    keys = Keys(ServerConfig(MODELS), storage)
    token, _ = await keys.create("alice", limits=KeyLimits(requests_per_minute=1))
    keys.identify(token.encode()).rates.take_request()
    await keys.refresh()
    with pytest.raises(ApiError) as refused:
        keys.identify(token.encode()).rates.take_request()
    assert refused.value.status == 429


async def test_a_caller_has_the_limits_of_its_key_and_the_salt_of_its_tenant(storage: Storage) -> None:
    keys = Keys(ServerConfig(MODELS, api_key=("a-configured-key",)), storage)
    limits = KeyLimits(models=("nano",), min_priority=-1)
    one = keys.identify((await keys.create("one", "tenant", limits))[0].encode())
    two = keys.identify((await keys.create("two", "tenant"))[0].encode())
    other = keys.identify((await keys.create("other"))[0].encode())
    configured = keys.identify(b"a-configured-key")
    assert one.owner == two.owner == "tenant"
    assert one.cache_salt == two.cache_salt
    assert len({one.cache_salt, other.cache_salt, configured.cache_salt, Caller().cache_salt}) == 4
    assert one.may_use("nano")
    assert not one.may_use("nano-prm")
    assert other.may_use("anything")
    one.check_priority(-1)
    with pytest.raises(ApiError):
        one.check_priority(-2)
    assert keys.caller_named("one") == one
    assert keys.caller_named(configured.name) == configured


async def test_keys_are_compared_in_constant_time_and_all_of_them_whichever_fits(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = Keys(ServerConfig(MODELS, api_key=("first-configured-key", "second-configured-key")), storage)
    token, _ = await keys.create("alice")
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def counted(one: bytes, two: bytes) -> bool:
        compared.append((one, two))
        return compare(one, two)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for sent in (b"first-configured-key", token.encode(), b"second-configured-key"):
        compared.clear()
        keys.identify(sent)
        assert len(compared) == 3
        assert {len(each) for pair in compared for each in pair} == {32}  # digests, never the keys


async def test_only_a_hash_of_a_key_is_at_rest(tmp_path: Path) -> None:
    path = tmp_path / "server.db"
    storage = Storage(str(path))
    await storage.start()
    token, stored = await Keys(ServerConfig(MODELS), storage).create("alice")
    await storage.close()
    assert stored.digest == digest_of(token.encode())
    at_rest = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert stored.digest in at_rest
    assert token.encode() not in at_rest
    assert token.removeprefix("rmf-").encode() not in at_rest


def test_tokens_are_long_and_never_the_same() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(token.startswith("rmf-") and len(token) >= 46 for token in tokens)


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([(b"authorization", b"Bearer abc")], b"abc"),
        ([(b"authorization", b"bearer  abc ")], b"abc"),
        ([(b"x-api-key", b"abc")], b"abc"),
        ([(b"x-api-key", b"abc"), (b"authorization", b"Bearer abc")], b"abc"),
        ([(b"cookie", b"abc")], None),
        ([(b"authorization", b"Basic abc")], None),
        ([(b"authorization", b"Bearer ")], None),
        ([(b"authorization", b"abc")], None),
        ([], None),
    ],
)
def test_a_key_comes_in_either_header(headers: list[tuple[bytes, bytes]], token: bytes | None) -> None:
    assert presented_token(headers) == token


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")],
        [(b"authorization", b"Bearer a"), (b"x-api-key", b"b")],
    ],
)
def test_two_different_keys_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ApiError):
        presented_token(headers)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "ä", "a" * 65, "anonymous", "a\n"])
async def test_names_of_keys_are_plain(name: str, storage: Storage) -> None:
    with pytest.raises(RequestError):
        await Keys(ServerConfig(MODELS), storage).create(name)


async def test_a_name_is_taken_once(storage: Storage) -> None:
    keys = Keys(ServerConfig(MODELS), storage)
    await keys.create("alice")
    with pytest.raises(RequestError):
        await keys.create("alice")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "two words\n"])
async def test_a_key_file_without_a_key_never_opens_the_server(text: str, tmp_path: Path, storage: Storage) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ConfigError):
        Keys(ServerConfig(MODELS, api_key_file=str(file)), storage)
    with pytest.raises(ConfigError):
        Keys(ServerConfig(MODELS, api_key_file=str(tmp_path / "missing")), storage)


async def test_a_key_file_holds_one_key_a_line(tmp_path: Path, storage: Storage) -> None:
    file = tmp_path / "keys"
    file.write_text("# people\nkey-of-somebody-1\n\n  key-of-somebody-2  \n")
    keys = Keys(ServerConfig(MODELS, api_key_file=str(file)), storage)
    assert keys.identify(b"key-of-somebody-1") != keys.identify(b"key-of-somebody-2")


def test_the_command_makes_lists_and_revokes_keys(tmp_path: Path) -> None:
    def ramify(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["keys", *arguments, "--storage-url", str(tmp_path / "s.db")])
        assert done.exit_code == 0, done.output
        return done.stdout

    token = ramify("create", "alice", "--requests-per-minute", "5", "--model", "nano", "--days", "1").strip()
    assert token.startswith("rmf-")
    made = json.loads(ramify("create", "bob", "--json"))
    assert made["key"].startswith("rmf-")
    assert made["owner"] == "bob"
    ramify("revoke", "bob")
    listed = [json.loads(line) for line in ramify("list", "--json").splitlines()]
    assert [(each["name"], each["state"].split()[0]) for each in listed] == [("alice", "good"), ("bob", "revoked")]
    assert listed[0]["models"] == ["nano"]
    assert listed[0]["requests_per_minute"] == 5
    assert "rmf-" not in ramify("list")
    done = CliRunner().invoke(app, ["keys", "revoke", "nobody", "--storage-url", str(tmp_path / "s.db")])
    assert done.exit_code == 2
    assert CliRunner().invoke(app, ["keys", "create", "x", "--requests-per-minute", "0"]).exit_code == 2
