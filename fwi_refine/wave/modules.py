"""The wave operator as torch modules, for networks that are trained with the physics.

Both modules compute where their input is and in its type: float32 or float64 (float16 and bfloat16
are simulated in float32). They have no parameters and keep no state, so they can be copied,
pickled and moved, and add nothing to a `state_dict`.
"""

import functools
from typing import Any

import torch
from numpy.typing import ArrayLike

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import check_survey
from fwi_refine.wave.arguments import refuse_type, warn_of_units
from fwi_refine.wave.differentiable import first_derivatives, simulate, vmin_of_each
from fwi_refine.wave.kernel import check_kernel
from fwi_refine.wave.simulator import IMAGING_STEP, Simulator
from fwi_refine.wave.threads import number_of_threads


class WaveSimulator(torch.nn.Module):
    """Velocity maps to records, differentiable.

    Every velocity has to be positive and below the stability limit of the scheme with its damping
    (`Survey.stable_velocities`): let a network end in something bounded, such as
    `low + (high - low) * sigmoid(x)`.

    Parameters
    ----------
    survey : Survey
        Grid, time steps, sources and receivers.
    imaging_step : int
        A gradient correlates the wave at every so many steps; 1 is exact, the default differs by a
        few 1e-6 relative and needs less memory.
    threads : int, optional
        Of the CPU; default all cores that torch uses.

    Raises
    ------
    ValueError
        For an imaging step or a number of threads below 1, and for what is no survey.

    Examples
    --------
    >>> from dataclasses import replace
    >>> import torch
    >>> from fwi_refine import OPENFWI, WaveSimulator
    >>> tiny = replace(
    ...     OPENFWI, shape=(8, 12), n_steps=60, file_rows=60, absorbing_cells=8,
    ...     velocity_bounds=(1000.0, 4500.0),
    ...     sources=((1, 0), (1, 11)), receivers=tuple((1, x) for x in range(12)),
    ... )
    >>> simulate = WaveSimulator(tiny)
    >>> v = torch.full((3, 1, 8, 12), 2000.0, requires_grad=True)
    >>> record = simulate(v)
    >>> record.shape, record.dtype
    (torch.Size([3, 2, 60, 12]), torch.float32)
    >>> record.square().mean().backward()
    >>> v.grad.shape
    torch.Size([3, 1, 8, 12])
    """

    def __init__(
        self,
        survey: Survey = OPENFWI,
        imaging_step: int = IMAGING_STEP,
        threads: int | None = None,
    ):
        super().__init__()
        check_kernel(torch.float32, imaging_step)
        self.survey = check_survey(survey)
        self.imaging_step = int(imaging_step)
        self.threads = None if threads is None else number_of_threads(threads)

    def forward(
        self, v: torch.Tensor, vmin: ArrayLike | torch.Tensor | None = None
    ) -> torch.Tensor:
        """Records of the maps, differentiable by v and by vmin.

        Parameters
        ----------
        v : torch.Tensor, (B, nz, nx) or (B, 1, nz, nx)
            Maps, m/s.
        vmin : array_like or torch.Tensor, () or (B,), optional
            The velocity that scales the absorbing band, m/s; default the minimum of each map.

        Returns
        -------
        torch.Tensor, (B, shots, n_steps, receivers)
            The records.

        Raises
        ------
        ValueError
            For maps or vmin of another shape, and velocities that cannot be simulated.
        """
        v = self._maps(v)
        warn_of_units(v, self.survey)
        return simulate(v, vmin, self._simulator(v))

    def extra_repr(self) -> str:
        """Shapes of a map and of its record."""
        nz, nx = self.survey.shape
        shots, steps, receivers = self.survey.record_shape
        return f"({nz}, {nx}) -> ({shots}, {steps}, {receivers})"

    def _maps(self, v: torch.Tensor) -> torch.Tensor:
        """(B, nz, nx) in a type that can be simulated."""
        nz, nx = self.survey.shape
        refuse_type("velocity", v)
        if v.ndim == 4 and v.shape[1] == 1:
            v = v[:, 0]
        if v.ndim != 3 or tuple(v.shape[1:]) != (nz, nx):
            raise ValueError(
                f"velocity of shape {tuple(v.shape)}: expected (B, {nz}, {nx}) or (B, 1, {nz}, "
                f"{nx})"
            )
        return v if v.dtype == torch.float64 else v.float()

    def _simulator(self, v: torch.Tensor) -> Simulator:
        return _simulator(self.survey, v.dtype, v.device, self.imaging_step, self.threads)


class RecordMisfit(WaveSimulator):
    """Mean square difference of the records of maps from given ones: (B,), differentiable.

    The same as `(WaveSimulator()(v) - record).square().mean(dim=(1, 2, 3))`, but value and
    gradient come out of one pass, which simulates each map once instead of twice, and records are
    never whole in memory. A loss is its mean. The parameters are those of `WaveSimulator`.

    Examples
    --------
    >>> import torch
    >>> from fwi_refine import RecordMisfit, simulate
    >>> truth = torch.full((1, 70, 70), 2000.0)
    >>> record = torch.from_numpy(simulate(truth))  # (1, 5, 1000, 70)
    >>> v = torch.full((1, 70, 70), 2100.0, requires_grad=True)
    >>> loss = RecordMisfit()(v, record).mean()
    >>> loss.backward()
    >>> v.grad.sum().item() > 0  # slower would fit better
    True
    """

    def forward(  # type: ignore[override]
        self,
        v: torch.Tensor,
        record: torch.Tensor,
        vmin: ArrayLike | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Misfit of each map, differentiable by v and by vmin.

        Parameters
        ----------
        v, vmin
            As for `WaveSimulator`.
        record : torch.Tensor, (B, shots, >= n_steps, receivers)
            Records, of which the first n_steps rows count; no gradient goes to them.

        Returns
        -------
        torch.Tensor, (B,)
            In the square of the record's unit.

        Raises
        ------
        ValueError
            For arrays of other shapes, and velocities that cannot be simulated.
        """
        v = self._maps(v)
        warn_of_units(v, self.survey)
        refuse_type("record", record)
        shots, steps, receivers = self.survey.record_shape
        found = tuple(record.shape)
        if len(found) != 4 or found[::3] != (len(v), receivers) or found[1] != shots:
            raise ValueError(
                f"record of shape {found}: expected ({len(v)}, {shots}, {steps}, {receivers})"
            )
        if found[2] < steps:
            raise ValueError(f"record of shape {found}: expected at least {steps} rows")
        misfit: torch.Tensor = _MisfitFunction.apply(  # type: ignore[no-untyped-call]
            v, vmin_of_each(v, vmin), record[:, :, :steps], self._simulator(v)
        )
        return misfit


class _MisfitFunction(torch.autograd.Function):
    """The misfit; its gradient is computed with it, where there is need for one."""

    @staticmethod
    def forward(
        ctx: Any, v: torch.Tensor, vmin: torch.Tensor, record: torch.Tensor, simulator: Simulator
    ) -> torch.Tensor:
        if not any(ctx.needs_input_grad[:2]):
            return simulator.misfit(v, record, vmin).to(v)
        value, by_v, by_vmin = simulator.misfit_and_gradient(v, record, vmin)
        ctx.save_for_backward(v, vmin, by_v.to(v), by_vmin.to(vmin))
        return value.to(v)

    @staticmethod
    def backward(ctx: Any, u: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        v, vmin, by_v, by_vmin = ctx.saved_tensors
        with torch.no_grad():
            gradients = u[:, None, None] * by_v, u.to(by_vmin) * by_vmin
        return *first_derivatives(gradients, (v, vmin, u)), None, None


@functools.lru_cache(maxsize=4)
def _simulator(
    survey: Survey,
    dtype: torch.dtype,
    device: torch.device,
    imaging_step: int,
    threads: int | None,
) -> Simulator:
    """Modules share simulators: their scratch memory counts once, and copies need not carry it."""
    return Simulator(survey, dtype=dtype, device=device, imaging_step=imaging_step, threads=threads)
