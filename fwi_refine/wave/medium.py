"""Velocity maps as the coefficients of the scheme, and derivatives by these as by velocities.

alpha = (v dt / dx)^2 on the padded grid, and vmin, the velocity that scales the damping. The map is
padded with its edge values; the gradient of a padded cell therefore belongs to the edge cell whose
value it took.
"""

from dataclasses import dataclass

import torch

from fwi_refine.precision import placed, widened
from fwi_refine.survey import Survey
from fwi_refine.wave.grid import fold, pad
from fwi_refine.wave.interrupt import may_go_on
from fwi_refine.wave.kernel import is_stable
from fwi_refine.wave.released_arithmetic import released_medium


@dataclass(frozen=True)
class Medium:
    """Makes what kernels take, and checks the maps that it is given.

    Attributes
    ----------
    survey : Survey
        That of the maps.
    dtype : torch.dtype
        Of alpha.
    device : torch.device
        Where kernels compute.
    """

    survey: Survey
    dtype: torch.dtype
    device: torch.device

    def of(self, v: torch.Tensor, vmin: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """alpha (B, rows, cols) and vmin (B,) of maps v (B, nz, nx), m/s: of what a simulation is
        about to begin with."""
        may_go_on()
        v = self._checked(v)
        return self._alpha(v), self.of_each(v, vmin, "vmin")

    def released(
        self, v: torch.Tensor, vmin: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same in released arithmetic, with the strength of the sources."""
        v = self._checked(v)
        vmin = None if vmin is None else self.of_each(v, vmin, "vmin")
        return released_medium(v, vmin, self.survey)

    def is_stable(self, v: torch.Tensor, vmin: torch.Tensor | None) -> bool:
        """Whether all maps can be simulated: finite, positive, below the stability limit."""
        self._check_shape(v)
        v = placed(v.detach(), self.device)
        if not bool((v > 0).all()):
            return False
        return is_stable(self.survey, self._alpha(v), self.of_each(v, vmin, "vmin"))

    def change(self, v: torch.Tensor, dv: torch.Tensor) -> torch.Tensor:
        """Change of alpha with that of the maps; d alpha / dv = 2 v (dt / dx)^2.

        Raises ValueError for a change of another shape.
        """
        if dv.shape != v.shape:
            raise ValueError(
                f"change of velocity of shape {tuple(dv.shape)}: expected {tuple(v.shape)}"
            )
        v, dv = (x.to(self.dtype).to(self.device) for x in (v, dv))
        return 2 * pad(v * dv, self.survey) * self._scale

    def by_velocity(self, v: torch.Tensor, by_alpha: torch.Tensor) -> torch.Tensor:
        """A derivative by alpha as one by the cells of the maps."""
        # one after the other: a GPU's sum over the band might come in an order for the batch
        folded = torch.cat([fold(one, self.survey) for one in by_alpha.split(1)])
        return folded * 2 * self._scale * placed(v.detach(), folded.device).to(folded)

    def of_each(self, v: torch.Tensor, numbers: torch.Tensor | None, name: str) -> torch.Tensor:
        """One number for each map, by default its minimum; a single one is that of all.

        Raises ValueError for another count.
        """
        if numbers is None:
            return widened(v.amin(dim=(1, 2)))
        numbers = placed(numbers.detach(), self.device)
        if numbers.ndim == 0:
            numbers = numbers.expand(len(v))
        if numbers.shape != (len(v),):
            raise ValueError(
                f"{name} of shape {tuple(numbers.shape)}: expected ({len(v)},), one for each map"
            )
        return numbers if numbers.is_floating_point() else widened(numbers)

    @property
    def _scale(self) -> float:
        return (self.survey.dt / self.survey.spacing) ** 2

    def _alpha(self, v: torch.Tensor) -> torch.Tensor:
        return pad(v.to(self.dtype), self.survey).square() * self._scale

    def _checked(self, v: torch.Tensor) -> torch.Tensor:
        """The maps, on the device. alpha, which a kernel checks, has lost their sign."""
        self._check_shape(v)
        v = placed(v.detach(), self.device)
        if not bool((v > 0).all()):
            raise ValueError(
                f"velocity is not finite and positive: found a minimum of {float(v.min()):.6g} m/s"
            )
        return v

    def _check_shape(self, v: torch.Tensor) -> None:
        nz, nx = self.survey.shape
        if v.ndim != 3 or tuple(v.shape[1:]) != (nz, nx):
            raise ValueError(f"velocity of shape {tuple(v.shape)}: expected (B, {nz}, {nx})")
        if v.is_complex():
            raise ValueError(f"velocity of type {v.dtype}: expected real numbers")
