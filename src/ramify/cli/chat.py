"""`ramify chat`: a conversation at the terminal, or one answer to one message."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ramify.cli import common

if TYPE_CHECKING:
    from ramify import AsyncLLM
    from ramify.engine.outputs import RequestOutput
    from ramify.sampling import SamplingParams

Messages = list[dict[str, str]]
HELP = "/reset begins anew, /exit or Ctrl-D ends; Ctrl-C stops an answer."


def chat(
    message: Annotated[str | None, typer.Argument(help="Answer this and end; without it, a conversation.")] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    model: common.Model = "nano",
    temperature: common.Temperature = 0.0,
    top_p: common.TopP = 1.0,
    top_k: common.TopK = 0,
    min_p: common.MinP = 0.0,
    max_tokens: common.MaxTokens = None,
    stop: common.Stop = None,
    seed: common.Seed = 0,
    quantization: common.Quantization = None,
    engine: common.EngineOptions = None,
    json: common.Json = False,
) -> None:
    """Talk to a model through its chat template; answers stream as they come. --json prints one object an answer."""
    params = common.sampling_params(
        temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, max_tokens=max_tokens, stop=stop
    )
    options = {"seed": seed, **common.engine_options(engine, quantization)}
    opening: Messages = [{"role": "system", "content": system}] if system is not None else []
    from ramify import AsyncLLM

    # One loop for all turns: Ctrl-C cancels the turn that runs, and with it the request, and nothing else.
    with asyncio.Runner() as runner:
        llm = AsyncLLM(model, **options)
        try:
            if message is not None:
                runner.run(answer(llm, [*opening, {"role": "user", "content": message}], params, json))
            else:
                converse(runner, llm, opening, params, json)
        finally:
            runner.run(llm.close())


def converse(runner: asyncio.Runner, llm: AsyncLLM, opening: Messages, params: SamplingParams, json: bool) -> None:
    """Read messages until the end of the input."""
    if sys.stdin.isatty():
        common.say(HELP)
    messages = list(opening)
    while (line := _read_line()) is not None:
        if line.strip() == "/reset":
            messages = list(opening)
        elif line.strip():
            asked: Messages = [*messages, {"role": "user", "content": line}]
            try:
                text = runner.run(answer(llm, asked, params, json))
            except KeyboardInterrupt:
                common.say("\n(stopped; the last message is forgotten)")
                continue
            messages = [*asked, {"role": "assistant", "content": text}]


async def answer(llm: AsyncLLM, messages: Messages, params: SamplingParams, json: bool) -> str:
    """Print an answer as it comes (as JSON: when it is whole) and return it."""
    from ramify.serving.protocol.usage import usage_of

    text = ""
    last: RequestOutput | None = None
    async for last in llm.chat(messages, params):
        completion = last.outputs[0]
        if not json:
            typer.echo(completion.text[len(text) :], nl=False)
        text = completion.text
    if json and last is not None:
        reason = last.outputs[0].finish_reason
        common.print_json({"role": "assistant", "content": text, "finish_reason": reason, "usage": usage_of(last)})
    elif not json:
        typer.echo()
    return text


def _read_line() -> str | None:
    try:
        line = input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None
    return None if line.strip() in ("/exit", "/quit") else line
