"""`AsyncLLM` over an engine whose answers come sooner, or whose reader comes later, than usual."""

from __future__ import annotations

import asyncio
from typing import Any

from ramify.engine.async_llm import AsyncLLM
from ramify.engine.request import SequenceOutput
from ramify.sampling import SamplingParams

PROMPT = "Use the numbers 3, 7 and 4 to make 25."


class _Hasty:
    """An engine that is done with a request before it has said that it takes it."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def add(self, request: Any, listener: Any, *rest: Any) -> list[int]:
        done = asyncio.Event()

        def listen(output: SequenceOutput) -> None:
            listener(output)
            if output.finish_reason is not None:
                done.set()

        ids: list[int] = await self._engine.add(request, listen, *rest)
        await done.wait()
        return ids


async def test_an_answer_that_is_whole_before_its_reader_listens_is_still_heard() -> None:
    llm = AsyncLLM("nano")
    llm.engine = _Hasty(llm.engine)  # type: ignore[assignment]
    outputs = [output async for output in llm.generate(PROMPT, SamplingParams(max_tokens=3))]
    assert [output.finished for output in outputs] == [True]
    assert len(outputs[0].outputs[0].token_ids) == 3
    await llm.close()


async def test_a_slow_reader_is_given_the_last_tokens() -> None:
    llm = AsyncLLM("nano")
    seen: list[int] = []
    async for output in llm.generate(PROMPT, SamplingParams(max_tokens=5, ignore_eos=True)):
        await asyncio.sleep(0.05 if not seen else 0.2)  # the rest comes while it is not looking
        seen.append(len(output.outputs[0].token_ids))
        finished = output.finished
    assert finished
    assert seen[-1] == 5
    await llm.close()


async def test_a_token_that_was_on_its_way_does_not_take_an_abort_back() -> None:
    llm = AsyncLLM("nano")
    seen: list[tuple[bool, str | None]] = []
    async for output in llm.generate(PROMPT, SamplingParams(max_tokens=400, ignore_eos=True), "early"):
        if not seen:
            stream = llm._running["early"]
            await llm.abort("early")
            stream.push(SequenceOutput(stream.request.sequence_ids[0], [5]))
        seen.append((output.finished, output.outputs[0].finish_reason))
    assert seen[-1] == (True, "abort")
    await llm.close()
