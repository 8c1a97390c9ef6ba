"""Rounding column by column, the error of each made up for by the columns that are not rounded yet.

GPTQ (arXiv:2210.17323): with the second moments H of the inputs, the error that one column adds to the output is
lessened by changing the later ones, by rows of the Cholesky factor of H's inverse. Groups, scales and codes are those
of plain rounding, so nothing of it is seen by the kernels.

Columns make up for each other in blocks. The cost of a factor grows with the cube of its size; within 512 columns
nearly all is gained that there is to gain, and what few inputs pretend to say of far-off columns does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ramify.quantization.scales import Grid, Rounding, expected_factors, fit_grid

BLOCK_COLUMNS = 512
"""Columns that make up for each other; a multiple of every group."""
_UNCORRELATED_SAMPLES = 50
"""Inputs that are thought to have been seen besides, whose columns have nothing to do with each other: few samples
correlate by chance."""
_DAMPING = 0.01
"""Part of the mean second moment that is added to each, so that rarely used columns cannot run away."""


def second_moments(inputs: torch.Tensor) -> list[torch.Tensor]:
    """What `compensated` wants to know of inputs.

    Args:
        inputs: float32 [samples, columns].

    Returns:
        Of each `BLOCK_COLUMNS` columns in turn the mean of x x^T, float32 [size, size].
    """
    kept = len(inputs) / (len(inputs) + _UNCORRELATED_SAMPLES)
    found = []
    for block in torch.split(inputs, BLOCK_COLUMNS, dim=1):
        moments = block.t() @ block / len(inputs)
        found.append(torch.where(torch.eye(len(moments), dtype=torch.bool), moments, moments * kept))
    return found


def compensated(weight: torch.Tensor, moments: Sequence[torch.Tensor], rounding: Rounding) -> tuple[torch.Tensor, Grid]:
    """Round a weight for inputs of these second moments.

    Args:
        weight: float32 [rows, columns]; `columns` is a multiple of its group size.
        moments: of blocks of the columns in turn, as `second_moments` gives them; the last may lack the columns of
            zeros that pad the weight.
        rounding: of the format.

    Returns:
        Codes as float32 [rows, columns] (see `Grid.codes`) and the grid.
    """
    starts = range(0, weight.shape[1], BLOCK_COLUMNS)
    blocks = [
        _block(weight[:, start : start + BLOCK_COLUMNS], own, rounding)
        for start, own in zip(starts, moments, strict=True)
    ]
    return torch.cat([codes for codes, _ in blocks], dim=1), Grid.joined([grid for _, grid in blocks])


def _block(weight: torch.Tensor, moments: torch.Tensor, rounding: Rounding) -> tuple[torch.Tensor, Grid]:
    """The same of columns that all make up for each other."""
    short = weight.shape[1] - len(moments)
    factor = _inverse_factor(torch.nn.functional.pad(moments, (0, short, 0, short)))
    left = weight.clone()
    codes = torch.empty_like(weight)
    grids: list[Grid] = []
    shared: torch.Tensor | None = None
    for start in range(0, weight.shape[1], rounding.group_size):
        end = start + rounding.group_size
        if rounding.factor_size and start % rounding.factor_size == 0:  # of the weights as they have become
            unit = left[:, start : start + rounding.factor_size]
            shared = expected_factors(unit.reshape(len(unit), -1, rounding.group_size), rounding)[:, :1]
        own = factor[start:end, start:end]
        importance = own.diagonal().reciprocal().square()
        grids.append(fit_grid(left[:, None, start:end], rounding, importance[None], factors=shared))
        codes[:, start:end], errors = _round_group(left[:, start:end], own, grids[-1])
        left[:, end:] -= errors @ factor[start:end, end:]
    return codes, Grid.joined(grids)


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
