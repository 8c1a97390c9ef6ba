"""How far each engine's low-bit weights move the next token's distribution: KL divergence from the float model.

The bundled policy has trained weights, which random ones cannot stand for. Every engine gets its weights in its own
form and reads the same ids: problems of the bundled tasks with answers that the policy drew.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.lab.engines.base import Capacity, Logits, MissingError
from benchmarks.lab.engines.catalog import Kind
from benchmarks.lab.records import Record, Records

_PROBLEMS = 24
_ANSWER_TOKENS = 128
_MODEL = "nano"


def measure_divergences(home: Path, kinds: Sequence[Kind], records: Records) -> None:
    """Each engine's divergence on the bundled policy, unless it is known."""
    known = {record.engine for record in records.more("kl")}
    todo = [kind for kind in kinds if kind.name not in known]
    if not todo:
        return
    folder = home / _MODEL
    make_model(folder)
    make_texts(folder / "texts.json")
    rows = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    wanted = float_logits(folder, rows)
    for kind in todo:
        try:
            found = divergence(kind, folder, rows, wanted)
        except MissingError as reason:
            records.add(Record("kl", 0, 0, kind.name, None, "nats", str(reason)))
            continue
        print(f"{kind.label}: KL {found['kl']:.5f} +- {found['kl_error']:.5f} nats", flush=True)
        records.add(Record("kl", 0, 0, kind.name, found["kl"], "nats", more=found))


def make_texts(path: Path) -> None:
    """Write the ids that are read, unless they are there: a list of lists."""
    if path.exists():
        return
    from ramify import LLM, SamplingParams
    from ramify.evals.tasks import get_task, task_names

    problems = [problem for name in task_names() for problem in get_task(name).problems(_PROBLEMS)]
    chats = [[{"role": "user", "content": problem.prompt}] for problem in problems]
    params = [SamplingParams(max_tokens=_ANSWER_TOKENS, seed=place) for place in range(len(chats))]
    with LLM(_MODEL, num_threads=1) as llm:
        outputs = llm.chat(chats, params, use_tqdm=False)
    rows = [[*output.prompt_token_ids, *output.outputs[0].token_ids] for output in outputs]
    path.write_text(json.dumps(rows), encoding="utf-8")


def make_model(folder: Path) -> None:
    """Put the bundled policy's checkpoint where the engines look."""
    from ramify.models.hub import resolve_model

    if not (folder / "checkpoint").exists():
        shutil.copytree(resolve_model(_MODEL, None), folder / "checkpoint")


def float_logits(folder: Path, rows: Sequence[Sequence[int]]) -> list[Logits]:
    """The float32 model's, by transformers."""
    from benchmarks.lab.engines.hf_engine import HFEngine

    engine = HFEngine(folder, 1, "float32")
    return [engine.logits(row) for row in rows]


def divergence(kind: Kind, folder: Path, rows: Sequence[Sequence[int]], wanted: Sequence[Logits]) -> dict[str, float]:
    """Mean KL divergence in nats, its standard error over texts, and how often the most likely token is the same.

    Raises:
        MissingError: the engine is not there or cannot take the model.
    """
    kind.check(folder)
    engine = kind.make(folder, 1)
    engine.prepare(Capacity(1, max(map(len, rows)) + 1))
    means, same, count = [], 0, 0
    for row, reference in zip(rows, wanted, strict=True):
        ours, theirs = _log_softmax(engine.logits(row)), _log_softmax(reference)
        if ours.shape != theirs.shape:
            raise MissingError(f"it gives logits of shape {ours.shape} where the float model gives {theirs.shape}")
        means.append(float((np.exp(theirs) * (theirs - ours)).sum(-1).mean()))
        same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        count += len(row)
    return {
        "kl": float(np.mean(means)),
        "kl_error": float(np.std(means, ddof=1) / np.sqrt(len(means))),
        "agreement": same / count,
        "tokens": count,
    }


def _log_softmax(logits: Logits) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
