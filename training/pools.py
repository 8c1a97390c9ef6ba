"""Candidate pools drawn without the engine: solutions of held-out problems as JSON lines, and their PRM scores."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from ramify.evals.tasks import Split, get_task
from training.data import render
from training.model import Llama
from training.prm import END_MARK, step_scores
from training.sample import sample

_CHUNK = 50


def draw_pool(
    policy: Llama,
    tokenizer: Tokenizer,
    task: str,
    split: Split,
    problems: int,
    samples: int,
    temperature: float,
    path: Path,
) -> list[list[str]]:
    """Sample every problem, going on where the file ends; gives the texts by problem, without <|end|>."""
    path.parent.mkdir(parents=True, exist_ok=True)
    asked = get_task(task).problems(problems, split=split)
    done = [json.loads(line) for line in path.open()] if path.exists() else []
    for start in range(len(done), problems, _CHUNK):
        chunk = asked[start : start + _CHUNK]
        found = sample(policy, tokenizer, [render(problem) for problem in chunk], samples, temperature, start)
        rows = [
            {"id": problem.id, "texts": [text.removesuffix(END_MARK) for text in texts]}
            for problem, texts in zip(chunk, found, strict=True)
        ]
        with path.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        done += rows
    if [row["id"] for row in done] != [problem.id for problem in asked]:
        raise ValueError(f"{path} holds other problems than {problems} of {task}/{split}: remove it to draw them again")
    return [row["texts"] for row in done]


def score_pool(
    prm: Llama, tokenizer: Tokenizer, task: str, split: Split, texts: list[list[str]], path: Path
) -> list[list[list[float]]]:
    """Score every line of every candidate, going on where the file ends; gives scores by problem, candidate, line."""
    done = [json.loads(line) for line in path.open()] if path.exists() else []
    asked = get_task(task).problems(len(texts), split=split)
    with path.open("a") as file:
        for problem, found in zip(asked[len(done) :], texts[len(done) :], strict=True):
            scores = step_scores(prm, tokenizer, render(problem), found)
            file.write(json.dumps([[round(score, 5) for score in row] for row in scores]) + "\n")
            done.append(scores)
    return done
