"""Records that no wave has: one shot twice, rows or receivers repeated, one sign alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fwi_refine.routing.checks.form import Finding
from fwi_refine.survey import Survey

Array = NDArray[np.float64]


def recognise_repeats(records: Sequence[Array], survey: Survey) -> list[Finding]:
    """Findings that hold for every record.

    Parameters
    ----------
    records : sequence of ndarray (shots, n_steps, receivers)
        Finite, not only zeros.
    survey : Survey
        Theirs; shots at one place may be equal.

    Returns
    -------
    list of Finding
        At most one.
    """
    tests = (
        ("hold one shot twice", lambda d: _one_shot_twice(d, survey)),
        ("repeat each of their rows: they seem to be of a longer time step", _in_pairs),
        ("hold the record of each receiver twice", lambda d: _in_pairs(d.swapaxes(1, 2))),
        ("have one sign alone: they seem to be magnitudes", lambda d: d.min() >= 0 or d.max() <= 0),
    )
    for text, test in tests:
        if records and all(test(d) for d in records):
            return [Finding(f"records {text}; give them as they were recorded")]
    return []


def _one_shot_twice(d: Array, survey: Survey) -> bool:
    return any(
        survey.sources[i] != survey.sources[j] and d[i].any() and np.array_equal(d[i], d[j])
        for i in range(len(d))
        for j in range(i)
    )


def _in_pairs(d: Array) -> bool:
    """Whether the second axis holds everything twice in a row."""
    even = d.shape[1] // 2 * 2
    return even >= 4 and np.array_equal(d[:, 0:even:2], d[:, 1:even:2])
