"""The Jacobian of records of flat layers by their rows, from a single simulation.

In flat layers the fields of all points at one depth are the same field g, shifted. What the cells
of a row at depth z have in common (reciprocity.py) then depends on the offset h of the receiver
from the source alone, and is a convolution, which a Fourier transform along x makes a square:

    A(z, h) = sum over x of g(x, z) g(h - x, z)
    by v(z): 2 dx^2 alpha_0^2 / (v_z alpha_z)  w T0 (1 + kappa / (z - 1)) A(z, h)

It is simulated on a map so wide that the bands at its sides begin beyond the largest offset; these
are taken for what the layers continue to. What is left out with that is the wave that goes round
the grid from its bottom to its top, in the column of little damping at a map's sides: records are
not to be used for later times than `first_return`.

`layers` are the velocities of the rows, (nz,) in m/s.
"""

import dataclasses

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.fft import next_fast_len

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave.deterministic import add_at
from fwi_refine.wave.jacobian.plan import longest_interval, make_plan
from fwi_refine.wave.jacobian.reciprocity import row_of
from fwi_refine.wave.paths import MakeKernel
from fwi_refine.wave.simulator import Simulator


def has_flat_jacobian(survey: Survey) -> bool:
    """Whether `flat_jacobian` is for this survey.

    Its sources and receivers stand at one depth of the map, and there is an absorbing band. How
    good it is depends on how well that absorbs what comes round the grid sideways: with 12 cells
    rows are 10 % off.
    """
    nz, nx = survey.shape
    rows, columns = (
        set(positions) for positions in zip(*survey.sources, *survey.receivers, strict=True)
    )
    inside = 0 <= min(rows) < nz and min(columns) >= 0 and max(columns) < nx
    return len(rows) == 1 and inside and survey.absorbing_cells > 0


def first_return(layers: ArrayLike | torch.Tensor, survey: Survey = OPENFWI) -> float:
    """Time in s after which a wave straight down has gone round the grid once."""
    layers = torch.as_tensor(layers, dtype=torch.float64)
    return float((survey.spacing / layers[row_of(survey).to(layers.device)]).sum())


def flat_jacobian(
    layers: ArrayLike | torch.Tensor,
    vmin: float | torch.Tensor,
    *,
    survey: Survey = OPENFWI,
    kernel: str | MakeKernel = "auto",
    threads: int | None = None,
    device: str | torch.device | None = None,
) -> torch.Tensor:
    """Derivative of the record of flat layers by the velocity of each row.

    Costs one shot on a map twice as wide, whatever the number of shots.

    Parameters
    ----------
    layers : array_like or torch.Tensor, (nz,)
        As above.
    vmin : float or torch.Tensor
        The velocity that scales the damping, m/s.
    survey : Survey
        One that `has_flat_jacobian`.
    kernel, threads, device
        As for `Simulator`.

    Returns
    -------
    torch.Tensor of float32, (shots, receivers, modes, nz)
        modes: coefficients of the basis `record_basis(survey)`.

    Raises
    ------
    ValueError
        For a survey that is not `has_flat_jacobian`, and velocities that cannot be simulated.

    Notes
    -----
    Measured on six made maps, a shot of OpenFWI's, up to `first_return`, relative: rows differ
    from the tangent by 1e-3 to 2e-2 in the median, smooth changes by 1e-3 to 5e-2. The larger
    numbers are for layers much faster than vmin, in which the sides absorb less.
    """
    if not has_flat_jacobian(survey):
        raise ValueError(
            "expected sources and receivers at one depth, within the map, and an absorbing band"
        )
    every = longest_interval(survey)
    plan = make_plan(survey, every)
    offsets, half = _offsets(survey), _half_width(survey)
    wide = dataclasses.replace(
        plan.survey,
        shape=(survey.shape[0], 2 * half + 1),
        sources=((survey.sources[0][0], half),),
    )
    simulator = Simulator(wide, torch.float32, kernel, threads, every, device=device)
    layers = torch.as_tensor(layers, dtype=torch.float64).to(simulator.device)
    v = layers[:, None].expand(wide.shape)
    fields = simulator.wavefields(v[None], torch.as_tensor(vmin).reshape(1))[0, 0]

    analysis, synthesis = (m.to(fields) for m in (plan.analysis, plan.synthesis))
    spectra = (analysis @ fields.flatten(1)).unflatten(1, fields.shape[1:])
    spectra = torch.complex(*spectra.chunk(2))  # (frequencies, rows, columns)
    columns = spectra.shape[2]
    size = next_fast_len(columns + half)  # so long that nothing is folded onto these offsets
    products = torch.fft.fft(spectra, n=size).square_()
    kappa = torch.from_numpy(float(vmin) * survey.damping[0]).to(fields)
    damped = plan.damped.to(products)
    products *= (1 + kappa * damped[:, None])[..., None]
    by_row = products.new_zeros(len(products), survey.shape[0], size)
    add_at(by_row, 1, row_of(survey).to(products.device), products)
    positions = torch.from_numpy(columns - 1 + offsets).to(products.device)
    by_offset = torch.fft.ifft(by_row)[..., positions]  # (frequencies, nz, shots, receivers)
    by_offset *= (2 / (layers**3 * survey.dt**2)).to(fields)[:, None, None]
    parts = torch.cat([by_offset.real, by_offset.imag])
    return torch.einsum("kf,fzsr->srkz", synthesis, parts)


def flat_jacobian_shots(survey: Survey = OPENFWI) -> float:
    """How many shots of the survey `flat_jacobian` takes the time of."""
    columns = survey.padded_shape[1]
    return (2 * _half_width(survey) + 1 + 2 * survey.absorbing_cells) / columns


def _half_width(survey: Survey) -> int:
    """Columns on each side of the source: the band is to be as far from it as on the real map."""
    return max(int(_offsets(survey).max()), survey.shape[1] // 2)


def _offsets(survey: Survey) -> NDArray[np.int_]:
    """Of each receiver from each source, in cells: (shots, receivers)."""
    sources, receivers = (np.array(p)[:, 1] for p in (survey.sources, survey.receivers))
    offsets: NDArray[np.int_] = abs(receivers - sources[:, None])
    return offsets
