"""Weights of a record's samples, as residuals and Jacobians take them.

With weights w of the samples the misfit is sum(w r^2) / sum(w): the mean square of the residual
W r, W = sqrt(w N / sum(w)), so that all that is said of mean squares holds as it stands. Within
the wavelet's band, where J = Q M, the weighted residual is projected onto what W Q can make,

    U U^T W r,    U = W Q G^(-1/2),    G = Q^T W^2 Q,    and W J = U (G^(1/2) M),

trace by trace. Where the weight of a trace does not change with time, U = Q and G^(1/2) is that
weight.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Of the largest eigenvalue of G: a trace tells nothing of directions below it
MIN_EIGENVALUE = 1e-8


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of the samples of a record.

    Parameters
    ----------
    samples : ndarray of float64, (shots, n_steps, receivers)
        At least 0, not all of them 0. Their scale does not matter.
    """

    samples: NDArray[np.float64]

    @classmethod
    def of(cls, samples: NDArray[np.float64] | None) -> Self | None:
        """Weights, or None where all samples count the same."""
        return None if samples is None else cls(samples)

    @property
    def count(self) -> int:
        """Samples that count."""
        return int(np.count_nonzero(self.samples))

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Samples (shots, n_steps, receivers) that do not count."""
        return self.samples == 0

    def subset(self, shots: int, receivers: int) -> "Weights":
        """Those of the first shots and of every so many-th receiver."""
        return Weights(self.samples[:shots, :, ::receivers])

    def until(self, steps: int) -> "Weights | None":
        """Those of the first steps; None where none of them counts."""
        first = self.samples[:, :steps]
        return Weights(first) if first.any() else None

    @cached_property
    def by_trace(self) -> bool:
        """Whether no trace's weight changes with time."""
        return bool((self.samples == self.samples[:, :1]).all())

    def root(self, like: Tensor) -> Tensor:
        """W.

        Parameters
        ----------
        like : Tensor
            Has the device.

        Returns
        -------
        Tensor of float64, shape (shots, n_steps, receivers)
            Its square has the mean 1.
        """
        scaled = self.samples * (self.samples.size / self.samples.sum())
        return torch.from_numpy(np.sqrt(scaled)).to(like.device)

    def filled(self, record: NDArray[np.floating], other: Tensor) -> NDArray[np.floating]:
        """A record whose missing samples are those of another one.

        Parameters
        ----------
        record : ndarray, shape (shots, >= n_steps, receivers)
            The record.
        other : Tensor, shape (shots, n_steps, receivers)
            What takes their place.

        Returns
        -------
        ndarray
            Of the shape and type of the record.
        """
        record = record.copy()
        steps = self.samples.shape[1]
        used = record[:, :steps]
        used[self.missing] = other.cpu().numpy()[self.missing]
        return record


class BandWeights:
    """Weights within the wavelet's band: U and G^(1/2) of each trace.

    Parameters
    ----------
    weights : Weights
        Of the samples.
    basis : Tensor of float64, shape (n_steps, modes)
        Q.
    """

    def __init__(self, weights: Weights, basis: Tensor):
        self.by_trace = weights.by_trace
        self.root = weights.root(basis)
        self._basis = basis
        self._profiles: list[tuple[Tensor, Tensor, Tensor]] = []
        if self.by_trace:
            return
        traces = self.root.movedim(1, 2).flatten(0, 1)
        profiles, which = torch.unique(traces, dim=0, return_inverse=True)
        for k, profile in enumerate(profiles):
            weighted = profile[:, None] * basis
            values, vectors = torch.linalg.eigh(weighted.T @ weighted)
            seen = values > MIN_EIGENVALUE * values[-1].clamp_min(torch.finfo(values.dtype).tiny)
            roots, vectors = values[seen].sqrt(), vectors[:, seen]
            mine = torch.nonzero(which == k)[:, 0]
            half = (vectors * roots) @ vectors.T
            self._profiles.append((mine, weighted @ (vectors / roots) @ vectors.T, half))

    def project(self, r: Tensor) -> Tensor:
        """U^T r.

        Parameters
        ----------
        r : Tensor, shape (shots, n_steps, receivers)
            Weighted residual.

        Returns
        -------
        Tensor, shape (shots, receivers, modes)
        """
        if self.by_trace:
            return torch.einsum("tk,str->srk", self._basis, r)
        traces = r.movedim(1, 2)
        found = r.new_zeros(traces.shape[0] * traces.shape[1], self._basis.shape[1])
        for mine, basis, _ in self._profiles:
            found[mine] = traces.flatten(0, 1)[mine] @ basis
        return found.unflatten(0, traces.shape[:2])

    def expand(self, c: Tensor) -> Tensor:
        """U c, the adjoint of `project`: (shots, receivers, modes) to records."""
        if self.by_trace:
            return torch.einsum("tk,srk->str", self._basis, c)
        found = c.new_zeros(c.shape[0] * c.shape[1], self._basis.shape[0])
        for mine, basis, _ in self._profiles:
            found[mine] = c.flatten(0, 1)[mine] @ basis.T
        return found.unflatten(0, c.shape[:2]).movedim(2, 1)

    def in_band(self, r: Tensor) -> Tensor:
        """U U^T r of weighted residuals (1, shots, n_steps, receivers)."""
        return self.expand(self.project(r[0]))[None]

    def weigh(self, rows: Tensor) -> Tensor:
        """G^(1/2) M, in place.

        Parameters
        ----------
        rows : Tensor, shape (shots * receivers * modes, n)
            M, the rows of a Jacobian; overwritten.

        Returns
        -------
        Tensor
            The same.
        """
        shots, _, receivers = self.root.shape
        traces = rows.view(shots * receivers, -1, rows.shape[1])
        if self.by_trace:
            return traces.mul_(self.root[:, 0].reshape(-1, 1, 1).to(rows)).flatten(0, 1)
        for mine, _, half in self._profiles:
            factor = half.to(rows)
            for k in mine.tolist():
                traces[k] = factor @ traces[k]
        return rows
