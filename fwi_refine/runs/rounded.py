"""A refined map as its file holds it, where that has fewer digits than float32."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_refine.inversion.refined import Refined
from fwi_refine.inversion.uncertainty import expected_error

# float16 has 11 bits: velocities from 2048 m/s on are even, from 4096 on multiples of 4.
FLAG = "rounded to {}"


def as_written(
    refined: Refined,
    velocity: NDArray[Any],
    dtype: str,
    mean_square: Callable[[NDArray[np.float64]], float],
) -> tuple[Refined, NDArray[Any]]:
    """A result and its map, as they are once the map is rounded to the type of its file.

    What is reported is what is written: misfit, expected error and proof are those of the rounded
    map.

    Parameters
    ----------
    refined : Refined
        The result.
    velocity : array (nz, nx)
        Its map, m/s.
    dtype : str
        "float32", in which results are judged anyway, or "float16".
    mean_square : callable
        Gives the mean square misfit of a map.

    Returns
    -------
    Refined, array
        The given ones where rounding changes nothing.
    """
    if dtype == "float32" or refined.status == "failed":
        return refined, velocity
    rounded = velocity.astype(dtype).astype(np.float64)
    moved = rounded - velocity
    if not moved.any():
        return refined, velocity
    more: dict[str, Any] = {}
    if refined.deviation is not None:
        more["deviation"] = np.hypot(refined.deviation, moved).astype(np.float32)
        more["expected_error"] = expected_error(torch.from_numpy(more["deviation"]))
    return (
        replace(
            refined,
            velocity=rounded,
            vmin=float(rounded.min()),
            misfit_after=mean_square(rounded) ** 0.5,
            flags=(*refined.flags, FLAG.format(dtype)),
            exact=None,
            equal_samples=None,
            **more,
        ),
        rounded,
    )
