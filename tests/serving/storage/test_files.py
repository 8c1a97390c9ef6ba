"""Files: content comes back, owners are apart, quotas hold, what is unfinished is invisible and swept."""

from __future__ import annotations

import random

import pytest

from ramify.errors import QuotaError, RequestError, StorageError
from ramify.serving.storage import Storage
from tests.serving.storage.conftest import Clock
from tests.serving.storage.helpers import content_of, never, put_batch, put_file


async def test_a_files_content_comes_back_whatever_pieces_it_was_written_in(storage: Storage) -> None:
    content = random.Random(0).randbytes(2_500_000)
    writer = await storage.files.writer("ada")
    for start in range(0, len(content), 700_001):
        await writer.write(content[start : start + 700_001])
    file = await writer.finish("näme.bin", "user_data")
    assert file.num_bytes == len(content)
    assert await storage.files.get("ada", file.id) == file
    assert await content_of(storage, file) == content


async def test_an_empty_file_is_a_file(storage: Storage) -> None:
    file = await put_file(storage, b"", purpose="user_data")
    assert (file.num_bytes, await content_of(storage, file)) == (0, b"")


async def test_an_owner_sees_no_other_owners_files(storage: Storage) -> None:
    file = await put_file(storage)
    assert await storage.files.get("bob", file.id) is None
    assert not (await storage.files.list("bob")).items
    assert not await storage.files.delete("bob", file.id)
    with pytest.raises(RequestError):
        await storage.files.list("bob", after=file.id)
    assert await storage.files.get("ada", file.id) == file


async def test_pages_go_through_a_list_in_both_orders(storage: Storage) -> None:
    files = [await put_file(storage, filename=f"{number}") for number in range(5)]
    await put_file(storage, owner="bob")
    for order, expected in (("asc", files), ("desc", files[::-1])):
        seen, after = [], None
        while True:
            page = await storage.files.list("ada", after=after, limit=2, order=order)
            seen += page.items
            if not page.has_more:
                break
            after = page.items[-1].id
        assert seen == expected
    assert not (await storage.files.list("ada", purpose="user_data")).items


@pytest.mark.parametrize("text", ["", "file-", "file-\0", "file-\ud800", "../etc/passwd", "' OR 1=1 --", "f" * 10_000])
async def test_what_is_no_id_is_not_found_and_never_an_error_of_the_database(storage: Storage, text: str) -> None:
    assert await storage.files.get("ada", text) is None
    assert await storage.batches.get("ada", text) is None
    assert await storage.responses.get("ada", text) is None
    assert await storage.traces.get("ada", text) is None
    with pytest.raises(RequestError):
        await storage.files.list("ada", after=text)


async def test_a_quota_counts_every_byte_and_gives_it_back(storage: Storage) -> None:
    file = await put_file(storage, b"x" * 3_000_000)
    writer = await storage.files.writer("ada")
    with pytest.raises(QuotaError):
        await writer.write(b"y" * 2_000_000)
    await writer.discard()
    assert await storage.stored_bytes("ada") == 3_000_000
    await put_file(storage, b"z" * 3_000_000, owner="bob")
    assert await storage.files.delete("ada", file.id)
    assert await storage.stored_bytes("ada") == 0
    await put_file(storage, b"y" * 2_000_000)


async def test_what_the_server_writes_itself_is_not_thrown_away_for_a_quota(storage: Storage) -> None:
    writer = await storage.files.writer("ada", within_quota=False)
    await writer.write(b"x" * 5_000_000)
    assert (await writer.finish("o", "batch_output")).num_bytes == 5_000_000
    with pytest.raises(QuotaError):
        await put_file(storage, b"one byte more")


async def test_an_unfinished_file_is_invisible_and_swept_when_nobody_writes_to_it(
    storage: Storage, clock: Clock
) -> None:
    writer = await storage.files.writer("ada")
    await writer.write(b"x" * 1_500_000)
    assert not (await storage.files.list("ada")).items
    clock.now += 3_000
    assert await storage.sweep() == 0
    clock.now += 1_000
    assert await storage.sweep() == 1
    assert await storage.stored_bytes("ada") == 0
    with pytest.raises(StorageError, match="swept"):
        await writer.finish("late", "batch")


async def test_a_file_expires_when_it_was_told_to(storage: Storage, clock: Clock) -> None:
    file = await put_file(storage, retention_s=3600)
    kept = await put_file(storage)
    assert file.expires_at == clock.now + 3600
    clock.now += 3600
    assert await storage.files.get("ada", file.id) is None
    assert (await storage.files.list("ada")).items == (kept,)
    assert await storage.sweep() == 1
    assert await storage.stored_bytes("ada") == kept.num_bytes


async def test_a_batchs_input_stays_until_the_batch_is_done(storage: Storage, clock: Clock) -> None:
    batch = await put_batch(storage)
    file_id = batch.request.input_file_id
    with pytest.raises(RequestError, match=batch.id):
        await storage.files.delete("ada", file_id)
    claimed = await storage.batches.claim("h", never)
    assert claimed is not None
    await storage.batches.fail(claimed, "h", [])
    assert await storage.files.delete("ada", file_id)


async def test_a_file_deleted_while_it_is_read_ends_the_reading_with_an_error(storage: Storage) -> None:
    file = await put_file(storage, b"x" * 3_000_000)
    pieces = storage.files.read(file)
    assert await anext(pieces)
    await storage.files.delete("ada", file.id)
    with pytest.raises(StorageError, match="deleted"):
        await anext(pieces)
