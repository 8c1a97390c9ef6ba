"""Keys and values of one layer in blocks, and the way of new rows into them.

Keys lie transposed within a block ([head_dim, block_size]): one load gives the same dimension of consecutive keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ramify.kernels.native import extension, native

_NATIVE_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


@dataclass(frozen=True, slots=True)
class KVLayer:
    """The cache of one layer.

    Attributes:
        keys: [kv_heads, blocks, head_dim, block_size] float32, bfloat16 or int8.
        values: [kv_heads, blocks, block_size, head_dim] like `keys`.
        key_scales, value_scales: [kv_heads, blocks, block_size] float32 if they are int8 (element = code * scale, one
            scale a token and head), else None.
    """

    keys: torch.Tensor
    values: torch.Tensor
    key_scales: torch.Tensor | None = None
    value_scales: torch.Tensor | None = None

    @property
    def block_size(self) -> int:
        """Tokens a block."""
        return self.values.shape[2]

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All of them; the second dimension of each is the block."""
        if self.key_scales is None or self.value_scales is None:
            return self.keys, self.values
        return self.keys, self.values, self.key_scales, self.value_scales

    def native_arguments(self) -> tuple[int, ...]:
        """What the native operators take for it: four addresses, the shape, and the type."""
        kv_heads, blocks, block_size, head_dim = self.values.shape
        scales = (
            (0, 0)
            if self.key_scales is None or self.value_scales is None
            else (
                self.key_scales.data_ptr(),
                self.value_scales.data_ptr(),
            )
        )
        addresses = (self.keys.data_ptr(), self.values.data_ptr(), *scales)
        return (*addresses, kv_heads, blocks, block_size, head_dim, _NATIVE_TYPES[self.keys.dtype])


def runs_natively(layer: KVLayer) -> bool:
    """Whether the native operators take this cache."""
    return extension() is not None and layer.keys.device.type == "cpu"


def store_kv(layer: KVLayer, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor) -> None:
    """Store new rows.

    Args:
        layer: where to.
        keys, values: [T, kv_heads, head_dim] float; rows may be strided.
        slots: [T] int64, block * block_size + offset.
    """
    if not runs_natively(layer):
        return reference_store_kv(layer, keys, values, slots)
    keys, values = _rows(keys), _rows(values)
    native().store_kv(
        layer.native_arguments(),
        keys.data_ptr(),
        values.data_ptr(),
        keys.stride(0),
        values.stride(0),
        slots.contiguous().data_ptr(),
        len(slots),
    )


def _rows(x: torch.Tensor) -> torch.Tensor:
    """`x` [T, heads, head_dim] as float32 with each row in one piece."""
    x = x.float()
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()


def reference_store_kv(layer: KVLayer, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor) -> None:
    """The same in torch."""
    blocks, offsets = slots // layer.block_size, slots % layer.block_size
    for new, store, scales, transposed in (
        (keys, layer.keys, layer.key_scales, True),
        (values, layer.values, layer.value_scales, False),
    ):
        rows = new.transpose(0, 1)
        if scales is not None:
            rows, scale = _to_int8(rows.float())
            scales[:, blocks, offsets] = scale
        by_slot = store.transpose(2, 3) if transposed else store
        by_slot[:, blocks, offsets] = rows.to(store.dtype)


def _to_int8(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales of [..., head_dim]. A row that is not finite gets a NaN as its scale."""
    scale = rows.abs().amax(-1) / 127
    scale = torch.where(torch.isfinite(scale), scale, torch.nan)
    usable = (scale > 1e-36)[..., None]
    return torch.where(usable, (rows * (1 / scale)[..., None]).round(), 0), scale
