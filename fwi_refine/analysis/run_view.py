"""All that is known of one sample of a run, side by side."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_refine.io.report import Row
from fwi_refine.survey import OPENFWI, Survey

# What the map of a sample is, by its status; of all others it is the refined map.
MAP_NAMES = {"": "map", "unfinished": "start", "failed": "passed through", "unchanged": "unchanged"}


@dataclass(frozen=True)
class RunView:
    """All that is known of one sample, None what is not.

    Attributes
    ----------
    row : Row
        What is reported of it.
    refined : ndarray, (nz, nx)
        The refined map, m/s, NaN in cells without a value; so are the other maps.
    survey : Survey
        Its survey.
    start, truth, deviation : ndarray or None, (nz, nx)
        The map before refining, the true map and the expected error, m/s.
    measured, simulated : ndarray or None, (shots, n_steps, receivers)
        Its record, and that of the refined map.
    """

    row: Row
    refined: NDArray[np.float32]
    survey: Survey = OPENFWI
    start: NDArray[Any] | None = None
    truth: NDArray[Any] | None = None
    deviation: NDArray[Any] | None = None
    measured: NDArray[Any] | None = None
    simulated: NDArray[Any] | None = None

    @property
    def name(self) -> str:
        """The name of the map `refined`: maps alone, without a report, are nobody's result."""
        return MAP_NAMES.get(self.row.status, "refined")
