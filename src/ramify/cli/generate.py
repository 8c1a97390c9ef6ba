"""`ramify generate`: continue prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.cli import common
from ramify.errors import ConfigError

if TYPE_CHECKING:
    from ramify.engine.outputs import RequestOutput


def generate(
    prompt: Annotated[str | None, typer.Argument(help="Text to continue, as it is (no chat template).")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Prompts, one a line; - is stdin.")] = None,
    model: common.Model = "nano",
    n: Annotated[int, typer.Option("-n", help="Continuations of each prompt.")] = 1,
    temperature: common.Temperature = 1.0,
    top_p: common.TopP = 1.0,
    top_k: common.TopK = 0,
    min_p: common.MinP = 0.0,
    max_tokens: common.MaxTokens = None,
    stop: common.Stop = None,
    seed: common.Seed = 0,
    engine: common.EngineOptions = None,
    json: common.Json = False,
) -> None:
    """Continue prompts. --json prints one object a prompt, in order."""
    params = common.sampling_params(
        n=n, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, max_tokens=max_tokens, stop=stop
    )
    options = common.engine_options(engine)
    prompts = common.read_text(prompt, file, "a prompt")
    if not prompts:
        raise ConfigError("there is no prompt: the file has no line with text")
    from ramify import LLM

    with LLM(model, **{"seed": seed, **options}) as llm:
        outputs = llm.generate(prompts, params, use_tqdm=len(prompts) > 1)
    for output in outputs:
        if json:
            common.print_json(as_json(output))
        else:
            for completion in output.outputs:
                typer.echo(completion.text)


def as_json(output: RequestOutput) -> dict[str, Any]:
    """A request's output as plain data."""
    from ramify.serving.protocol.usage import usage_of

    return {
        "prompt": output.prompt,
        "outputs": [
            {
                "text": completion.text,
                "finish_reason": completion.finish_reason,
                "stop_reason": completion.stop_reason,
                "token_ids": list(completion.token_ids),
            }
            for completion in output.outputs
        ],
        "usage": usage_of(output),
        "ttft_s": output.metrics.ttft_s,
    }
