"""Scattering of single cells, in every trace and step of a record, by reciprocity.

With alpha = (v dt / dx)^2 the scheme reads T p = alpha L p + injection, T its part in time. Where
alpha becomes alpha', the record of source s at receiver r changes by

    g_r<-x * (1 - alpha / alpha') (T p_s)(x)        * a convolution in time

up to what the change of p does in its place. It is linear in squared slowness, and closer to the
truth than the derivative by velocity: a cell of 1975 m/s that becomes one of 3569 m/s is 12 %
off, instead of 153 %. By g_r<-x = g_x<-r alpha_r / alpha_x a simulation of an impulse at each
receiver gives g for all cells. Nothing is cut off in frequency, as `wave.jacobian` does, so that
the first arrivals are right: the change agrees with the tangent to 2e-6.
"""

import dataclasses
import functools
import math
from fractions import Fraction

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from fwi_refine.survey import Survey
from fwi_refine.wave import Simulator

BAND = 16  # cells of the absorbing band that count with the edge cell which they repeat
CHUNK = 64  # points of one cell and its band whose spectra are multiplied at a time
STEPS = ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1))  # to near cells


class _ImpulseSurvey(Survey):
    """The same survey with a single sample as its wavelet."""

    @functools.cached_property
    def wavelet(self) -> np.ndarray:
        wavelet = np.zeros(self.n_steps)
        wavelet[0] = 1.0
        return wavelet


def arrival_steps(v: np.ndarray, survey: Survey) -> np.ndarray:
    """Steps that a wave takes from each source over each cell to each receiver.

    Parameters
    ----------
    v
        Map (nz, nx), m/s.
    survey
        Sources and receivers on the map.

    Returns
    -------
    steps
        (shots, receivers, nz * nx), by paths from cell to cell, which are up to 3 % too long.
    """
    nz, nx = v.shape
    number, slowness = np.arange(nz * nx).reshape(nz, nx), 1 / v
    here, there, time = [], [], []
    for down, right in STEPS:
        a = np.s_[: nz - down, max(0, -right) : nx - max(0, right)]
        b = np.s_[down:, max(0, right) : nx + min(0, right)]
        length = math.hypot(down, right) * survey.spacing / survey.dt
        here.append(number[a].ravel())
        there.append(number[b].ravel())
        time.append(length * (slowness[a] + slowness[b]).ravel() / 2)
    graph = coo_matrix(
        (np.concatenate(time), (np.concatenate(here), np.concatenate(there))),
        shape=(nz * nx, nz * nx),
    ).tocsr()
    from_sources, from_receivers = (
        dijkstra(graph, directed=False, indices=[row * nx + column for row, column in points])
        for points in (survey.sources, survey.receivers)
    )
    return from_sources[:, None] + from_receivers


def scattering_cost(survey: Survey) -> Fraction:
    """Records that `scattered` simulates: a shot for each receiver, and one record in float64."""
    return 1 + Fraction(len(survey.receivers), len(survey.sources))


def scattered(
    v: torch.Tensor, cells: np.ndarray, steps: torch.Tensor, simulator: Simulator
) -> torch.Tensor:
    """Changes of the record by 1 - alpha / alpha' = 1 in one cell each, in a window per trace.

    Parameters
    ----------
    v
        Map (nz, nx) float64, m/s; vmin is its minimum.
    cells
        (C, 2) rows and columns; none of them a source.
    steps
        (shots, receivers, width), the steps wanted of each trace, from 0 to n_steps - 1.
    simulator
        Its survey, and how it is to be simulated.

    Returns
    -------
    changes
        (C, shots, receivers, width) float32, on the CPU.
    """
    survey, v = simulator.survey, v.double().cpu()
    points, owner = _with_band(cells, tuple(v.shape), min(BAND, survey.absorbing_cells))
    here = tuple(map(tuple, points.tolist()))
    row, column = (
        torch.from_numpy(points[:, axis].clip(0, n - 1)) for axis, n in enumerate(v.shape)
    )
    alpha = (v[row, column] * survey.dt / survey.spacing).square()
    p = _simulated(v, dataclasses.replace(survey, receivers=here), torch.float64, simulator)
    p = torch.nn.functional.pad(p, (0, 0, 2, 0))  # at rest before
    kappa = _damping(points, survey) * v.min()
    t = p[:, 2:] - (2 - kappa) * p[:, 1:-1] + (1 - kappa) * p[:, :-2]
    t = (t / (alpha * survey.spacing**2)).float().movedim(1, 2).contiguous()
    own = {f.name: getattr(survey, f.name) for f in dataclasses.fields(survey)}
    impulse = _ImpulseSurvey(**{**own, "sources": survey.receivers, "receivers": here})
    g = _simulated(v, impulse, torch.float32, simulator).movedim(1, 2).contiguous()
    length = next_fast_len(2 * survey.n_steps, real=True)
    changes = torch.empty(len(cells), *steps.shape)
    for cell, parts in enumerate(
        np.split(np.arange(len(owner)), np.flatnonzero(np.diff(owner)) + 1)
    ):
        spectrum = sum(
            torch.einsum("spf,rpf->srf", *(torch.fft.rfft(x[:, some], n=length) for x in (t, g)))
            for some in torch.from_numpy(parts).split(CHUNK)
        )
        changes[cell] = torch.fft.irfft(spectrum, n=length).gather(2, steps)
    return changes


def _simulated(
    v: torch.Tensor, survey: Survey, dtype: torch.dtype, simulator: Simulator
) -> torch.Tensor:
    """The record of a map, (shots, n_steps, receivers), on the CPU."""
    return Simulator(survey, dtype, **simulator.options).forward(v[None])[0].cpu()


def _damping(points: np.ndarray, survey: Survey) -> torch.Tensor:
    """The damping of points, per unit of vmin: sideways where they lie beside the map."""
    margin, nx = survey.absorbing_cells, survey.shape[1]
    by_row, by_column = (part[points[:, axis] + margin] for axis, part in enumerate(survey.damping))
    beside = (points[:, 1] < 0) | (points[:, 1] >= nx)
    return torch.from_numpy(np.where(beside, by_column, by_row))


def _with_band(
    cells: np.ndarray, shape: tuple[int, ...], band: int
) -> tuple[np.ndarray, np.ndarray]:
    """(points (n, 2), number of the cell of each, rising): cells and the band that repeats them."""
    points, owner = [], []
    for number, cell in enumerate(cells):
        rows, columns = (
            range(at - band * (at == 0), at + 1 + band * (at == n - 1))
            for at, n in zip(cell.tolist(), shape, strict=True)
        )
        points += [(row, column) for row in rows for column in columns]
        owner += [number] * (len(rows) * len(columns))
    return np.array(points), np.array(owner)
