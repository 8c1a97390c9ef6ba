"""The inputs of one forward pass: a flat ragged batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ramify.kernels.attention import AttentionPlan


@dataclass(frozen=True, slots=True)
class BatchInputs:
    """Prompt chunks, decodes and forks alike are rows of this.

    Attributes:
        token_ids: [T] int64.
        positions: [T] int64, the place of each token in its sequence.
        slots: [T] int64, where its keys and values go (block * block_size + offset).
        attention: which keys each row sees.
        logits_rows: [R] int64, the rows whose logits are wanted.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    attention: AttentionPlan
    logits_rows: torch.Tensor
