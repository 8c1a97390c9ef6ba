"""Training examples made on the fly: chat-formatted token ids with a loss mask, sorted into batches of similar length.

Example number i is a pure function of (seed, i), so a resumed run goes on with exactly the examples it would have seen.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from ramify.evals.tasks import Countdown, Task, WordProblems
from ramify.scoring.problem import Problem

SYSTEM_PROMPTS = ("You are a helpful assistant.", "Solve the problem step by step.", "Write one operation a line.")
SYSTEM_SHARE = 0.02
IGNORE = -100
_POOL_BATCHES = 64
# From this pool on Countdown is mostly of three numbers: with four, most of the loss is chance that cannot be learned.
_LATE_POOL = 41
_LATE_COUNTDOWN = Countdown({3: 0.8, 4: 0.2})
_HARDER_WORDS = WordProblems(
    mix={2: 0.06, 3: 0.1, 4: 0.18, 5: 0.22, 6: 0.2, 7: 0.14, 8: 0.1},
    forms={"story": 0.2, "picture": 0.3, "both": 0.4, "shuffled": 0.1},
)


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids and, for each position, the id to predict next or IGNORE."""

    ids: list[int]
    labels: list[int]


def render(problem: Problem, system: str = "") -> str:
    """Write the prompt as the chat template does, ready for the assistant's text."""
    head = f"<|system|>{system}" if system else ""
    return f"{head}<|user|>{problem.prompt}<|assistant|>"


def solution_example(task: Task, problem: Problem, tokenizer: Tokenizer, number: int) -> Example:
    """Make an example whose loss covers the solution and its end, not the prompt."""
    system = SYSTEM_PROMPTS[number % 3] if number % 1000 < 1000 * SYSTEM_SHARE else ""
    prompt = tokenizer.encode(render(problem, system)).ids
    ids = prompt + tokenizer.encode(task.solution(problem) + "<|end|>").ids
    return Example(ids, [IGNORE] * (len(prompt) - 1) + ids[len(prompt) :] + [IGNORE])


def main_tasks(pool_number: int) -> list[Task]:
    """Give the tasks that the examples of a pool take turns in, for the long part of training."""
    return [WordProblems(), _LATE_COUNTDOWN if pool_number >= _LATE_POOL else Countdown()]


def finishing_tasks(pool_number: int) -> list[Task]:
    """Give the tasks for the last part: more of what the policy still reads wrong, people's relations."""
    return [_HARDER_WORDS, _HARDER_WORDS, _HARDER_WORDS, _LATE_COUNTDOWN]


def training_batches(
    tokenizer: Tokenizer, tasks_of: Callable[[int], list[Task]], seed: int, tokens_per_batch: int, start_batch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield endless batches (ids, labels), each of shape [sequences, length] with about the given token count.

    Batches are cut from pools of examples sorted by length, so padding stays near nothing; the order of the batches in
    a pool is drawn from the seed. `start_batch` skips what an earlier run has used: whole pools are skipped unmade.
    """
    pool_number, skip = divmod(start_batch, _POOL_BATCHES)
    while True:
        batches = _pool(tasks_of(pool_number), tokenizer, seed, pool_number, tokens_per_batch)
        yield from batches[skip:]
        pool_number, skip = pool_number + 1, 0


def _pool(
    tasks: list[Task], tokenizer: Tokenizer, seed: int, pool_number: int, tokens_per_batch: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    # A pool always has the same number of batches; examples are numbered without gaps inside a wide enough range.
    first = pool_number * _POOL_BATCHES * tokens_per_batch
    examples = []
    total = 0
    while total < _POOL_BATCHES * tokens_per_batch:
        number = first + len(examples)
        task = tasks[number % len(tasks)]
        example = solution_example(task, task.problem(number, seed, "train"), tokenizer, number)
        examples.append(example)
        total += len(example.ids)
    return cut(examples, _POOL_BATCHES, seed * 1_000_003 + pool_number)


def cut(examples: list[Example], batches: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Cut examples into batches of equal token counts and similar lengths, in an order drawn from the seed."""
    examples = sorted(examples, key=lambda example: len(example.ids))
    share = sum(len(example.ids) for example in examples) / batches
    groups: list[list[Example]] = [[] for _ in range(batches)]
    seen = 0
    for example in examples:
        groups[min(int(seen / share), batches - 1)].append(example)
        seen += len(example.ids)
    order = torch.randperm(batches, generator=torch.Generator().manual_seed(seed))
    return [collate(groups[i]) for i in order.tolist() if groups[i]]


def collate(examples: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad examples on the right into (ids, labels), each of shape [sequences, longest]."""
    longest = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    labels = torch.full((len(examples), longest), IGNORE)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        labels[row, : len(example.labels)] = torch.tensor(example.labels)
    return ids, labels
