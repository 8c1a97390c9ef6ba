"""Stream one answer, and cancel another one after its tenth token; its memory is free before the next step."""

import asyncio

from ramify import AsyncLLM, SamplingParams

QUESTION = "Kate has 5 coins. Kate finds 4 more. How many coins does Kate have now?"


async def stream(llm: AsyncLLM, limit: int | None) -> str:
    text = ""
    async for output in llm.chat(
        [{"role": "user", "content": QUESTION}], SamplingParams(temperature=0, max_tokens=100)
    ):
        text = output.outputs[0].text
        if limit is not None and len(output.outputs[0].token_ids) >= limit:
            break
    return text


async def main() -> None:
    async with AsyncLLM("nano") as llm:
        whole, part = await asyncio.gather(stream(llm, None), stream(llm, 10))
        print("whole:", whole.replace("\n", " | "))
        print("part: ", part.replace("\n", " | "))


asyncio.run(main())
