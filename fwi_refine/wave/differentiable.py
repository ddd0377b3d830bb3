"""Records of velocity maps as a function that torch differentiates."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike

from fwi_refine.wave.arguments import refuse_type
from fwi_refine.wave.simulator import Simulator


class _Underivable(torch.autograd.Function):
    """A gradient as it is. It has no derivative of its own, which torch would take for zero."""

    @staticmethod
    def forward(ctx: Any, gradient: torch.Tensor, *by: torch.Tensor) -> torch.Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, u: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(
            "a gradient of the wave operator cannot be differentiated again: a loss must not "
            "depend on it, unless it is detached"
        )


def first_derivatives(
    gradients: Sequence[torch.Tensor], by: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """What a backward returns.

    Parameters
    ----------
    gradients : sequence of torch.Tensor
        Computed without a graph of their own.
    by : sequence of torch.Tensor
        Of what they are functions.

    Returns
    -------
    list of torch.Tensor
        The gradients; where a graph of them is made, one that raises RuntimeError when it is used.
    """
    if not torch.is_grad_enabled():
        return [*gradients]
    return [_Underivable.apply(g, *by) for g in gradients]  # type: ignore[no-untyped-call]


class _Simulate(torch.autograd.Function):
    """Forward run with the adjoint run as its backward; nothing but v is kept in between."""

    @staticmethod
    def forward(
        ctx: Any, v: torch.Tensor, vmin: torch.Tensor, simulator: Simulator
    ) -> torch.Tensor:
        ctx.save_for_backward(v, vmin)
        ctx.simulator = simulator
        return simulator.forward(v, vmin)

    @staticmethod
    def backward(ctx: Any, u: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        v, vmin = ctx.saved_tensors
        with torch.no_grad():
            by_v, by_vmin = ctx.simulator.adjoint(v, u, vmin)
        return *first_derivatives((by_v.to(v), by_vmin.to(vmin)), (v, vmin, u)), None


@functools.lru_cache(maxsize=2)
def _default_simulator(dtype: torch.dtype, device: torch.device) -> Simulator:
    return Simulator(dtype=dtype, device=device)


def vmin_of_each(v: torch.Tensor, vmin: ArrayLike | torch.Tensor | None) -> torch.Tensor:
    """vmin of each map, differentiable.

    Parameters
    ----------
    v : torch.Tensor, (B, nz, nx)
        Maps, m/s.
    vmin : array_like or torch.Tensor, () or (B,), or None
        One number for all maps or for each; None for the minimum of each map, whose derivative
        goes to the minimal cells.

    Returns
    -------
    torch.Tensor, (B,)
        m/s.

    Raises
    ------
    ValueError
        For another shape, and for what are no real numbers.
    """
    if vmin is None:
        return v.amin(dim=(1, 2))
    try:
        given = torch.as_tensor(vmin, device=v.device)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"vmin {vmin!r}: expected a number, or one for each map") from error
    refuse_type("vmin", given)
    given = given if given.is_floating_point() else given.double()
    if given.shape not in ((), (len(v),)):
        raise ValueError(
            f"vmin of shape {tuple(given.shape)}: expected one number or ({len(v)},), one for "
            "each map"
        )
    return given.expand(len(v))


def simulate(
    v: torch.Tensor,
    vmin: ArrayLike | torch.Tensor | None = None,
    simulator: Simulator | None = None,
) -> torch.Tensor:
    """Records of velocity maps, differentiable: a network can be trained through it.

    Parameters
    ----------
    v : torch.Tensor, (B, nz, nx) or (nz, nx)
        Maps, m/s.
    vmin : array_like or torch.Tensor, () or (B,), optional
        The velocity that scales the damping, m/s; default the minimum of each map, whose
        derivative goes to the minimal cell.
    simulator : Simulator, optional
        Default one for the type and device of v and OpenFWI's survey.

    Returns
    -------
    torch.Tensor, (B, shots, n_steps, receivers)
        The records, without B where v has none.

    Raises
    ------
    ValueError
        For maps or vmin of another shape, and velocities that cannot be simulated.
    """
    batched = v if v.ndim == 3 else v[None]
    simulator = simulator or _default_simulator(v.dtype, v.device)
    record: torch.Tensor = _Simulate.apply(  # type: ignore[no-untyped-call]
        batched, vmin_of_each(batched, vmin), simulator
    )
    return record if v.ndim == 3 else record[0]
