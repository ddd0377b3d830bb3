"""The interface of kernels of the wave equation, and the check of every argument of every call."""

import math
from typing import Protocol

import torch

from fwi_refine.limits import whole_number
from fwi_refine.survey import Survey

REAL_TYPES = (torch.float32, torch.float64)
ROUNDING = 1e-6  # of alpha in float32, relative, with some room


class Kernel(Protocol):
    """The wave equation of one survey in one precision, on the padded grid.

    Every method takes alpha = (v dt / dx)^2, (B, rows, cols), and vmin, (B,) m/s. `check_call`
    raises ValueError for arguments of another shape or type, for velocities that are not finite and
    positive, and for those beyond the stability limit of the scheme with its damping. Results are
    on the kernel's device.
    """

    @property
    def name(self) -> str:
        """Which kernel it is; the first word is its kind."""
        ...

    def forward(self, alpha: torch.Tensor, vmin: torch.Tensor) -> torch.Tensor:
        """Records, (B, shots, n_steps, receivers)."""
        ...

    def released(
        self, alpha: torch.Tensor, vmin: torch.Tensor, strength: torch.Tensor
    ) -> torch.Tensor:
        """Records in released arithmetic, float32; strength: (B, shots), of the sources."""
        ...

    def first_differences(
        self,
        alpha: torch.Tensor,
        vmin: torch.Tensor,
        strength: torch.Tensor,
        data: torch.Tensor,
        stop: bool,
    ) -> torch.Tensor:
        """First step in which such a record is not the data, (B, shots, receivers) int32."""
        ...

    def wavefields(
        self, alpha: torch.Tensor, vmin: torch.Tensor, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """p[every], p[2 every], ... before the last step, (B, shots, frames, rows, cols)."""
        ...

    def tangent(
        self, alpha: torch.Tensor, vmin: torch.Tensor, dalpha: torch.Tensor, dvmin: torch.Tensor
    ) -> torch.Tensor:
        """Change of the records, to first order, for a change of alpha and of vmin."""
        ...

    def adjoint(
        self, alpha: torch.Tensor, vmin: torch.Tensor, u: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient of sum(u * record) by alpha, (B, rows, cols), and by vmin, (B,) float64."""
        ...

    def misfit(
        self, alpha: torch.Tensor, vmin: torch.Tensor, data: torch.Tensor, gradient: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """sum((record - data)^2), (B,) float64, and its gradients where gradient is true."""
        ...


def check_kernel(dtype: torch.dtype, every: int) -> None:
    """Check what a kernel is made with.

    Parameters
    ----------
    dtype : torch.dtype
        Of the wavefields.
    every : int
        Steps between two wavefields that a gradient correlates.

    Raises
    ------
    ValueError
        For a type other than float32 and float64, and an `every` that is no positive whole number.
    """
    if dtype not in REAL_TYPES:
        raise ValueError(f"dtype {dtype}: expected torch.float32 or torch.float64")
    whole_number(every, "imaging_step", 1)


def check_call(
    survey: Survey,
    alpha: torch.Tensor,
    vmin: torch.Tensor,
    *,
    dalpha: torch.Tensor | None = None,
    dvmin: torch.Tensor | None = None,
    data: torch.Tensor | None = None,
    strength: torch.Tensor | None = None,
    every: int | None = None,
    single: torch.dtype | None = None,
) -> None:
    """Check every argument of a kernel's call: the one place where that is done.

    Parameters
    ----------
    survey : Survey
        That of the kernel.
    alpha, dalpha : torch.Tensor, (B, rows, cols)
        (v dt / dx)^2 on the padded grid, and its change.
    vmin, dvmin : torch.Tensor, (B,)
        The velocity that scales the damping, m/s, and its change.
    data : torch.Tensor, (B, shots, n_steps, receivers)
        Records.
    strength : torch.Tensor, (B, shots)
        Of the sources.
    every : int
        Steps between two wavefields, where wavefields are wanted.
    single : torch.dtype
        The kernel's type, where it has to be float32.

    Raises
    ------
    ValueError
        For another shape or type, velocities that are not finite and positive or beyond the
        stability limit, and steps between wavefields that leave none.
    """
    if alpha.ndim != 3:
        raise ValueError(f"alpha of shape {tuple(alpha.shape)}: expected three dimensions")
    samples, (shots, _, _) = len(alpha), survey.record_shape
    padded = (samples, *survey.padded_shape)
    for name, tensor, shape in (
        ("alpha", alpha, padded),
        ("vmin", vmin, (samples,)),
        ("change of alpha", dalpha, padded),
        ("change of vmin", dvmin, (samples,)),
        ("records", data, (samples, *survey.record_shape)),
        ("strength", strength, (samples, shots)),
    ):
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} of shape {tuple(tensor.shape)}: expected {shape}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} of type {tensor.dtype}: expected a float type")
    if every is not None and 1 < every >= survey.n_steps:
        raise ValueError(
            f"imaging_step {every}: expected less than the survey's {survey.n_steps} steps"
        )
    if single is not None and not single == alpha.dtype == torch.float32:
        raise ValueError(f"types {single} and {alpha.dtype}: released arithmetic is float32")
    problems = _problems(survey, alpha, vmin)
    if problems:
        raise ValueError(problems[0])


def check_out(
    out: torch.Tensor | None, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    """Check what wavefields are to be written to.

    Parameters
    ----------
    out : torch.Tensor or None
        None for memory of its own.
    shape, dtype, device
        Those that it has to have.

    Raises
    ------
    ValueError
        Where it has others.
    """
    if out is not None and (tuple(out.shape), out.dtype, out.device) != (shape, dtype, device):
        raise ValueError(
            f"out of shape {tuple(out.shape)} and {out.dtype} on {out.device}: expected {shape} "
            f"and {dtype} on {device}"
        )


def is_stable(survey: Survey, alpha: torch.Tensor, vmin: torch.Tensor) -> bool:
    """Whether all velocities are finite, positive and below the stability limit.

    Parameters
    ----------
    survey : Survey
        Grid and damping.
    alpha : torch.Tensor, (B, rows, cols)
        (v dt / dx)^2 on the padded grid.
    vmin : torch.Tensor, (B,)
        The velocity that scales the damping, m/s.

    Returns
    -------
    bool
        True if a kernel takes them.
    """
    return not _problems(survey, alpha, vmin)


def _problems(survey: Survey, alpha: torch.Tensor, vmin: torch.Tensor) -> list[str]:
    """The fault of velocities, in words; empty where there is none.

    The band repeats the map's edge, and its outermost cells are damped most.
    """
    alpha = alpha.detach()
    border = (alpha[:, 0], alpha[:, -1], alpha[:, :, 0], alpha[:, :, -1])
    edge = torch.cat(border, dim=1).amax(1)
    found = torch.stack([alpha.amin((1, 2)), alpha.amax((1, 2)), edge]).cpu().double()
    numbers = [
        (float(damped), *map(float, column))
        for damped, column in zip(vmin.detach().cpu().double(), found.T, strict=True)
    ]
    unit = survey.spacing / survey.dt
    problems = []
    for number, (damped, *alphas) in enumerate(numbers):
        where = f"map {number}: " if len(alpha) > 1 else ""
        if not all(0 < a < math.inf for a in alphas):  # also false for NaN
            problems.append(f"{where}velocity is not finite and positive")
            continue
        if not 0 < damped < math.inf:
            problems.append(f"{where}vmin of {damped:.6g} m/s: expected a finite, positive number")
            continue
        _, fastest, at_edge = (math.sqrt(a) * unit for a in alphas)
        limits = survey.stable_velocities(damped)
        if fastest > limits[0] * (1 + ROUNDING) or at_edge > limits[1] * (1 + ROUNDING):
            problems.append(
                f"{where}velocity is too high for the time step: found up to {fastest:.6g} m/s, "
                f"{at_edge:.6g} m/s in edge cells; the scheme is stable up to {limits[0]:.6g} m/s, "
                f"and with the damping of a vmin of {damped:.6g} m/s up to {limits[1]:.6g} m/s in "
                "edge cells"
            )
    return problems
