"""The survey: grid, time steps, sources, receivers, wavelet and absorbing band.

Everything that distinguishes one acquisition from another stands here, in one frozen object.
`OPENFWI` is the survey of the OpenFWI data sets and of the Yale/UNC-CH benchmark (Deng et al.,
"OpenFWI", NeurIPS 2022, whose data was made with the acoustic code `a2d_mod_abc24` of KAUST).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fwi_refine.survey.stability import (
    CFL_LIMIT,
    DISPERSION_LIMIT,
    HALF_POWER,
    LEAST_POINTS,
    fastest_stable,
    phase_velocity_error,
)


@dataclass(frozen=True)
class Survey:
    """One acquisition geometry and the grid that it is simulated on.

    Positions are (row, column) of the map, row = depth. They may lie up to `absorbing_cells`
    outside the map, in the absorbing band.
    """

    shape: tuple[int, int] = (70, 70)  # (nz, nx) cells of the map
    spacing: float = 10.0  # m, the same in depth and position
    dt: float = 1e-3  # s
    n_steps: int = 999  # steps simulated and used for the misfit
    file_rows: int = 1000  # time rows of a record file; rows from n_steps on are not used
    frequency: float = 15.0  # Hz, peak of the Ricker wavelet
    absorbing_cells: int = 120  # width of the absorbing band on each side
    sources: tuple[tuple[int, int], ...] = ((1, 0), (1, 17), (1, 34), (1, 52), (1, 69))
    receivers: tuple[tuple[int, int], ...] = tuple((1, column) for column in range(70))
    velocity_bounds: tuple[float, float] = (1000.0, 6000.0)  # m/s, what counts as physical

    def __post_init__(self):
        nz, nx = self.shape
        for name in ("spacing", "dt", "frequency"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number above 0")
        slowest, fastest = self.velocity_bounds
        if not 0 < slowest < fastest < math.inf:
            raise ValueError(
                f"velocity bounds are {slowest} and {fastest} m/s, expected 0 < slowest < fastest"
            )
        margin = self.absorbing_cells
        for name, points in (("source", self.sources), ("receiver", self.receivers)):
            for row, column in points:
                if not (-margin <= row < nz + margin and -margin <= column < nx + margin):
                    raise ValueError(
                        f"{name} at row {row}, column {column} lies outside the padded grid "
                        f"(rows {-margin}..{nz + margin - 1}, columns {-margin}..{nx + margin - 1})"
                    )
        stable = fastest_stable(self.spacing, self.dt)
        if fastest > stable:
            raise ValueError(
                f"velocity bound {fastest} m/s is unstable: with spacing {self.spacing} m and dt "
                f"{self.dt} s the scheme is stable up to {stable:.0f} m/s. Expected dt of at most "
                f"{0.999 * CFL_LIMIT * self.spacing / fastest:.3g} s, or a spacing of at least "
                f"{1.001 * fastest * self.dt / CFL_LIMIT:.3g} m"
            )
        least, most = 0.01 / (self.n_steps * self.dt), 0.5 / self.dt
        if not least <= self.frequency <= most:
            raise ValueError(
                f"wavelet of {self.frequency:g} Hz: expected {least:.3g} to {most:.3g} Hz, from a "
                "period as long as a hundred records to two steps of one"
            )
        if self.dispersion > DISPERSION_LIMIT:
            spacing = slowest / (HALF_POWER * self.frequency * LEAST_POINTS)
            finer = spacing / self.spacing
            raise ValueError(
                f"the grid is too coarse: {self.dispersion_words()}. Expected at most "
                f"{DISPERSION_LIMIT:.0%}: a spacing of at most {0.999 * spacing:.3g} m, a wavelet "
                f"of at most {0.999 * finer * self.frequency:.3g} Hz, or a slowest velocity of at "
                f"least {1.001 * slowest / finer:.4g} m/s"
            )

    @property
    def dispersion(self) -> float:
        """Largest error of the phase velocity, as a fraction, at the upper frequency at which the
        wavelet has half of its power, for the velocities between the bounds."""
        frequency = HALF_POWER * self.frequency
        return max(
            abs(phase_velocity_error(v, frequency, self.spacing, self.dt))
            for v in self.velocity_bounds
        )

    def dispersion_words(self) -> str:
        """Its numbers, for a message."""
        frequency = HALF_POWER * self.frequency
        points = self.velocity_bounds[0] / frequency / self.spacing
        return (
            f"at {self.velocity_bounds[0]:g} m/s, the slowest velocity, a wave of {frequency:.1f} "
            f"Hz (the wavelet of {self.frequency:g} Hz has half of its power there) has "
            f"{points:.1f} points of {self.spacing:g} m in its wavelength, and phase velocities "
            f"are up to {self.dispersion:.1%} wrong"
        )

    @property
    def padded_shape(self) -> tuple[int, int]:
        """Shape of the grid that is simulated: the map and its absorbing band."""
        return tuple(n + 2 * self.absorbing_cells for n in self.shape)

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
    def whole_wavelet(self) -> np.ndarray:
        """Ricker wavelet in its own length, float64, also where the survey ends before it does.

        w = (1 - 2 b) exp(-b), b = (pi f (k - centre) dt)^2, cut to 2 floor(1.1 / (f dt)) + 1
        samples. The cut leaves a step of -1.6e-4 at the start, which is in the released data.
        """
        half = int(2.2 / self.frequency / self.dt / 2)
        b = (np.pi * self.frequency * np.arange(-half, half + 1) * self.dt) ** 2
        return (1.0 - 2.0 * b) * np.exp(-b)

    @property
    def wavelet_centre(self) -> int:
        """The step at which the wavelet has its peak."""
        return int(np.argmax(self.whole_wavelet))

    @cached_property
    def wavelet(self) -> np.ndarray:
        """The wavelet that sources inject, (n_steps,) float64: cut off, or zero after its end."""
        wavelet = np.zeros(self.n_steps)
        wavelet[: self.whole_wavelet.size] = self.whole_wavelet[: self.n_steps]
        return wavelet

    @cached_property
    def damping(self) -> tuple[np.ndarray, np.ndarray]:
        """Damping per step and per unit of vmin: (by row, by column), float64, zero on the map.

        kappa = vmin * damping. The left and right bands take the whole height with the damping
        of their column, also in their innermost column, where it is zero; the top and bottom
        bands have that of their row in the columns between.
        A band of width a damps by 3 ln(1e7) / (2 a) (x / a)^2, x counted outwards from the map.
        """
        nbc = self.absorbing_cells
        profile = np.zeros(0)
        if nbc:
            width = max(nbc - 1, 1) * self.spacing
            x = np.arange(nbc) * self.spacing
            profile = 1.5 * np.log(1e7) / width * (x / width) ** 2 * self.dt
        return tuple(np.concatenate([profile[::-1], np.zeros(n), profile]) for n in self.shape)

    def padded_index(self, points) -> np.ndarray:
        """(n, 2) int32 positions on the padded grid of (row, column) positions on the map."""
        return np.asarray(points, dtype=np.int32).reshape(-1, 2) + np.int32(self.absorbing_cells)


OPENFWI = Survey()
