"""`ramify quantize`: a model with low-bit weights as a folder that loads by mapping, and what the format costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.cli import common
from ramify.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress

    from ramify.engine.quantize import Quantised
    from ramify.models.decoder import Decoder

_PROBLEMS = 32
"""Of each bundled task's test split, for the report."""
_LAYER_TOKENS = 1024
"""Tokens of the report on which each layer is measured alone."""


def quantize(
    model: Annotated[str, typer.Argument(help="Bundled name (nano), folder of a float checkpoint, or hub id.")],
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Folder to write; it must be new or empty.")],
    format: Annotated[  # noqa: A002 - the option's name
        str,
        typer.Option(
            "--format", "-f", help="w8a8, w6a8, w4a8, w4a16, w8a16 or bfloat16, with options: w4a8:group_size=64."
        ),
    ] = "w4a8",
    calibration_text: Annotated[
        Path | None, typer.Option(help="Text to choose scales by, paragraph by paragraph; bundled problems by default.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="Text to measure on, paragraph by paragraph; bundled test problems by default.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens to measure on, at most.")] = 4096,
    report: Annotated[bool, typer.Option(help="Measure the divergence from the float model.")] = True,
    layers: Annotated[bool, typer.Option(help="Measure each layer alone, too.")] = True,
    revision: Annotated[str | None, typer.Option(help="Of a hub id.")] = None,
    json: common.Json = False,
) -> None:
    """Round a model's weights to a low-bit format and write them as a folder that ramify loads."""
    from ramify.engine.quantize import quantise_model

    measured_on = _paragraphs(text)
    with common.progress_bar() as bar:
        task = bar.add_task("layers", total=None)
        made = quantise_model(
            model,
            format,
            output_dir,
            calibration=_paragraphs(calibration_text),
            revision=revision,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        found = made.as_json()
        if report and made.has_vocabulary:
            found |= _measured(made, measured_on, tokens, layers, bar)
    common.write_file(output_dir / "quantization_report.json", _json_bytes(found))
    if json:
        common.print_json(found)
    else:
        _show(found)


def _paragraphs(path: Path | None) -> list[str] | None:
    """The paragraphs of a text file.

    Raises:
        ConfigError: it cannot be read, or is empty.
    """
    if path is None:
        return None
    try:
        whole = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): give a text file") from None
    found = [part.strip() for part in whole.split("\n\n") if part.strip()]
    if not found:
        raise ConfigError(f"{path} has no text: give a file with some")
    return found


def _measured(made: Quantised, texts: list[str] | None, tokens: int, layers: bool, bar: Progress) -> dict[str, Any]:
    """The divergence of the whole, and of each layer alone."""
    from ramify.engine.divergence import divergence, with_layer_of, with_vocabulary_of
    from ramify.engine.packed_weights import token_ids

    float_model, other, tokenizer = made.load()
    longest = min(512, float_model.config.max_model_len)
    if texts is None:
        texts = _test_problems(made)
    ids = token_ids(tokenizer, texts, tokens, longest)
    if not ids:
        raise ConfigError("the text to measure on is shorter than two tokens: give more with --text")
    task = bar.add_task("divergence", total=len(ids))
    found: dict[str, Any] = {"divergence": divergence(float_model, other, ids, lambda: bar.advance(task)).as_json()}
    if not layers:
        return found
    some = token_ids(tokenizer, texts, min(tokens, _LAYER_TOKENS), longest)
    parts: list[tuple[str, Decoder]] = [
        (str(index), with_layer_of(float_model, other, index)) for index in range(len(float_model.layers))
    ]
    parts.append(("vocabulary", with_vocabulary_of(float_model, other)))
    task = bar.add_task("each layer alone", total=len(parts))
    found["layers"] = []
    for name, hybrid in parts:
        found["layers"].append({"layer": name, **divergence(float_model, hybrid, some).as_json()})
        bar.advance(task)
    return found


def _test_problems(made: Quantised) -> list[str]:
    """Worked problems that neither the bundled models nor the calibration have seen, task by task in turn."""
    from ramify.engine.packed_weights import written
    from ramify.evals.tasks import get_task, task_names

    tasks = [get_task(name) for name in task_names()]
    drawn = [task.problems(_PROBLEMS, split="test") for task in tasks]
    tokenizer = made.tokenizer()
    return [
        written(tokenizer, problem.prompt, task.solution(problem))
        for row in zip(*drawn, strict=True)
        for task, problem in zip(tasks, row, strict=True)
    ]


def _json_bytes(found: dict[str, Any]) -> bytes:
    import json

    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table

    console = common.output_console()
    table = Table("product", "kind", "KiB", "error", "grouped by", box=None, header_style="bold")
    for entry in found["products"]:
        error = entry.get("error", entry.get("weight_error"))
        by = "input channel" if entry.get("input_channels") else "output"
        told = "as stored" if error is None else f"{error:.1e}"
        table.add_row(entry["name"], entry["kind"], f"{entry['bytes'] / 1024:,.0f}", told, by)
    console.print(table)
    console.print(f"\nerror: squared, in parts of the square of {found['error_of']}")
    if "layers" in found:
        table = Table("rounded alone", "KL divergence", "same top token", box=None, header_style="bold")
        for entry in found["layers"]:
            name = entry["layer"] if entry["layer"] == "vocabulary" else f"layer {entry['layer']}"
            table.add_row(name, f"{entry['kl']:.2e}", f"{entry['top1']:.2%}")
        console.print()
        console.print(table)
    console.print(
        f"\n{found['output_dir']}: {found['format']}, {found['bytes'] / 2**20:,.1f} MiB "
        f"({found['bits_per_weight']:.2f} bits a weight; {found['float_bytes'] / 2**20:,.1f} MiB as stored)"
    )
    if "divergence" in found:
        whole = found["divergence"]
        console.print(
            f"KL divergence from the float model {whole['kl']:.3e} nats a token (median {whole['median_kl']:.1e}), "
            f"same top token {whole['top1']:.2%}, over {whole['num_tokens']:,} tokens"
        )
