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

from ramify.evals.tasks import get_task, task_names
from training.data import IGNORE, Example, collate, render
from training.model import Llama
from training.sample import sample

# Far from the indices that a training run reaches, so the policy has not been trained on these very problems.
FIRST_INDEX = 1_000_000_000
END_MARK = "<|end|>"


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
    """Read sampled solutions as examples whose labels are 1 (good), 0 (bad) or IGNORE (not the end of a line)."""
    tasks = {name: get_task(name) for name in task_names()}
    newline, end = tokenizer.token_to_id("Ċ"), tokenizer.token_to_id(END_MARK)
    examples = []
    for number, line in enumerate(path.open()):
        row = json.loads(line)
        task = tasks[row["task"]]
        problem = task.problem(row["index"], row["seed"], "train")
        text = row["text"].removesuffix(END_MARK)
        labels = task.step_labels(problem, text)
        # A caller may score the last line before or after the model has ended its turn: both occur in training.
        terminator = END_MARK if number % 2 == 0 else "\n"
        prompt = tokenizer.encode(render(problem)).ids
        solution = tokenizer.encode(text + terminator).ids
        marks = [position for position, token in enumerate(solution) if token in (newline, end)]
        targets = [IGNORE] * (len(prompt) + len(solution))
        for position, good in zip(marks, labels, strict=True):
            targets[len(prompt) + position] = int(good)
        examples.append(Example(prompt + solution, targets))
    return examples


def prm_batches(
    examples: list[Example], seed: int, tokens_per_batch: int, start: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield endless batches of similar length, every example once an epoch, from batch number `start` on."""
    epoch, number = 0, 0
    while True:
        rng = random.Random(seed * 1_000_003 + epoch)
        order = sorted(range(len(examples)), key=lambda i: (len(examples[i].ids) // 4, rng.random()))
        groups: list[list[int]] = [[]]
        for i in order:
            if (len(groups[-1]) + 1) * len(examples[i].ids) > tokens_per_batch:
                groups.append([])
            groups[-1].append(i)
        rng.shuffle(groups)
        for group in groups:
            if number >= start:
                yield collate([examples[i] for i in group])
            number += 1
        epoch += 1


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
