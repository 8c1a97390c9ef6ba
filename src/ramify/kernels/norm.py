"""Root-mean-square normalisation (arXiv:1910.07467), with the residual added in the same pass."""

from __future__ import annotations

import torch

from ramify.kernels.native import extension, native


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalise rows.

    Args:
        x: [..., size]; float32 on the CPU.
        weight: [size], of the same dtype.
        eps: added to the mean square.
        residual: like `x`; added to it first. Without one `x` itself is normalised.

    Returns:
        The normalised rows and what was normalised (`x + residual`, or `x`), both like `x`.
    """
    if extension() is None or x.is_cuda:
        return reference_rms_norm(x, weight, eps, residual)
    x = x.contiguous()
    out, total = torch.empty_like(x), x if residual is None else torch.empty_like(x)
    kept = residual.contiguous() if residual is not None else None
    native().rms_norm(
        x.data_ptr(),
        0 if kept is None else kept.data_ptr(),
        weight.data_ptr(),
        eps,
        x.numel() // x.shape[-1],
        x.shape[-1],
        0 if kept is None else total.data_ptr(),
        out.data_ptr(),
    )
    return out, total


def reference_rms_norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in torch."""
    total = x if residual is None else x + residual
    return torch.nn.functional.rms_norm(total, weight.shape, weight, eps), total
