"""The padded grid: the map with its absorbing band, the damping there, the stencil's weights."""

import torch
import torch.nn.functional as F

from fwi_refine.survey import Survey

# as float32 has them, in every precision: see kernels/step.h
C1, C2, C3 = torch.tensor([-5 / 2, 4 / 3, -1 / 12], dtype=torch.float32).tolist()


def pad(maps: torch.Tensor, survey: Survey) -> torch.Tensor:
    """Maps on the padded grid: the band has the edge's values.

    Parameters
    ----------
    maps : torch.Tensor, (B, nz, nx)
        The maps.
    survey : Survey
        Their survey.

    Returns
    -------
    torch.Tensor, (B, rows, cols)
        The padded maps.
    """
    margin = survey.absorbing_cells
    return F.pad(maps[:, None], (margin,) * 4, mode="replicate")[:, 0] if margin else maps


def fold(by_padded: torch.Tensor, survey: Survey) -> torch.Tensor:
    """The adjoint of `pad`: the band is added to the edge cells that it repeats.

    Parameters
    ----------
    by_padded : torch.Tensor, (B, rows, cols)
        Gradient for padded maps.
    survey : Survey
        Their survey.

    Returns
    -------
    torch.Tensor, (B, nz, nx)
        Gradient for the maps.
    """
    margin = survey.absorbing_cells
    for dim in (1, 2):
        n = by_padded.shape[dim] - 2 * margin
        inside = by_padded.narrow(dim, margin, n).clone()
        inside.select(dim, 0).add_(by_padded.narrow(dim, 0, margin).sum(dim))
        inside.select(dim, n - 1).add_(by_padded.narrow(dim, margin + n, margin).sum(dim))
        by_padded = inside
    return by_padded


def damping(survey: Survey) -> torch.Tensor:
    """Damping per step and per unit of vmin: kappa = vmin * damping.

    Parameters
    ----------
    survey : Survey
        The survey.

    Returns
    -------
    torch.Tensor of float64, (rows, cols)
        In s / m.
    """
    by_row, by_column = (torch.from_numpy(profile) for profile in survey.damping)
    # the side bands take the whole height with their column's damping, also where it is zero
    padded = by_column.repeat(len(by_row), 1)
    margin = survey.absorbing_cells
    padded[:, margin : margin + survey.shape[1]] = by_row[:, None]
    return padded
