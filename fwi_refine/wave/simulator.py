"""The wave operator: velocity maps to records, its tangent, its adjoint, and the data misfit.

The map is padded with its edge values; the gradient of a padded cell therefore belongs to the
edge cell whose value it took. vmin, the velocity that scales the damping, is the minimum of the
map unless it is given: in an inversion it is an unknown of its own, as min(v) is not smooth.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave.kernel import Kernel
from fwi_refine.wave.medium import Medium
from fwi_refine.wave.paths import MakeKernel, Path, choose
from fwi_refine.wave.threads import number_of_threads

# Imaging every 5th step changes the gradient by 1.4e-8, 20 m/s from the truth
# (benchmarks/imaging_interval.json).
IMAGING_STEP = 5


class Simulator:
    """The wave operator of one survey.

    Shapes: velocity maps v (B, nz, nx) m/s; vmin (B,) m/s, one number being taken for all maps;
    records (B, shots, n_steps, receivers). All methods take torch tensors and return tensors of
    the simulator's dtype (misfit values and derivatives by vmin: float64), without autograd;
    `simulate` is the differentiable door (differentiable.py).

    Parameters
    ----------
    survey : Survey
        Grid, time steps, sources and receivers.
    dtype : torch.dtype
        float32 or float64.
    kernel : str or callable
        "auto" takes the compiled kernel where it was built and, on a card, the first that passes
        its self-test (paths.py); "native" insists on the compiled one of the CPU, "cuda" on that
        of a GPU; "torch" is of torch's own operations, on any device; "reference" is the
        specification.
        Or a function of survey, type and imaging step that makes a kernel on the device.
    threads : int, optional
        Of the CPU; default all cores that torch uses.
    imaging_step : int
        Gradients correlate the wave at every so many steps; 1 is exact.
    narrow : bool
        False: the compiled kernel computes every cell at every step.
    device : str or torch.device, optional
        "cpu", or a GPU such as "cuda" or "cuda:1": there tensors are taken to and results stay.

    Raises
    ------
    ValueError
        For arguments that make no sense. From every method: for arrays of other shapes or types,
        and for a velocity or vmin that is not finite and positive, or beyond the stability limit
        of the scheme with its damping.
    RuntimeError
        For a GPU that cannot be used, saying why, and a kernel that was not built.
    """

    def __init__(
        self,
        survey: Survey = OPENFWI,
        dtype: torch.dtype = torch.float64,
        kernel: str | MakeKernel = "auto",
        threads: int | None = None,
        imaging_step: int = IMAGING_STEP,
        narrow: bool = True,
        device: str | torch.device | None = None,
    ):
        self.survey = survey
        self.dtype = dtype
        self.threads = number_of_threads(threads)
        if callable(kernel):
            path = Path(kernel, torch.device(device or "cpu"))
        else:
            path = choose(kernel, device, self.threads, narrow)
        self.device = path.device
        self._medium = Medium(survey, dtype, path.device)
        self._given = kernel if callable(kernel) else None
        self._imaging_step, self._narrow = imaging_step, narrow
        self._make: Callable[[torch.dtype], Kernel] = lambda dtype: path.make(
            survey, dtype, imaging_step
        )
        self._kernel = self._make(dtype)

    @functools.cached_property
    def _single(self) -> Kernel:
        """The kernel in float32, which the released data was made in."""
        return self._kernel if self.dtype == torch.float32 else self._make(torch.float32)

    @property
    def kernel(self) -> str:
        """Which kernel computes, with its instruction set or card; the first word is its kind."""
        return self._kernel.name

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of another simulator, or of `jacobian`, that is to run like this."""
        kind = self._given or self.kernel.split()[0]
        return {"kernel": kind, "threads": self.threads, "device": self.device}

    def on(self, survey: Survey, dtype: torch.dtype | None = None) -> "Simulator":
        """The same simulator for another survey, and another type where one is given."""
        return Simulator(
            survey,
            dtype or self.dtype,
            imaging_step=self._imaging_step,
            narrow=self._narrow,
            **self.options,
        )

    def forward(self, v: torch.Tensor, vmin: torch.Tensor | None = None) -> torch.Tensor:
        """Simulate records.

        Parameters
        ----------
        v : torch.Tensor, (B, nz, nx)
            Maps, m/s.
        vmin : torch.Tensor, (B,), optional
            The velocity that scales the damping, m/s; default the minimum of each map.

        Returns
        -------
        torch.Tensor, (B, shots, n_steps, receivers)
            Their records.
        """
        return self._kernel.forward(*self._medium.of(v, vmin))

    def is_stable(self, v: torch.Tensor, vmin: torch.Tensor | None = None) -> bool:
        """Whether maps can be simulated: finite, positive, below the stability limit.

        Parameters
        ----------
        v, vmin
            As for `forward`.

        Returns
        -------
        bool
            True if all of them can.
        """
        return self._medium.is_stable(v, vmin)

    def released(self, v: torch.Tensor, vmin: torch.Tensor | None = None) -> torch.Tensor:
        """Simulate records with the bits of the released data (released_arithmetic.py).

        Parameters
        ----------
        v, vmin
            As for `forward`.

        Returns
        -------
        torch.Tensor of float32, (B, shots, n_steps, receivers)
            The records.
        """
        return self._single.released(*self._medium.released(v, vmin))

    def recorded(self, v: torch.Tensor) -> torch.Tensor:
        """Records as a file has them.

        Parameters
        ----------
        v : torch.Tensor, (B, nz, nx)
            Maps, m/s.

        Returns
        -------
        torch.Tensor, (B, shots, n_steps, receivers)
            `released` ones in float32 of OpenFWI's survey, whatever its number of steps, `forward`
            ones otherwise.
        """
        ours = replace(self.survey, n_steps=OPENFWI.n_steps) == OPENFWI
        return (self.released if ours and self.dtype == torch.float32 else self.forward)(v)

    def first_differences(
        self,
        v: torch.Tensor,
        d: torch.Tensor,
        vmin: torch.Tensor | None = None,
        stop: bool = False,
    ) -> torch.Tensor:
        """The first step in which the `released` record of a map is not a given one.

        Parameters
        ----------
        v, vmin
            As for `forward`.
        d : torch.Tensor, (B, shots, n_steps, receivers)
            Records, compared in float32.
        stop : bool
            A shot may end with the first of its differences.

        Returns
        -------
        torch.Tensor of int32, (B, shots, receivers)
            n_steps where there is none.
        """
        return self._single.first_differences(*self._medium.released(v, vmin), d, stop)

    def wavefields(
        self,
        v: torch.Tensor,
        vmin: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Every k-th wavefield p[k], p[2k], ... before the last step, k the imaging step.

        p[n] is what row n - 1 of a record was taken from. In a survey without receivers nothing is
        left out; with receivers the compiled kernel leaves zeros where nothing can reach one of
        them any more.

        Parameters
        ----------
        v, vmin
            As for `forward`.
        out : torch.Tensor, optional
            An earlier result of the same shape, or of one sample and more shots cut to this shape,
            to overwrite.

        Returns
        -------
        torch.Tensor, (B, shots, frames, rows, columns)
            On the padded grid.
        """
        return self._kernel.wavefields(*self._medium.of(v, vmin), out)

    def tangent(
        self,
        v: torch.Tensor,
        dv: torch.Tensor,
        vmin: torch.Tensor | None = None,
        dvmin: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Change of the records, to first order.

        vmin stays what it is unless dvmin says otherwise, whatever dv does to the minimum.

        Parameters
        ----------
        v, vmin
            As for `forward`.
        dv : torch.Tensor, (B, nz, nx)
            Change of the maps, m/s.
        dvmin : torch.Tensor, (B,), optional
            Change of vmin, m/s; default none.

        Returns
        -------
        torch.Tensor, (B, shots, n_steps, receivers)
            J (dv, dvmin).
        """
        alpha, vmin = self._medium.of(v, vmin)
        dalpha = self._medium.change(v, dv)
        dvmin = torch.zeros_like(vmin) if dvmin is None else self._medium.of_each(v, dvmin, "dvmin")
        return self._kernel.tangent(alpha, vmin, dalpha, dvmin.to(vmin))

    def adjoint(
        self, v: torch.Tensor, u: torch.Tensor, vmin: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient of sum(u * record); exact for imaging_step = 1.

        Parameters
        ----------
        v, vmin
            As for `forward`.
        u : torch.Tensor, (B, shots, n_steps, receivers)
            Weights of the records' samples.

        Returns
        -------
        by_v : torch.Tensor, (B, nz, nx)
            J^T u by the cells of the maps.
        by_vmin : torch.Tensor of float64, (B,)
            By vmin.
        """
        alpha, vmin = self._medium.of(v, vmin)
        by_alpha, by_vmin = self._kernel.adjoint(alpha, vmin, u)
        return self._medium.by_velocity(v, by_alpha), by_vmin

    def misfit(
        self, v: torch.Tensor, d: torch.Tensor, vmin: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mean square difference from given records, over shots, steps and receivers.

        Parameters
        ----------
        v, vmin
            As for `forward`.
        d : torch.Tensor, (B, shots, n_steps, receivers)
            The records.

        Returns
        -------
        torch.Tensor of float64, (B,)
            mean((s(v) - d)^2).
        """
        alpha, vmin = self._medium.of(v, vmin)
        value, _, _ = self._kernel.misfit(alpha, vmin, d, gradient=False)
        return value / self._samples_per_record

    def misfit_and_gradient(
        self, v: torch.Tensor, d: torch.Tensor, vmin: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `misfit`, with its gradient.

        Parameters
        ----------
        v, d, vmin
            As for `misfit`.

        Returns
        -------
        value : torch.Tensor of float64, (B,)
            mean((s(v) - d)^2).
        by_v : torch.Tensor, (B, nz, nx)
            Its gradient by the cells of the maps.
        by_vmin : torch.Tensor of float64, (B,)
            By vmin.
        """
        alpha, vmin = self._medium.of(v, vmin)
        value, by_alpha, by_vmin = self._kernel.misfit(alpha, vmin, d, gradient=True)
        assert by_alpha is not None
        assert by_vmin is not None
        n = self._samples_per_record
        return value / n, self._medium.by_velocity(v, by_alpha) / n, by_vmin / n

    @property
    def _samples_per_record(self) -> int:
        shots, steps, receivers = self.survey.record_shape
        return shots * steps * receivers
