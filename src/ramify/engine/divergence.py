"""How far a model's next-token distributions are from another's: what a weight format costs.

Both models read the same texts by the forward pass that serves requests. The distance at a position is the
Kullback-Leibler divergence of the other model from the reference, in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch

from ramify.engine.runner import ModelRunner
from ramify.engine.scheduler import Scheduled
from ramify.engine.sequence import Sequence as EngineSequence
from ramify.kv.cache import KVCache
from ramify.models.decoder import Decoder
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams

_ROWS_AT_ONCE = 64
"""Rows whose logits are held at once."""
_BLOCK_SIZE = 16
Progress = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Divergence:
    """The distance of one model from another over all positions of some texts.

    Attributes:
        kl: mean over positions, nats.
        median_kl: of positions.
        top1: part of positions at which both models' likeliest token is the same.
        num_tokens: positions.
    """

    kl: float
    median_kl: float
    top1: float
    num_tokens: int

    def as_json(self) -> dict[str, float]:
        """As plain data."""
        return asdict(self)


def divergence(
    reference: Decoder, other: Decoder, texts: Sequence[Sequence[int]], progress: Progress = lambda: None
) -> Divergence:
    """Compare two models with the same vocabulary.

    Args:
        reference: the model whose distributions count as right.
        other: the one that is measured.
        texts: token ids, each text as long as a step can be.
        progress: called after each text.

    Raises:
        ValueError: there is no text.
    """
    if not texts:
        raise ValueError("there is no text to compare the models on")
    distances, agreements = [], []
    for text in texts:
        ours, theirs = _hidden(reference, text), _hidden(other, text)
        for start in range(0, len(text), _ROWS_AT_ONCE):
            rows = slice(start, min(start + _ROWS_AT_ONCE, len(text)))
            right, seen = _log_probabilities(reference, ours[rows]), _log_probabilities(other, theirs[rows])
            distances.append((right.exp() * (right - seen)).sum(-1))
            agreements.append(right.argmax(-1) == seen.argmax(-1))
        progress()
    every, same = torch.cat(distances), torch.cat(agreements)
    return Divergence(float(every.mean()), float(every.median()), float(same.double().mean()), len(every))


def with_layer_of(reference: Decoder, other: Decoder, index: int) -> Decoder:
    """The reference with one layer of the other model."""
    layers = [*reference.layers[:index], other.layers[index], *reference.layers[index + 1 :]]
    return Decoder(reference.config, reference.embedding, layers, reference.norm, reference.head, reference.rotary)


def with_vocabulary_of(reference: Decoder, other: Decoder) -> Decoder:
    """The reference with the embedding and the head of the other model."""
    return Decoder(reference.config, other.embedding, reference.layers, reference.norm, other.head, reference.rotary)


@torch.inference_mode()
def _hidden(decoder: Decoder, text: Sequence[int]) -> torch.Tensor:
    """[length, hidden], before the last norm."""
    config = decoder.config
    num_blocks = -(-len(text) // _BLOCK_SIZE)
    cache = KVCache(
        config.num_layers,
        config.num_kv_heads,
        config.head_dim,
        num_blocks + 1,
        _BLOCK_SIZE,
        decoder.dtype,
        decoder.device,
    )
    sequence = EngineSequence(
        id=0,
        key=BranchKey.root(0),
        params=SamplingParams(max_tokens=0),
        tokens=list(text),
        num_prompt=len(text),
        arrival=0,
        stop_ids=frozenset(),
        max_total=len(text),
        blocks=list(range(1, num_blocks + 1)),
    )
    batch = ModelRunner(decoder, cache).build([Scheduled(sequence, 0, len(text))])
    return decoder.forward(batch.inputs, cache)[: len(text)]


@torch.inference_mode()
def _log_probabilities(decoder: Decoder, hidden: torch.Tensor) -> torch.Tensor:
    return decoder.logits(hidden).double().log_softmax(-1)
