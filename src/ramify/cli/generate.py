"""`ramify generate`: continue prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.cli import common
from ramify.errors import ConfigError

if TYPE_CHECKING:
    from ramify.engine.outputs import RequestOutput
    from ramify.sampling import StructuredOutputsParams


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
    json_schema: Annotated[
        str | None, typer.Option(help="Answers are JSON of this schema, or of that in a file: @FILE.")
    ] = None,
    regex: Annotated[str | None, typer.Option(help="Answers match this regular expression (@FILE).")] = None,
    grammar: Annotated[str | None, typer.Option(help="Answers are derived from this Lark grammar (@FILE).")] = None,
    choice: Annotated[list[str] | None, typer.Option(help="Answers are one of these. Repeatable.")] = None,
    seed: common.Seed = 0,
    quantization: common.Quantization = None,
    engine: common.EngineOptions = None,
    json: common.Json = False,
) -> None:
    """Continue prompts. --json prints one object a prompt, in order."""
    params = common.sampling_params(
        n=n,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        max_tokens=max_tokens,
        stop=stop,
        structured_outputs=_form(json_schema, regex, grammar, choice),
    )
    options = common.engine_options(engine, quantization)
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


def _form(
    json_schema: str | None, regex: str | None, grammar: str | None, choice: list[str] | None
) -> StructuredOutputsParams | None:
    """The form that the options ask for.

    Raises:
        SamplingParamsError: several are given, or one is not what it should be.
        ConfigError: a file cannot be read.
    """
    from ramify.sampling import StructuredOutputsParams

    texts = {"json": json_schema, "regex": regex, "grammar": grammar}
    given: dict[str, Any] = {name: common.text_or_file(text) for name, text in texts.items() if text is not None}
    if choice:
        given["choice"] = choice
    return StructuredOutputsParams(**given) if given else None


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
