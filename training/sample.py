"""Batched sampling with a key-value cache, for making training samples and candidate pools without the engine.

Prompts are padded on the left; every prompt is read once and its cache copied for its samples.
"""

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.model import Cache, Llama

END = 0
LONGEST_SOLUTION = 160


@torch.inference_mode()
def sample(
    model: Llama,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    samples: int,
    temperature: float,
    seed: int,
    sequences_per_batch: int = 64,
) -> list[list[str]]:
    """Draw `samples` solutions for each rendered prompt; temperature 0 is greedy.

    Returns the texts by prompt, each ending in <|end|> if the model ended it within LONGEST_SOLUTION tokens.
    """
    encoded = [tokenizer.encode(prompt).ids for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
    per_batch = max(1, sequences_per_batch // samples)
    texts: list[list[str]] = [[] for _ in prompts]
    for start in range(0, len(order), per_batch):
        rows = order[start : start + per_batch]
        generator = torch.Generator(model.cos.device).manual_seed(seed * 1_000_003 + start)
        found = _sample_batch(model, [encoded[i] for i in rows], samples, temperature, generator)
        decoded = tokenizer.decode_batch(found, skip_special_tokens=False)
        for position, row in enumerate(rows):
            texts[row] = decoded[position * samples : (position + 1) * samples]
    return texts


def _sample_batch(
    model: Llama, prompts: list[list[int]], samples: int, temperature: float, generator: torch.Generator
) -> list[list[int]]:
    where = model.cos.device
    width = max(map(len, prompts))
    ids = torch.tensor([[END] * (width - len(prompt)) + prompt for prompt in prompts], device=where)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=where)
    cache = model.new_cache(len(prompts), width + LONGEST_SOLUTION)
    real = torch.arange(width, device=where) >= width - lengths[:, None]
    # A padding position sees itself alone, so that its softmax is defined; nobody sees it.
    causal = torch.ones(width, width, dtype=torch.bool, device=where).tril()
    mask = (causal & real[:, None, :]) | torch.eye(width, dtype=torch.bool, device=where)
    positions = (torch.arange(width, device=where) - (width - lengths[:, None])).clamp(min=0)
    hidden = model.forward(ids, positions, cache, mask[:, None])[:, -1]

    hidden, lengths = hidden.repeat_interleave(samples, 0), lengths.repeat_interleave(samples)
    visible = torch.ones(len(lengths), width + LONGEST_SOLUTION, dtype=torch.bool, device=where)
    visible[:, :width] = real.repeat_interleave(samples, 0)
    cache = Cache(cache.keys.repeat_interleave(samples, 1), cache.values.repeat_interleave(samples, 1), width)
    rows = torch.arange(len(lengths), device=where)
    found: list[list[int]] = [[] for _ in range(len(lengths))]
    for _ in range(LONGEST_SOLUTION):
        chosen = _choose(model.logits(hidden).float(), temperature, generator)
        for row, token in zip(rows.tolist(), chosen.tolist(), strict=True):
            found[row].append(token)
        alive = chosen != END
        if not alive.any():
            break
        if alive.sum() < 0.7 * len(rows):
            # Finished sequences leave the batch.
            rows, chosen, lengths, visible = rows[alive], chosen[alive], lengths[alive], visible[alive]
            cache = _keep(model, cache, alive)
        now = visible[:, None, None, : cache.length + 1]
        hidden = model.forward(chosen[:, None], lengths[:, None], cache, now)[:, -1]
        lengths = lengths + 1
    return [tokens[: tokens.index(END) + 1] if END in tokens else tokens for tokens in found]


def _keep(model: Llama, cache: Cache, alive: Tensor) -> Cache:
    kept = model.new_cache(int(alive.sum()), cache.keys.shape[3])
    kept.length = cache.length
    for new, old in ((kept.keys, cache.keys), (kept.values, cache.values)):
        new[..., : cache.length, :] = old[..., : cache.length, :][:, alive]
    return kept


def _choose(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits / temperature).softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(1)
