"""The result for one sample."""

from dataclasses import dataclass

import numpy as np

from fwi_refine.inversion.source import FoundSource


@dataclass(frozen=True)
class Refined:
    """A refined sample.

    Attributes
    ----------
    velocity : ndarray (nz, nx) float64
        The map, m/s.
    vmin : float
        The velocity that scales the damping, m/s.
    family : str
        The route that led to the map.
    evidence : dict
        The numbers that the family is told by, see `routing.Classification`.
    family_reason : str
        Why this family.
    status : str
        "refined", "unchanged" (nothing better was found; velocity is the start, that is the
        prediction brought within the survey's bounds) or "failed" (the start cannot be simulated).
    misfit_before, misfit_after : float
        Rms, in the unit of the record.
    objective_before, objective_after : float
        Mean square misfit plus weighted prior of the recipe's first stage.
    evaluations : int
        Simulations of misfit and gradient, see `Budget`.
    iterations : int
        Of all optimisers.
    reason : str
        Why it is unchanged or failed.
    flags : tuple of str
        What a reader should know of the result.
    expected_error : float or None
        Expected mean absolute error, m/s; None where it is not known.
    deviation : ndarray (nz, nx) float32 or None
        Expected rms error of each cell, m/s; see uncertainty.py.
    samples : ndarray (K, nz, nx) float32 or None
        Maps drawn from the posterior, m/s, where they were asked for and it is known.
    history : tuple of (int, int, float)
        (stage, evaluations, rms misfit) on the way, see io/history.py.
    exact : bool or None
        Whether the map is proven: its record, in the arithmetic of the released data, is equal to
        the measured one in every sample. None where that was not tried: for maps that are not of
        integers, and for records of another arithmetic.
    equal_samples : float or None
        Fraction of the samples that come before the first difference of their trace.
    noise : float or None
        Rms of a sample's noise that the record tells, in its unit, beyond the rounding of float32;
        None where it tells nothing.
    missing : int
        Samples of the record without weight.
    source : FoundSource or None
        The wavelets, where they were estimated with the map.
    """

    velocity: np.ndarray
    vmin: float
    family: str
    evidence: dict[str, float]
    family_reason: str
    status: str
    misfit_before: float
    misfit_after: float
    objective_before: float
    objective_after: float
    evaluations: int
    iterations: int
    reason: str = ""
    flags: tuple[str, ...] = ()
    expected_error: float | None = None
    deviation: np.ndarray | None = None
    samples: np.ndarray | None = None
    history: tuple[tuple[int, int, float], ...] = ()
    exact: bool | None = None
    equal_samples: float | None = None
    noise: float | None = None
    missing: int = 0
    source: FoundSource | None = None
