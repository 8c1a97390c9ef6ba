"""The training loop of every model here: Muon for matrices, AdamW for the rest, checkpoints that can be resumed."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data import IGNORE
from training.model import Llama

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]
Loss = Callable[[Llama, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one model is trained. The number of steps fixes the learning-rate schedule, so it is never changed midway."""

    steps: int
    tokens_per_batch: int = 4096
    muon_rate: float = 0.02
    adam_rate: float = 3e-3
    warmup_steps: int = 100
    seed: int = 0
    checkpoint_s: float = 180.0


def device() -> torch.device:
    """Give the device to train on: CUDA if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def next_token_loss(model: Llama, ids: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled positions; the head runs on those alone."""
    chosen = (labels != IGNORE).flatten().nonzero().squeeze(1)
    hidden = model(ids).flatten(0, 1)[chosen]
    return F.cross_entropy(model.logits(hidden).float(), labels.flatten()[chosen])


def train(model: Llama, batches: Batches, recipe: Recipe, folder: Path, loss_of: Loss = next_token_loss) -> None:
    """Train the compiled model to the end of the recipe, going on from the checkpoint in the folder if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    where = device()
    model.to(where).train()
    model.compile(dynamic=True)
    optimizers = make_optimizers(model, recipe)
    done, spent_s, tokens = load_checkpoint(folder, model, optimizers, recipe)
    stream = batches(done)
    began = saved = time.monotonic()
    average = None
    for step in range(done, recipe.steps):
        set_rates(optimizers, recipe, step)
        ids, labels = (part.to(where) for part in next(stream))
        with torch.autocast(where.type, torch.bfloat16):
            loss = loss_of(model, ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        tokens += ids.numel()
        average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
        now = time.monotonic()
        if (step + 1) % 50 == 0:
            rate = ids.numel() and (tokens, round(spent_s + now - began))
            print(f"step {step + 1}/{recipe.steps} loss {average:.4f} tokens, seconds {rate}", flush=True)
        if now - saved > recipe.checkpoint_s or step + 1 == recipe.steps:
            save_checkpoint(folder, model, optimizers, recipe, (step + 1, spent_s + now - began, tokens))
            saved = now
    model.eval()


def make_optimizers(model: Llama, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=recipe.muon_rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=recipe.adam_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def set_rates(optimizers: list[torch.optim.Optimizer], recipe: Recipe, step: int) -> None:
    """Warm up linearly, then follow a cosine down to 2% of the peak."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    for optimizer, peak in zip(optimizers, (recipe.muon_rate, recipe.adam_rate), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = peak * warm * decay


def save_checkpoint(
    folder: Path,
    model: Llama,
    optimizers: list[torch.optim.Optimizer],
    recipe: Recipe,
    progress: tuple[int, float, int],
) -> None:
    """Write weights, optimizer state and position at once: the old checkpoint stays whole until the new one is."""
    state = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "recipe": asdict(recipe),
        "progress": progress,
    }
    torch.save(state, folder / "checkpoint.new")
    (folder / "checkpoint.new").replace(folder / "checkpoint.pt")
    facts = {"steps": progress[0], "seconds": round(progress[1]), "tokens": progress[2]}
    (folder / "progress.json").write_text(json.dumps(facts) + "\n")


def load_checkpoint(
    folder: Path, model: Llama, optimizers: list[torch.optim.Optimizer], recipe: Recipe
) -> tuple[int, float, int]:
    """Restore a checkpoint and give (steps, seconds, tokens) so far. Raises ValueError if its recipe is another one."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0, 0.0, 0
    state = torch.load(path, map_location=device())
    if state["recipe"] != asdict(recipe):
        raise ValueError(f"{path} was made by another recipe, {state['recipe']}: remove it or restore that recipe")
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    steps, seconds, tokens = state["progress"]
    return steps, seconds, tokens
