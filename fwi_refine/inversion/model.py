"""A velocity map with its vmin: the unknowns of an inversion as values."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Model:
    """A velocity map v (nz, nx) m/s, and vmin (), the velocity that scales the damping, m/s."""

    v: torch.Tensor
    vmin: torch.Tensor

    @classmethod
    def of(cls, v: torch.Tensor) -> "Model":
        """A map with its own minimum."""
        return cls(v, v.min())

    @property
    def shape(self) -> tuple[int, int]:
        """(nz, nx) of the map."""
        nz, nx = self.v.shape
        return nz, nx

    def same_as(self, other: "Model") -> bool:
        """Whether both are equal, to the bit."""
        return torch.equal(self.v, other.v) and torch.equal(self.vmin, other.vmin)

    def mean_change(self, other: torch.Tensor) -> float:
        """Mean absolute difference from another map (nz, nx), m/s."""
        return float((self.v - other).abs().mean())


def distinct(models: Iterable[Model]) -> list[Model]:
    """The models without those that are the same as one before."""
    found: list[Model] = []
    for model in models:
        if not any(model.same_as(other) for other in found):
            found.append(model)
    return found
