"""Records with the released data's own arithmetic, bit for bit.

The code behind OpenFWI (KAUST a2d_mod_abc24, run in torch on a GPU) computes in float32, each
operation rounded, without fused multiply-add, in this order:

    x      = v dt                                   dt as float32
    alpha  = (x (1 / dx))^2                         1 / dx as float32: torch divides by a number so
    kappa  = vmin damping
    N1     = ((up + down) + left) + right           N2 the same at distance 2
    p[n+1] = (((2 - 5 alpha) - kappa) p[n] - (1 - kappa) p[n-1]) + alpha (c2 N1 + c3 N2)
    p[n+1] at the source += (x_source^2) w[n]

So the record of the right map is equal to the measured one in every sample: with the map of a
released CurveFault_B sample all 349,650 samples of rows 0 to 998 are (RED-DiffEq's example; row 999
of that file is zero). A wrong cell leaves the record equal until the wave has been there and back.

The kernels of an inversion write the step with p[n] - p[n-1], which loses less. What is here is for
records like the released ones, and for the question whether a map is proven by its record.
"""

import math

import torch

from fwi_refine.precision import widened
from fwi_refine.survey import Survey
from fwi_refine.wave.grid import C2, C3, damping, pad

SINGLE = torch.float32


def released_medium(
    v: torch.Tensor, vmin: torch.Tensor | None, survey: Survey, divide: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The medium as the released data's arithmetic has it.

    Parameters
    ----------
    v : torch.Tensor, (B, nz, nx)
        Velocity maps, m/s.
    vmin : torch.Tensor, (B,), or None
        The velocity that scales the damping, m/s; None for the minimum of each map in float32.
    survey : Survey
        The survey.
    divide : bool
        As the same code has it on a CPU: x / dx in place of x (1 / dx).

    Returns
    -------
    alpha : torch.Tensor of float32, (B, rows, cols)
        (v dt / dx)^2 on the padded grid.
    vmin : torch.Tensor of float64, (B,)
        m/s.
    strength : torch.Tensor of float32, (B, shots)
        x^2 = (v dt)^2 at each source, m^2.
    """
    v = v.to(SINGLE)
    x = pad(v, survey) * torch.tensor(survey.dt, dtype=SINGLE)
    spacing = torch.tensor(survey.spacing if divide else 1 / survey.spacing, dtype=SINGLE)
    alpha = (x / spacing if divide else x * spacing).square()
    rows, columns = torch.from_numpy(survey.padded_index(survey.sources)).long().T
    vmin = v.amin(dim=(1, 2)) if vmin is None else vmin
    return alpha, widened(vmin.detach().to(v.device)), x.square()[:, rows, columns]


def coefficient_rounding(v: torch.Tensor, survey: Survey) -> torch.Tensor:
    """How much float32 rounds 2 - 5 alpha, as the last digits of a velocity are chance.

    Parameters
    ----------
    v : torch.Tensor, (nz, nx)
        Velocity map, m/s.
    survey : Survey
        The survey.

    Returns
    -------
    torch.Tensor of float64, (nz, nx)
        Standard deviation: of a product and a difference, each uniform within half of its last
        digit.
    """
    product = 5 * (v.double() * survey.dt / survey.spacing).square()
    digits = [torch.exp2(x.abs().log2().floor() - 23) for x in (product, 2 - product)]
    return torch.hypot(*digits) / math.sqrt(12)


def first_unequal(record: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """The first step in which two records are not equal.

    Parameters
    ----------
    record, data : torch.Tensor, (..., steps, receivers)
        The records.

    Returns
    -------
    torch.Tensor of int32, (..., receivers)
        The number of steps where there is none.
    """
    unequal = (record != data).movedim(-2, -1)
    first = unequal.int().argmax(-1).to(torch.int32)
    return torch.where(unequal.any(-1), first, record.shape[-2])


def pulses(strength: torch.Tensor, survey: Survey) -> torch.Tensor:
    """The injection of the sources.

    Parameters
    ----------
    strength : torch.Tensor, (B, shots)
        Of the sources, m^2.
    survey : Survey
        The survey, for its wavelet.

    Returns
    -------
    torch.Tensor, (B, shots, n_steps)
        In m^2.
    """
    wavelet = torch.from_numpy(survey.wavelet).to(SINGLE).to(strength.device)
    return strength[..., None] * wavelet


def propagate(
    alpha: torch.Tensor, vmin: torch.Tensor, strength: torch.Tensor, survey: Survey
) -> torch.Tensor:
    """The record of the formula above, step by step in torch.

    Parameters
    ----------
    alpha, vmin, strength : torch.Tensor
        As `released_medium` returns them.
    survey : Survey
        The survey.

    Returns
    -------
    torch.Tensor of float32, (B, shots, n_steps, receivers)
        The record.
    """
    alpha = alpha[:, None]
    kappa = damping(survey) * vmin.cpu().double()[:, None, None, None]
    kappa = kappa.to(SINGLE).to(alpha.device)
    shots = torch.arange(len(survey.sources), device=alpha.device)
    sources, receivers = (
        torch.from_numpy(survey.padded_index(points)).long().to(alpha.device).T
        for points in (survey.sources, survey.receivers)
    )
    centre, decay = (2 + -5 * alpha) - kappa, 1 - kappa
    p = old = torch.zeros_like(alpha).repeat(1, len(shots), 1, 1)
    traces = []
    for pulse in pulses(strength, survey).unbind(-1):
        following = (centre * p - decay * old) + alpha * (C2 * _sum(p, 1) + C3 * _sum(p, 2))
        following[:, shots, sources[0], sources[1]] += pulse
        p, old = following, p
        traces.append(p[:, :, receivers[0], receivers[1]])
    return torch.stack(traces, dim=2)


def _sum(p: torch.Tensor, distance: int) -> torch.Tensor:
    """The four neighbours at a distance, in the released order; the grid wraps around."""
    up, down, left, right = (
        torch.roll(p, shift, dims=dim) for dim in (-2, -1) for shift in (distance, -distance)
    )
    return ((up + down) + left) + right
