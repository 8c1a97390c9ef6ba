"""Model families: what sets each architecture apart, as data. One registration each; one decoder for all.

A family says where it differs from the common decoder (biases, query and key norms, sliding windows) and which values
its `config.json` may leave out. The parsing itself is in `config.py`, the module in `decoder.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ramify.errors import UnsupportedModelError

AttentionBias = Literal["never", "qkv", "option"]
"""No biases; always on q, k and v; on q, k, v and o if the config's ``attention_bias`` says so."""
Windows = Literal["never", "every layer", "by layer"]
"""No sliding window; the config's ``sliding_window`` in every layer; in the layers that ``layer_types`` or
``max_window_layers`` name, if ``use_sliding_window`` is set."""


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """One architecture.

    Attributes:
        architecture: its name in the ``architectures`` of `config.json`.
        attention_bias: which attention projections carry a bias.
        mlp_bias_option: whether the config's ``mlp_bias`` is honoured.
        qk_norm: RMSNorm over each head's query and key before the rotary embedding.
        windows: where the sliding window holds.
        defaults: values for keys that `config.json` leaves out, as transformers has them.
    """

    architecture: str
    attention_bias: AttentionBias = "never"
    mlp_bias_option: bool = False
    qk_norm: bool = False
    windows: Windows = "never"
    defaults: Mapping[str, Any] = field(default_factory=dict)


_FAMILIES: dict[str, ModelFamily] = {}


def register_family(family: ModelFamily) -> ModelFamily:
    """Make a family known; a second registration of one architecture is an error."""
    if family.architecture in _FAMILIES:
        raise ValueError(f"model family {family.architecture} is registered already")
    _FAMILIES[family.architecture] = family
    return family


def known_architectures() -> tuple[str, ...]:
    """Names of all registered architectures, sorted."""
    return tuple(sorted(_FAMILIES))


def family_of(architectures: Sequence[str]) -> ModelFamily:
    """The family for the ``architectures`` of a `config.json`.

    Raises:
        UnsupportedModelError: none of them is registered.
    """
    for architecture in architectures:
        if architecture in _FAMILIES:
            return _FAMILIES[architecture]
    named = ", ".join(architectures) if architectures else "none"
    raise UnsupportedModelError(
        f"architecture {named} is not one that ramify runs; it runs {', '.join(known_architectures())} "
        "(the `architectures` entry of config.json)"
    )


register_family(
    ModelFamily(
        "LlamaForCausalLM",
        attention_bias="option",
        mlp_bias_option=True,
        defaults={"max_position_embeddings": 2048},
    )
)
register_family(
    ModelFamily(
        "MistralForCausalLM",
        windows="every layer",
        defaults={"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096},
    )
)
register_family(
    ModelFamily(
        "Qwen2ForCausalLM",
        attention_bias="qkv",
        windows="by layer",
        defaults={
            "num_key_value_heads": 32,
            "max_position_embeddings": 32768,
            "sliding_window": 4096,
            "max_window_layers": 28,
        },
    )
)
register_family(
    ModelFamily(
        "Qwen3ForCausalLM",
        attention_bias="option",
        qk_norm=True,
        windows="by layer",
        defaults={
            "num_key_value_heads": 32,
            "head_dim": 128,
            "max_position_embeddings": 32768,
            "sliding_window": 4096,
            "max_window_layers": 28,
        },
    )
)
