"""What the tensors of a decoder are called in a GGUF file, and the other way round."""

from __future__ import annotations

import re
from collections.abc import Mapping

_OUTSIDE: Mapping[str, str] = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_INSIDE: Mapping[str, str] = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_STORED_INSIDE = {stored: name for name, stored in _INSIDE.items()}
_STORED_OUTSIDE = {stored: name for name, stored in _OUTSIDE.items()}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
_BLOCK = re.compile(r"blk\.(0|[1-9]\d{0,5})\.(\w+)\.(weight|bias)")


def float_name(stored: str) -> str | None:
    """What the decoder calls a tensor of a file; None if it has none such."""
    found = _BLOCK.fullmatch(stored)
    if found is not None:
        name = _STORED_INSIDE.get(found[2])
        return None if name is None else f"model.layers.{int(found[1])}.{name}.{found[3]}"
    stem, _, kind = stored.rpartition(".")
    return f"{_STORED_OUTSIDE[stem]}.{kind}" if stem in _STORED_OUTSIDE and kind in ("weight", "bias") else None


def stored_name(name: str) -> str:
    """What a tensor of the decoder is called in a file.

    Raises:
        KeyError: it has no name there.
    """
    found = _LAYER.fullmatch(name)
    if found is not None:
        return f"blk.{found[1]}.{_INSIDE[found[2]]}.{found[3]}"
    stem, _, kind = name.rpartition(".")
    return f"{_OUTSIDE[stem]}.{kind}"
