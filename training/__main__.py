"""`python -m training STAGE`: from nothing to the bundled models and their measured table."""

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer

from ramify.evals.tasks import Task, task_names
from training.checking import check_batches
from training.data import finishing_tasks, main_tasks, training_batches
from training.evaluate import evaluate
from training.export import BUNDLED, PRM_ENTRY, export, load_bundled
from training.model import Llama, Shape
from training.prm import load_examples, prm_batches, prm_loss, sample_solutions
from training.tokenizer import VOCABULARY, save_tokenizer, train_tokenizer
from training.train import Batches, Recipe, train

POLICY = Shape(VOCABULARY, 192, 512, 5, 6, 2)
DRAFTER = Shape(VOCABULARY, 96, 256, 1, 3, 1)
POLICY_RECIPE = Recipe(steps=7000, tokens_per_batch=5120)
FINISHING_RECIPE = Recipe(steps=1050, tokens_per_batch=5120, muon_rate=0.006, adam_rate=1e-3, seed=3)
DRAFTER_RECIPE = Recipe(steps=5000, seed=1)
PRM_RECIPE = Recipe(steps=1500, tokens_per_batch=5120, muon_rate=0.005, adam_rate=1e-3)
# After the labels of sampled lines: attempts to check alone, then both together (share of attempts, recipe).
CHECK_RECIPES = {
    "check": (1.0, Recipe(steps=400, tokens_per_batch=5120, muon_rate=0.01, adam_rate=2e-3, warmup_steps=50)),
    "both": (0.45, Recipe(steps=450, tokens_per_batch=5120, muon_rate=0.01, adam_rate=2e-3, warmup_steps=50)),
}
PRM_PROBLEMS, PRM_SAMPLES, PRM_TEMPERATURE = 8_192, 4, 1.0


def tokenizer_stage(work: Path, bundled: Path) -> None:
    save_tokenizer(train_tokenizer(seed=0), work / "tokenizer")


def policy_stage(work: Path, bundled: Path) -> None:
    model = _train_solver(POLICY, POLICY_RECIPE, work, "policy")
    train(model, _batches(work, finishing_tasks, FINISHING_RECIPE), FINISHING_RECIPE, work / "policy-finishing")
    export(model, work / "tokenizer", bundled / "nano")


def drafter_stage(work: Path, bundled: Path) -> None:
    export(_train_solver(DRAFTER, DRAFTER_RECIPE, work, "drafter"), work / "tokenizer", bundled / "nano-drafter")


def prm_data_stage(work: Path, bundled: Path) -> None:
    policy, tokenizer = load_bundled(bundled / "nano")
    sample_solutions(policy, tokenizer, PRM_PROBLEMS, PRM_SAMPLES, PRM_TEMPERATURE, seed=1, path=work / "samples.jsonl")


def prm_stage(work: Path, bundled: Path) -> None:
    model, tokenizer = load_bundled(bundled / "nano")
    examples = load_examples(tokenizer, work / "samples.jsonl")
    good, bad = tokenizer.token_to_id("<|good|>"), tokenizer.token_to_id("<|bad|>")
    loss = functools.partial(prm_loss, good=good, bad=bad)
    recipe = PRM_RECIPE
    train(
        model,
        lambda start: prm_batches(examples, recipe.seed, recipe.tokens_per_batch, start),
        recipe,
        work / "prm",
        loss,
    )
    for name, (share, later) in CHECK_RECIPES.items():
        batches = functools.partial(check_batches, tokenizer, examples, share, later.tokens_per_batch)
        train(model, batches, later, work / f"prm-{name}", loss)
    export(model, work / "tokenizer", bundled / "nano-prm", PRM_ENTRY)


def evaluate_stage(work: Path, bundled: Path) -> None:
    measured = [
        evaluate(bundled, work / "pools", task, "test", problems=500, samples=64, temperature=0.8)
        for task in task_names()
    ]
    (work / "evaluation.json").write_text(json.dumps(measured, indent=1) + "\n")


def _train_solver(shape: Shape, recipe: Recipe, work: Path, name: str) -> Llama:
    torch.manual_seed(recipe.seed)
    model = Llama(shape)
    print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    train(model, _batches(work, main_tasks, recipe), recipe, work / name)
    return model


def _batches(work: Path, tasks_of: Callable[[int], list[Task]], recipe: Recipe) -> Batches:
    tokenizer = Tokenizer.from_file(str(work / "tokenizer" / "tokenizer.json"))
    return lambda start: training_batches(tokenizer, tasks_of, recipe.seed, recipe.tokens_per_batch, start)


STAGES = {
    "tokenizer": tokenizer_stage,
    "policy": policy_stage,
    "drafter": drafter_stage,
    "prm-data": prm_data_stage,
    "prm": prm_stage,
    "evaluate": evaluate_stage,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, "all"])
    parser.add_argument("--work", type=Path, default=Path("runs/training"), help="where checkpoints are kept")
    parser.add_argument("--bundled", type=Path, default=BUNDLED, help="where the finished models are written")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for stage in STAGES if arguments.stage == "all" else (arguments.stage,):
        STAGES[stage](arguments.work, arguments.bundled)


if __name__ == "__main__":
    main()
