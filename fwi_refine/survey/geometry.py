"""The survey: grid, time steps, sources, receivers, wavelet and absorbing band.

Everything that distinguishes one acquisition from another stands here, in one frozen object.
`OPENFWI` is the survey of the OpenFWI data sets and of the Yale/UNC-CH benchmark (Deng et al.,
"OpenFWI", NeurIPS 2022, whose data was made with the acoustic code `a2d_mod_abc24` of KAUST).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fwi_refine.survey.stability import (
    check_dispersion,
    fastest_stable,
    largest_dispersion,
    remedies,
)

Points = tuple[tuple[int, int], ...]

# Rows and columns of a padded grid. In a block of four time steps the CPU kernel would overwrite
# rows that it still needs where there are fewer than six; where there is one column, its
# neighbours at distance 1 and 2 are itself.
MIN_PADDED = (6, 2)
MAX_NUMBER = 1_000_000  # of any whole number of a survey: more is a mistake, or takes all memory
MIN_NUMBER = 1e-30  # of spacing, dt and frequency in their units, and 1 over the largest


@dataclass(frozen=True)
class Survey:
    """One acquisition geometry and the grid that it is simulated on.

    Positions are (row, column) of the map, row = depth. They may lie up to `absorbing_cells`
    outside the map, in the absorbing band.

    Parameters
    ----------
    shape : tuple of int
        (nz, nx), cells of the map.
    spacing : float
        Of the grid, the same in depth and position, m.
    dt : float
        Time step, s.
    n_steps : int
        Steps simulated and used for the misfit.
    file_rows : int
        Time rows of a record file; rows from n_steps on are not used.
    frequency : float
        Of the peak of the Ricker wavelet, Hz.
    absorbing_cells : int
        Width of the absorbing band on each side.
    sources, receivers : tuple of tuple of int
        Their positions.
    velocity_bounds : tuple of float
        Slowest and fastest velocity that count as physical, m/s.
    water : tuple of (int, float), optional
        A layer of water: how many rows from the top of the map, and its velocity, m/s. Its cells
        are known.
    given_wavelet : tuple of float, optional
        Samples of another wavelet than the Ricker's, one for each step from the first; zero after
        its end. `frequency` is then that of the peak of its spectrum.

    Raises
    ------
    ValueError
        For sizes that are no whole numbers or too small, positions outside the padded grid, a
        velocity bound beyond the stability limit of the scheme with its damping, and a grid too
        coarse for the wavelet.
    """

    shape: tuple[int, int] = (70, 70)
    spacing: float = 10.0
    dt: float = 1e-3
    n_steps: int = 999
    file_rows: int = 1000
    frequency: float = 15.0
    absorbing_cells: int = 120
    sources: Points = ((1, 0), (1, 17), (1, 34), (1, 52), (1, 69))
    receivers: Points = tuple((1, column) for column in range(70))
    velocity_bounds: tuple[float, float] = (1000.0, 6000.0)
    water: tuple[int, float] | None = None
    given_wavelet: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_numbers()
        self._check_points()
        self._check_stability()
        self._check_wavelet()
        check_dispersion(self.velocity_bounds, self.frequency, self.spacing, self.dt)

    def _check_numbers(self) -> None:
        nz = self.shape[0]
        for name in ("spacing", "dt", "frequency"):
            if not MIN_NUMBER < getattr(self, name) < 1 / MIN_NUMBER:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number above 0")
        slowest, fastest = self.velocity_bounds
        if not 0 < slowest < fastest < math.inf:
            raise ValueError(
                f"velocity bounds are {slowest} and {fastest} m/s, expected 0 < slowest < fastest"
            )
        if self.water is not None:
            rows, velocity = self.water
            if not (_is_whole(rows) and 0 < rows < nz and slowest <= velocity <= fastest):
                raise ValueError(
                    f"water is {rows} rows of {velocity} m/s, expected 1 to {nz - 1} rows and a "
                    "velocity within the bounds"
                )

    def _check_points(self) -> None:
        nz, nx = self.shape
        margin = self.absorbing_cells
        for name, points in (("source", self.sources), ("receiver", self.receivers)):
            for row, column in points:
                if not (_is_whole(row) and _is_whole(column)):
                    raise ValueError(f"{name} at ({row}, {column}): expected whole numbers")
                if not (-margin <= row < nz + margin and -margin <= column < nx + margin):
                    raise ValueError(
                        f"{name} at row {row}, column {column} lies outside the padded grid "
                        f"(rows {-margin}..{nz + margin - 1}, columns {-margin}..{nx + margin - 1})"
                    )

    def _check_stability(self) -> None:
        slowest, fastest = self.velocity_bounds
        # no map of any use is fast everywhere: half of the fastest velocity is taken for vmin
        vmin = max(slowest, fastest / 2)
        undamped, stable = self.stable_velocities(vmin)
        if fastest > stable:
            damping = self._strongest_damping * vmin
            dt, spacing = remedies(fastest, damping, self.spacing, self.dt)
            raise ValueError(
                f"velocity bound {fastest} m/s is unstable: with spacing {self.spacing} m, dt "
                f"{self.dt} s and {self.absorbing_cells} absorbing cells the scheme is stable up "
                f"to {stable:.0f} m/s. Expected dt of at most {dt:.3g} s, or a spacing of at least "
                f"{spacing:.3g} m, "
                + ("more absorbing cells, " if fastest <= undamped else "")
                + "or a lower bound"
            )

    def _check_wavelet(self) -> None:
        least, most = 0.01 / (self.n_steps * self.dt), 0.5 / self.dt
        if not least <= self.frequency <= most:
            raise ValueError(
                f"wavelet of {self.frequency:g} Hz: expected {least:.3g} to {most:.3g} Hz, from a "
                "period as long as a hundred records to two steps of one"
            )
        if self.given_wavelet is not None:
            given = np.asarray(self.given_wavelet, dtype=np.float64)
            if given.ndim != 1 or not np.isfinite(given).all() or not given.any():
                raise ValueError("wavelet: expected samples that are finite and not all zero")

    def _check_sizes(self) -> None:
        if len(self.shape) != 2:
            raise ValueError(f"shape is {self.shape}, expected (nz, nx)")
        whole = {f"shape[{i}]": (n, 1) for i, n in enumerate(self.shape)}
        whole |= {name: (getattr(self, name), 1) for name in ("n_steps", "file_rows")}
        whole["absorbing_cells"] = (self.absorbing_cells, 0)
        for name, (value, least) in whole.items():
            if not (_is_whole(value) and least <= value <= MAX_NUMBER):
                raise ValueError(
                    f"{name} is {value!r}, expected a whole number of {least} to {MAX_NUMBER}"
                )
        if any(n < least for n, least in zip(self.padded_shape, MIN_PADDED, strict=True)):
            raise ValueError(
                f"the padded grid has {self.padded_shape} rows and columns, expected at least "
                f"{MIN_PADDED}"
            )

    def stable_velocities(self, vmin: float) -> tuple[float, float]:
        """Highest velocities at which a map is simulated without growing waves.

        Parameters
        ----------
        vmin : float
            The velocity that scales the damping, m/s.

        Returns
        -------
        tuple of float
            That of cells inside the map and that of its edge cells, which the absorbing band
            repeats and damps, m/s.
        """
        return (
            fastest_stable(self.spacing, self.dt),
            fastest_stable(self.spacing, self.dt, vmin * self._strongest_damping),
        )

    @property
    def _strongest_damping(self) -> float:
        """Of the band's outermost cells, per step and per unit of vmin."""
        return float(self._absorbing_profile().max(initial=0.0))

    @property
    def dispersion(self) -> float:
        """Largest error of the phase velocity, a fraction; see `stability.largest_dispersion`."""
        return largest_dispersion(self.velocity_bounds, self.frequency, self.spacing, self.dt)

    @property
    def padded_shape(self) -> tuple[int, int]:
        """Shape of the grid that is simulated: the map and its absorbing band."""
        return (self.shape[0] + 2 * self.absorbing_cells, self.shape[1] + 2 * self.absorbing_cells)

    @property
    def record_shape(self) -> tuple[int, int, int]:
        """(shots, steps, receivers) of a simulated record."""
        return (len(self.sources), self.n_steps, len(self.receivers))

    @property
    def file_shape(self) -> tuple[int, int, int]:
        """(shots, rows, receivers) of a record as it is stored in a file."""
        return (len(self.sources), self.file_rows, len(self.receivers))

    @property
    def unit(self) -> float:
        """By how much larger records are than those of OpenFWI: (spacing / 10 m)^2.

        The scheme knows v dt / dx alone, and a source injects dx^2 times that squared. So with
        lengths and times k times as large the same map has the same record, times k^2. What the
        recipes say of misfits is for OpenFWI and is multiplied by this.
        """
        return (self.spacing / 10.0) ** 2

    @cached_property
    def whole_wavelet(self) -> NDArray[np.float64]:
        """Ricker wavelet in its own length, float64, also where the survey ends before it does.

        w = (1 - 2 b) exp(-b), b = (pi f (k - centre) dt)^2, cut to 2 floor(1.1 / (f dt)) + 1
        samples. The cut leaves a step of -1.6e-4 at the start, which is in the released data.
        A given wavelet is as it was given.
        """
        if self.given_wavelet is not None:
            return np.asarray(self.given_wavelet, dtype=np.float64)
        half = int(2.2 / self.frequency / self.dt / 2)
        b = (np.pi * self.frequency * np.arange(-half, half + 1) * self.dt) ** 2
        return (1.0 - 2.0 * b) * np.exp(-b)

    @property
    def wavelet_centre(self) -> int:
        """The step at which the wavelet has its peak."""
        return int(np.argmax(np.abs(self.whole_wavelet)))

    @cached_property
    def wavelet(self) -> NDArray[np.float64]:
        """The wavelet that sources inject, (n_steps,) float64: cut off, or zero after its end."""
        wavelet = np.zeros(self.n_steps)
        wavelet[: self.whole_wavelet.size] = self.whole_wavelet[: self.n_steps]
        return wavelet

    def with_wavelet(self, samples: ArrayLike) -> "Survey":
        """The same survey with another wavelet.

        Parameters
        ----------
        samples : array_like, (n,)
            Of the wavelet, one for each step from the first.

        Returns
        -------
        Survey
            Its `frequency` stays what it is.
        """
        return replace(self, given_wavelet=tuple(np.asarray(samples, dtype=np.float64).tolist()))

    @cached_property
    def damping(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Damping per step and per unit of vmin: (by row, by column), float64, zero on the map.

        kappa = vmin * damping. The left and right bands take the whole height with the damping
        of their column, also in their innermost column, where it is zero; the top and bottom
        bands have that of their row in the columns between.
        A band of width a damps by 3 ln(1e7) / (2 a) (x / a)^2, x counted outwards from the map.
        """
        profile = self._absorbing_profile()
        by_row, by_column = (
            np.concatenate([profile[::-1], np.zeros(n), profile]) for n in self.shape
        )
        return by_row, by_column

    def _absorbing_profile(self) -> NDArray[np.float64]:
        """Damping of the band per step and per unit of vmin, from the map outwards."""
        nbc = self.absorbing_cells
        if not nbc:
            return np.zeros(0)
        width = max(nbc - 1, 1) * self.spacing
        x = np.arange(nbc) * self.spacing
        profile: NDArray[np.float64] = 1.5 * np.log(1e7) / width * (x / width) ** 2 * self.dt
        return profile

    def padded_index(self, points: Iterable[tuple[int, int]]) -> NDArray[np.int32]:
        """Positions on the padded grid.

        Parameters
        ----------
        points : iterable of tuple of int
            (row, column) on the map.

        Returns
        -------
        ndarray of int32, (n, 2)
            (row, column) on the padded grid.
        """
        points = tuple(points)
        return np.asarray(points, dtype=np.int32).reshape(-1, 2) + np.int32(self.absorbing_cells)


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


OPENFWI = Survey()
