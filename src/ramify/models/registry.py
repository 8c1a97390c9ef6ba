"""Model families: what sets each architecture apart, as data. One registration each; one decoder for all.

A family says where it differs from the common decoder (biases, query and key norms, sliding windows) and which values
its `config.json` may leave out. The parsing itself is in `config.py`, the module in `decoder.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ramify.errors import UnsupportedModelError
from ramify.models.reward_head import HeadKind, RewardHead

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
        head: what stands on the last layer.
        num_labels: labels of the head where the architecture fixes them.
        reward: how the published checkpoints of it are read as reward models, where that is one way.
        replaces_code: checkpoints of it bring model code (``auto_map``); what ramify has here stands for that code.
    """

    architecture: str
    attention_bias: AttentionBias = "never"
    mlp_bias_option: bool = False
    qk_norm: bool = False
    windows: Windows = "never"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    head: HeadKind = "vocabulary"
    num_labels: int | None = None
    reward: RewardHead | None = None
    replaces_code: bool = False


_FAMILIES: dict[str, ModelFamily] = {}


def register_family(family: ModelFamily) -> ModelFamily:
    """Make a family known; a second registration of one architecture is an error."""
    if family.architecture in _FAMILIES:
        raise ValueError(f"model family {family.architecture} is registered already")
    _FAMILIES[family.architecture] = family
    return family


def known_architectures() -> tuple[str, ...]:
    """Names of all registered architectures: those that write text first, then those that score; sorted."""
    return tuple(sorted(_FAMILIES, key=lambda name: (_FAMILIES[name].head != "vocabulary", name)))


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


def _register_with_labels(family: ModelFamily) -> None:
    """Register a causal model, and the same as transformers writes it with labels of tokens or texts, or without a
    head."""
    register_family(family)
    base = family.architecture.removesuffix("ForCausalLM")
    register_family(replace(family, architecture=f"{base}ForTokenClassification", head="token"))
    register_family(replace(family, architecture=f"{base}ForSequenceClassification", head="sequence"))
    register_family(replace(family, architecture=f"{base}Model", head="none"))


_register_with_labels(
    ModelFamily(
        "LlamaForCausalLM",
        attention_bias="option",
        mlp_bias_option=True,
        defaults={"max_position_embeddings": 2048},
    )
)
_register_with_labels(
    ModelFamily(
        "MistralForCausalLM",
        windows="every layer",
        defaults={"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096},
    )
)
_QWEN2 = ModelFamily(
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
_register_with_labels(_QWEN2)
# Qwen2.5-Math-PRM and Qwen2.5-Math-RM: two layers under the labels, and modelling code beside the weights.
register_family(
    replace(
        _QWEN2,
        architecture="Qwen2ForProcessRewardModel",
        head="token",
        num_labels=2,
        reward=RewardHead(step_token="\n\n", mark="<extra_0>", good_label=1),
        replaces_code=True,
    )
)
register_family(replace(_QWEN2, architecture="Qwen2ForRewardModel", head="sequence", num_labels=1, replaces_code=True))
# Skywork-o1-Open-PRM: a value head, read at each line's last token.
register_family(
    replace(
        _QWEN2,
        architecture="Qwen2ForPrmModel",
        head="value",
        num_labels=1,
        reward=RewardHead(step_token="\n"),
        replaces_code=True,
    )
)
_register_with_labels(
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
