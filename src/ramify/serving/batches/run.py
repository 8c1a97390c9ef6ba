"""`BatchRun`: one batch from where it stands to its end, under a lease.

Whatever it does is in the storage before the next step begins, so that another run, after a kill at any moment, goes on
with exactly the lines that have no stored answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from ramify.errors import StorageError
from ramify.serving.batches.input import InputCheck, pages_of
from ramify.serving.batches.lines import Answer, Line, run_line
from ramify.serving.batches.writer import ResultWriter
from ramify.serving.errors import ApiError
from ramify.serving.storage.batches import LEASE_S, LeaseLost
from ramify.serving.storage.files import FileWriter
from ramify.serving.storage.records import BatchStatus, LineError, StoredBatch

if TYPE_CHECKING:
    from ramify.serving.server import Server

_log = logging.getLogger(__name__)
BEAT_S = LEASE_S / 4
_UNFINISHED = {
    "expired": ("batch_expired", "the batch's completion window ended before this request was answered"),
    "cancelled": ("batch_cancelled", "the batch was cancelled before this request was answered"),
}


class BatchRun:
    """Works on one batch.

    Args:
        server: answers the lines.
        answer: how.
        slots: one for each line that may run at once, shared by all runs of the server.
        holder: the lease of this run.
        batch: as it was when the lease was taken.
    """

    def __init__(
        self, server: Server, answer: Answer, slots: asyncio.Semaphore, holder: str, batch: StoredBatch
    ) -> None:
        self._server = server
        self._storage = server.storage
        self._answer = answer
        self._slots = slots
        self._holder = holder
        self._last_step = False
        self._alone = asyncio.Lock()
        self._halted = asyncio.Event()
        self._beat_now = asyncio.Event()
        self.batch = batch

    async def run(self) -> None:
        """Work until the batch ends, or `leave`.

        Raises:
            LeaseLost: another server works on it.
            StorageError: the storage failed; what is stored is good, and another run goes on from it.
        """
        beat = asyncio.create_task(self._keep_lease(), name=f"lease of {self.batch.id}")
        work = asyncio.create_task(self._work(), name=f"work on {self.batch.id}")
        try:
            await asyncio.wait({beat, work}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (beat, work):
                task.cancel()
            ended = await asyncio.gather(work, beat, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome

    def leave(self) -> None:
        """Stop where it stands: lines that run are dropped, what is finished is stored, the lease is given back."""
        self._halted.set()

    def look(self) -> None:
        """Look at once whether the batch was cancelled."""
        self._beat_now.set()

    async def _keep_lease(self) -> None:
        while True:
            left_s = self.batch.expires_at - self._storage.clock()
            if left_s <= 0 or self.batch.status == "cancelling":
                self._halted.set()
            try:
                async with asyncio.timeout(min(BEAT_S, left_s) if left_s > 0 else BEAT_S):
                    await self._beat_now.wait()
            except TimeoutError:
                pass
            self._beat_now.clear()
            if self._last_step:
                continue
            try:
                self.batch = await self._storage.batches.renew(self.batch, self._holder)
            except LeaseLost:
                raise
            except StorageError as error:
                _log.error("%s: its lease was not renewed: %s", self.batch.id, error)

    async def _work(self) -> None:
        if self.batch.status == "validating":
            await self._until_halted(self._validate())
        finished = self.batch.status == "finalizing"
        if self.batch.status == "in_progress":
            finished = await self._answer_lines()
        if self.batch.status == "failed":
            return
        if finished:
            self.batch = await self._storage.batches.finalize(self.batch, self._holder)
        ending = await self._ending(finished)
        if ending is None:
            await self._storage.batches.release(self.batch, self._holder)
        else:
            await self._end(ending)

    async def _ending(self, finished: bool) -> BatchStatus | None:
        """How the batch ends; None if it goes on another time."""
        self.batch = await self._storage.batches.renew(self.batch, self._holder)
        if self.batch.status == "cancelling":
            return "cancelled"
        if finished:
            return "completed"
        return "expired" if self.batch.expires_at <= self._storage.clock() else None

    async def _until_halted(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run something that may be dropped; whether it came to its end."""
        task, halted = asyncio.create_task(work), asyncio.create_task(self._halted.wait())
        try:
            await asyncio.wait({task, halted}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
                return True
            return False
        finally:
            task.cancel()
            halted.cancel()
            await asyncio.gather(task, halted, return_exceptions=True)

    async def _validate(self) -> None:
        request = self.batch.request
        try:
            caller = self._server.keys.caller_named(request.caller)
        except ApiError as error:
            await self._fail([LineError("invalid_api_key", error.message)])
            return
        file = await self._storage.files.of_batch(request.input_file_id)
        if file is None:
            gone = f"the file {request.input_file_id} is gone"
            await self._fail([LineError("file_not_found", gone, param="input_file_id")])
            return
        check = InputCheck(request.endpoint, self._server.models.names(), caller, self._server.config.limits)
        await check.read(self._storage.files.read(file))
        if check.errors:
            await self._fail(check.errors)
        else:
            begin = self._storage.batches.begin
            self.batch = await begin(self.batch, self._holder, check.num_lines, check.model)

    async def _fail(self, errors: Sequence[LineError]) -> None:
        self._last_step = True
        self.batch = await self._storage.batches.fail(self.batch, self._holder, errors)

    async def _answer_lines(self) -> bool:
        """Answer what has no answer yet; whether every line has one now."""
        async with ResultWriter(self._storage.batches, self.batch, self._holder) as writer:
            whole = await self._until_halted(self._run_lines(writer))
        self.batch = writer.batch
        return whole and not self._server.draining.begun

    async def _run_lines(self, writer: ResultWriter) -> None:
        try:
            async with asyncio.TaskGroup() as running:
                async for line in self._open_lines():
                    await self._slots.acquire()
                    if self._server.draining.begun:
                        self._slots.release()
                        break
                    task = running.create_task(self._run_line(line, writer))
                    # Only when its result is stored: while results cannot be stored, no further line starts.
                    task.add_done_callback(lambda _: self._slots.release())
        except ExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _run_line(self, line: Line, writer: ResultWriter) -> None:
        await writer.put(await run_line(self._server, self.batch, line, self._answer, self._alone))
        if writer.batch.status == "cancelling":
            self._halted.set()

    async def _open_lines(self) -> AsyncIterator[Line]:
        """The lines without an answer, in order."""
        file = await self._storage.files.of_batch(self.batch.request.input_file_id)
        if file is None:
            raise StorageError(f"{self.batch.id}: its input {self.batch.request.input_file_id} is gone")
        async for page in pages_of(self._storage.files.read(file)):
            finished = await self._storage.batches.finished(self.batch, [number for number, _ in page])
            for number, raw in page:
                if number not in finished:
                    yield Line.of(number, raw)

    async def _end(self, status: BatchStatus) -> None:
        """Write the files and end. A run that is killed here is done again: only the last transaction shows them."""
        writers: dict[str, FileWriter | None] = {"output": None, "error": None}
        try:
            for kind, lines in (("output", self._answers()), ("error", self._errors(status))):
                async for data in lines:
                    writer = writers[kind]
                    if writer is None:
                        owner = self.batch.request.owner
                        writer = writers[kind] = await self._storage.files.writer(owner, within_quota=False)
                    await writer.write(data)
            for writer in filter(None, writers.values()):
                await writer.flush()
            self._last_step = True
            self.batch = await self._storage.batches.end(self.batch, self._holder, status, writers)
        except BaseException:
            for writer in filter(None, writers.values()):
                await writer.discard()
            raise

    async def _answers(self) -> AsyncIterator[bytes]:
        async for _, data in self._storage.batches.results(self.batch, failed=False):
            yield data

    async def _errors(self, status: BatchStatus) -> AsyncIterator[bytes]:
        async for _, data in self._storage.batches.results(self.batch, failed=True):
            yield data
        if status in _UNFINISHED and self.batch.num_total:
            async for line in self._open_lines():
                yield line.error(self.batch, *_UNFINISHED[status])
