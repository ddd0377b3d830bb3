"""The wave operator as torch modules, for networks that are trained with the physics.

Both modules compute where their input is and in its type: float32 or float64 (float16 and bfloat16
are simulated in float32). They have no parameters and keep no state, so they can be copied,
pickled and moved, and add nothing to a `state_dict`.
"""

import functools

import torch

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave.simulator import IMAGING_STEP, Simulator, simulate


class WaveSimulator(torch.nn.Module):
    """Velocity maps to records: (B, nz, nx) or (B, 1, nz, nx) m/s to (B, shots, steps, receivers).

    survey: grid, time steps, sources and receivers. imaging_step: a gradient correlates the wave
    at every so many steps; 1 is exact, the default differs by a few 1e-6 relative and needs less
    memory. threads: of the CPU; default all cores that torch uses.

    Every velocity has to be positive and slow enough for the time steps: let a network end in
    something bounded, such as `low + (high - low) * sigmoid(x)`. Raises ValueError otherwise, and
    for maps of another shape.

    >>> from dataclasses import replace
    >>> import torch
    >>> from fwi_refine import OPENFWI, WaveSimulator
    >>> tiny = replace(
    ...     OPENFWI, shape=(8, 12), n_steps=60, file_rows=60, absorbing_cells=8,
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
        self.survey = survey
        self.imaging_step = imaging_step
        self.threads = threads

    def forward(self, v, vmin=None):
        """Records of the maps v, differentiable by v and by vmin.

        vmin: (B,) m/s, what scales the absorbing band; default the minimum of each map.
        """
        v = self._maps(v)
        return simulate(v, vmin, self._simulator(v))

    def extra_repr(self):
        nz, nx = self.survey.shape
        shots, steps, receivers = self.survey.record_shape
        return f"({nz}, {nx}) -> ({shots}, {steps}, {receivers})"

    def _maps(self, v):
        """(B, nz, nx) in a type that can be simulated."""
        nz, nx = self.survey.shape
        if v.ndim == 4 and v.shape[1] == 1:
            v = v[:, 0]
        if v.ndim != 3 or tuple(v.shape[1:]) != (nz, nx):
            raise ValueError(
                f"velocity of shape {tuple(v.shape)}: expected (B, {nz}, {nx}) or (B, 1, {nz}, "
                f"{nx})"
            )
        if not bool((v > 0).all()):  # a negative one has the square of a positive one
            raise ValueError(
                f"velocity: found a minimum of {v.min().item():.6g} m/s, expected finite and "
                "positive values"
            )
        return v if v.dtype == torch.float64 else v.float()

    def _simulator(self, v):
        return _simulator(self.survey, v.dtype, v.device, self.imaging_step, self.threads)


class RecordMisfit(WaveSimulator):
    """Mean square difference of the records of maps from given ones: (B,), differentiable.

    The same as `(WaveSimulator()(v) - record).square().mean(dim=(1, 2, 3))`, but value and
    gradient come out of one pass, which simulates each map once instead of twice, and records are
    never whole in memory. A loss is its mean.

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

    def forward(self, v, record, vmin=None):
        """Misfit of each map, (B,), in the square of the record's unit.

        record: (B, shots, >= n_steps, receivers), of which the first n_steps rows count; no
        gradient goes to it. vmin as for `WaveSimulator`.
        """
        v = self._maps(v)
        shots, steps, receivers = self.survey.record_shape
        found = tuple(record.shape)
        if len(found) != 4 or found[::3] != (len(v), receivers) or found[1] != shots:
            raise ValueError(
                f"record of shape {found}: expected ({len(v)}, {shots}, {steps}, {receivers})"
            )
        if found[2] < steps:
            raise ValueError(f"record of shape {found}: expected at least {steps} rows")
        vmin = v.amin(dim=(1, 2)) if vmin is None else torch.as_tensor(vmin, device=v.device)
        return _Misfit.apply(v, vmin, record[:, :, :steps], self._simulator(v))


class _Misfit(torch.autograd.Function):
    """The misfit; its gradient is computed with it, where there is need for one."""

    @staticmethod
    def forward(ctx, v, vmin, record, simulator):
        if not any(ctx.needs_input_grad[:2]):
            return simulator.misfit(v, record, vmin).to(v)
        value, by_v, by_vmin = simulator.misfit_and_gradient(v, record, vmin)
        ctx.save_for_backward(by_v.to(v), by_vmin.to(vmin))
        return value.to(v)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, u):
        by_v, by_vmin = ctx.saved_tensors
        return u[:, None, None] * by_v, u.to(by_vmin) * by_vmin, None, None


@functools.lru_cache(maxsize=4)
def _simulator(survey, dtype, device, imaging_step, threads) -> Simulator:
    """Modules share simulators: their scratch memory counts once, and copies need not carry it."""
    return Simulator(survey, dtype=dtype, device=device, imaging_step=imaging_step, threads=threads)
