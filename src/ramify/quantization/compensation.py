"""Rounding column by column, the error of each made up for by the columns that are not rounded yet.

GPTQ (arXiv:2210.17323): with the second moments H of the inputs, the error that one column adds to the output is
lessened by changing the later ones, by rows of the Cholesky factor of H's inverse. Groups, scales and codes are those
of plain rounding, so nothing of it is seen by the kernels.
"""

from __future__ import annotations

import torch

from ramify.quantization.scales import Grid, fit_grid

_DAMPING = 0.01
"""Part of the mean second moment that is added to each, so that rarely used columns cannot run away."""


def compensated(
    weight: torch.Tensor, moments: torch.Tensor, bits: int, asymmetric: bool, group_size: int
) -> tuple[torch.Tensor, Grid]:
    """Round a weight for inputs of these second moments.

    Args:
        weight: float32 [rows, columns]; `columns` is a multiple of `group_size`.
        moments: float32 [columns, columns], mean of x x^T.
        bits, asymmetric, group_size: of the format.

    Returns:
        Codes as float32 [rows, columns] (see `Grid.codes`) and the grid.
    """
    factor = _inverse_factor(moments)
    left = weight.clone()
    codes = torch.empty_like(weight)
    scales, mins = [], []
    for start in range(0, weight.shape[1], group_size):
        end = start + group_size
        own = factor[start:end, start:end]
        importance = own.diagonal().reciprocal().square()
        grid = fit_grid(left[:, None, start:end], bits, asymmetric, importance[None])
        codes[:, start:end], errors = _round_group(left[:, start:end], own, grid)
        left[:, end:] -= errors @ factor[start:end, end:]
        scales.append(grid.scales)
        if grid.mins is not None:
            mins.append(grid.mins)
    return codes, Grid(torch.cat(scales, dim=1), torch.cat(mins, dim=1) if asymmetric else None, bits)


def _round_group(group: torch.Tensor, factor: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [rows, size] of one group and what each column owes to the later ones."""
    columns = group.t().contiguous()  # a column of the weight is then contiguous
    codes, errors = torch.empty_like(columns), torch.empty_like(columns)
    scale, inverse, low, high = grid.steps(0)
    if grid.mins is not None:
        columns -= grid.mins[:, 0].float()  # each column's min stays what it is: errors move between columns
    shares = factor / factor.diagonal()[:, None]
    for place in range(len(columns)):
        column, code = columns[place], codes[place]
        torch.mul(column, inverse, out=code).round_().clamp_(low, high)
        torch.addcmul(column, code, scale, value=-1, out=errors[place])
        if place + 1 < len(columns):
            columns[place + 1 :].addr_(shares[place, place + 1 :], errors[place], alpha=-1)
    return codes.t(), (errors / factor.diagonal()[:, None]).t()


def _inverse_factor(moments: torch.Tensor) -> torch.Tensor:
    """The upper Cholesky factor of the damped moments' inverse, float32 [columns, columns]."""
    damped = moments.double()
    unused = damped.diagonal() == 0
    damped.diagonal().add_(_DAMPING * damped.diagonal().mean() + unused.double())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()
