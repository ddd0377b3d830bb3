"""The numbers of the priors and the thresholds of the routing, as values.

`toml_file.load` reads them.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from .denoiser import DENOISER_FILE, load_denoiser
from .gaussian_process import GaussianProcess
from .learned import LearnedPrior
from .variational_total_variation import VariationalTotalVariation

CELL = 10.0  # m, in which lengths and slopes of the files count


@dataclass(frozen=True)
class Routing:
    """Thresholds of the tests that send a sample to its family; see `openfwi.toml`.

    Parameters
    ----------
    symmetry_rms : float
        Largest rms asymmetry of the record of a flat map, in the unit of the record.
    style_a_log_energy : float
        Natural logarithm of the largest Style A energy; the only threshold that may be negative.
    style_b_bin : float
        Width of the bins in which velocities are counted, in m/s.
    style_b_cells : float
        Largest number of cells in a bin of a Style B map.
    blended_edges : float
        Least fraction of blended edges of a resized map.
    """

    symmetry_rms: float
    style_a_log_energy: float
    style_b_bin: float
    style_b_cells: float
    blended_edges: float


@dataclass(frozen=True)
class Variation:
    """The total variation of Style B maps about their trend in depth; see `openfwi.toml`.

    Parameters
    ----------
    scale : float
        Scale parameter of the Laplace density of differences along rows and columns, in m/s.
    diagonal_scale : float
        Scale parameter along both diagonals, in m/s.
    spread : float
        Factor of the expected errors: what the normal approximation of this prior leaves out.
    """

    scale: float
    diagonal_scale: float
    spread: float

    def prior(self) -> VariationalTotalVariation:
        """The prior before the data have told anything."""
        return VariationalTotalVariation(
            scale=self.scale, diagonal_scale=self.diagonal_scale, spread=self.spread
        )


@dataclass(frozen=True)
class Learned:
    """The learned prior of Style B maps; see `openfwi.toml`.

    Parameters
    ----------
    spread : float
        Factor of the expected errors: what the chains leave out.
    weights : str
        File of the denoiser's weights; the program's own if it is empty.
    """

    spread: float
    weights: str = ""

    @property
    def file(self) -> Path:
        """The file of the weights that are used."""
        return Path(self.weights) if self.weights else DENOISER_FILE

    def prior(self, process: GaussianProcess) -> LearnedPrior:
        """The prior before the data have told anything; process: that of the same maps."""
        return LearnedPrior(load_denoiser(self.file), process, spread=self.spread)


@dataclass(frozen=True)
class Priors:
    """The priors of the Style families and the routing thresholds.

    Parameters
    ----------
    style_a, style_b : GaussianProcess
        Gaussian processes of the two families.
    style_b_variation : Variation
        Total variation of Style B.
    style_b_learned : Learned
        Learned prior of Style B, the same on any grid.
    routing : Routing
        Thresholds.
    """

    style_a: GaussianProcess
    style_b: GaussianProcess
    style_b_variation: Variation
    style_b_learned: Learned
    routing: Routing

    def with_process(self, key: str, process: GaussianProcess) -> "Priors":
        """The same priors with another Gaussian process.

        Parameters
        ----------
        key : {"style_a", "style_b"}
            Section of the process that is replaced.
        process : GaussianProcess
            The new one.

        Returns
        -------
        Priors

        Raises
        ------
        ValueError
            For another section.
        """
        if key not in ("style_a", "style_b"):
            raise ValueError(f"found {key!r}, expected 'style_a' or 'style_b'")
        return replace(self, **{key: process})  # type: ignore[arg-type]

    def on_grid(self, shape: tuple[int, int], spacing: float) -> "Priors":
        """The same priors for maps on another grid.

        The length and the slope of `load` count in cells of 10 m. Texture is as coarse, and
        velocity rises as fast, in metres on any grid. So does the variation over an area: there
        are more differences on a finer grid, and each counts less.

        Parameters
        ----------
        shape : tuple of int
            (nz, nx) of the maps.
        spacing : float
            Size of a cell in m.

        Returns
        -------
        Priors
        """
        if shape == self.style_a.shape == self.style_b.shape and spacing == CELL:
            return self
        return replace(
            self,
            style_a=_on_grid(self.style_a, shape, spacing),
            style_b=_on_grid(self.style_b, shape, spacing),
            style_b_variation=replace(
                self.style_b_variation,
                scale=self.style_b_variation.scale * CELL / spacing,
                diagonal_scale=self.style_b_variation.diagonal_scale * CELL / spacing,
            ),
        )


@lru_cache(maxsize=8)
def _on_grid(process: GaussianProcess, shape: tuple[int, int], spacing: float) -> GaussianProcess:
    """Cached, because a process keeps what it has computed."""
    return replace(
        process,
        length=process.length * CELL / spacing,
        slope=process.slope * spacing / CELL,
        shape=shape,
    )
