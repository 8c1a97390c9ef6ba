"""The process reward model: sampled solutions, a label for each line, and a loss at line ends alone.

Lightman et al., "Let's Verify Step by Step" (2023), with labels by program instead of by people.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from ramify.evals.tasks import Task, get_task, task_names
from ramify.scoring.problem import Problem
from training.data import IGNORE, Example, collate, cut, render
from training.mistakes import countdown_attempt, word_problem_attempt
from training.model import Llama
from training.sample import sample

# Far from the indices that a training run reaches, so the policy has not been trained on these very problems.
FIRST_INDEX = 1_000_000_000
END_MARK = "<|end|>"
# Where the examples come from: the sampled solutions of both tasks, or made-up ones of one task.
MIX = {"sampled": 0.45, "countdown": 0.45, "word_problems": 0.1}
_POOL_BATCHES = 32


def sample_solutions(
    policy: Llama, tokenizer: Tokenizer, problems: int, samples: int, temperature: float, seed: int, path: Path
) -> None:
    """Append sampled solutions of train-split problems as JSON lines, going on where the file ends."""
    done = sum(1 for _ in path.open()) // samples if path.exists() else 0
    chunk = 512
    for start in range(done, problems, chunk):
        numbers = range(start, min(start + chunk, problems))
        names = [task_names()[number % len(task_names())] for number in numbers]
        indices = [FIRST_INDEX + number for number in numbers]
        prompts = [
            render(get_task(name).problem(index, seed, "train")) for name, index in zip(names, indices, strict=True)
        ]
        texts = sample(policy, tokenizer, prompts, samples, temperature, seed + start)
        with path.open("a") as file:
            for name, index, found in zip(names, indices, texts, strict=True):
                for text in found:
                    file.write(json.dumps({"task": name, "index": index, "seed": seed, "text": text}) + "\n")
        print(f"sampled {numbers[-1] + 1}/{problems} problems", flush=True)


def load_examples(tokenizer: Tokenizer, path: Path) -> list[Example]:
    """Read sampled solutions as labelled examples."""
    tasks = {name: get_task(name) for name in task_names()}
    examples = []
    for number, line in enumerate(path.open()):
        row = json.loads(line)
        task = tasks[row["task"]]
        problem = task.problem(row["index"], row["seed"], "train")
        examples.append(_labelled(task, problem, row["text"].removesuffix(END_MARK), tokenizer, number % 2 == 0))
    return examples


def _labelled(task: Task, problem: Problem, text: str, tokenizer: Tokenizer, ended: bool) -> Example:
    """Label a solution 1 (good) or 0 (bad) at the end of each line and IGNORE elsewhere.

    A caller may score the last line before or after the model has ended its turn: `ended` says which.
    """
    newline, end = tokenizer.token_to_id("Ċ"), tokenizer.token_to_id(END_MARK)
    prompt = tokenizer.encode(render(problem)).ids
    solution = tokenizer.encode(text + (END_MARK if ended else "\n")).ids
    marks = [position for position, token in enumerate(solution) if token in (newline, end)]
    targets = [IGNORE] * (len(prompt) + len(solution))
    for position, good in zip(marks, task.step_labels(problem, text), strict=True):
        targets[len(prompt) + position] = int(good)
    return Example(prompt + solution, targets)


def prm_batches(
    sampled: list[Example], tokenizer: Tokenizer, seed: int, tokens_per_batch: int, start: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield endless batches of similar length: sampled solutions, and as many with made-up mistakes (see MIX)."""
    pool_number, skip = divmod(start, _POOL_BATCHES)
    while True:
        rng = random.Random(seed * 1_000_003 + pool_number)
        examples: list[Example] = []
        total = 0
        while total < _POOL_BATCHES * tokens_per_batch:
            kind = rng.choices(list(MIX), list(MIX.values()))[0]
            examples.append(rng.choice(sampled) if kind == "sampled" else _made_up(kind, rng, tokenizer))
            total += len(examples[-1].ids)
        batches = cut(examples, _POOL_BATCHES, rng.randrange(1 << 30))
        yield from batches[skip:]
        pool_number, skip = pool_number + 1, 0


def _made_up(kind: str, rng: random.Random, tokenizer: Tokenizer) -> Example:
    task = get_task(kind)
    problem = task.problem(rng.randrange(FIRST_INDEX, 2 * FIRST_INDEX), 2, "train")
    write = countdown_attempt if kind == "countdown" else word_problem_attempt
    return _labelled(task, problem, write(rng, problem), tokenizer, rng.random() < 0.5)


def prm_loss(model: Llama, ids: Tensor, labels: Tensor, good: int, bad: int) -> Tensor:
    """Cross-entropy between the two mark tokens at the ends of lines; no token is inserted."""
    chosen = (labels != IGNORE).flatten().nonzero().squeeze(1)
    hidden = model(ids).flatten(0, 1)[chosen].float()
    weight = model.model.embed_tokens.weight
    logit = hidden @ (weight[good] - weight[bad]).float()
    return F.binary_cross_entropy_with_logits(logit, labels.flatten()[chosen].float())


@torch.inference_mode()
def step_scores(model: Llama, tokenizer: Tokenizer, prompt: str, texts: list[str]) -> list[list[float]]:
    """Give P(good) at the end of each line of each solution (texts without <|end|>) to one rendered prompt."""
    newline, end = tokenizer.token_to_id("Ċ"), tokenizer.token_to_id(END_MARK)
    good, bad = tokenizer.token_to_id("<|good|>"), tokenizer.token_to_id("<|bad|>")
    head = tokenizer.encode(prompt).ids
    rows = [head + tokenizer.encode(text + END_MARK).ids for text in texts]
    ids, _ = collate([Example(row, []) for row in rows])
    hidden = model.forward(ids.to(model.cos.device))
    weight = model.model.embed_tokens.weight
    probabilities = (hidden @ (weight[good] - weight[bad])).sigmoid()
    return [
        [probabilities[i, t].item() for t in range(len(head), len(row)) if row[t] in (newline, end)]
        for i, row in enumerate(rows)
    ]
