"""How much memory a Jacobian and its normal matrix take on the CPU."""

import math

import torch

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave.jacobian.accumulated import modes_at_a_time
from fwi_refine.wave.jacobian.assemble import BATCH
from fwi_refine.wave.jacobian.normal_matrix import GROUPS, MODES
from fwi_refine.wave.jacobian.plan import longest_interval, make_plan
from fwi_refine.wave.jacobian.reciprocity import LINES

SINGLE, DOUBLE = torch.float32.itemsize, torch.float64.itemsize
THREADS = 2
BUFFERS = 25_000_000  # of the libraries, for two threads


def jacobian_bytes(survey: Survey = OPENFWI, matrices: int = 1) -> int:
    """About how much memory `jacobian` takes on the CPU, in float32, with two threads.

    Parameters
    ----------
    survey : Survey
        The survey.
    matrices : int
        Such Jacobians that are held in the end, this one among them.

    Returns
    -------
    int
        Bytes.
    """
    shots, receivers, modes, cells = _sizes(survey)
    return _assembling(survey) + matrices * SINGLE * shots * receivers * modes * (cells + 1)


def normal_matrix_bytes(survey: Survey = OPENFWI) -> int:
    """About how much memory `normal_matrix` takes on the CPU, for every cell, with two threads.

    Parameters
    ----------
    survey : Survey
        The survey.

    Returns
    -------
    int
        Bytes, with the matrix itself.
    """
    shots, receivers, modes, cells = _sizes(survey)
    sources, spectrum = len({*survey.sources}), 2 * _frequencies(survey)
    by_receiver = cells + sources * 2 * sum(survey.shape)  # of it, and of its products in the band
    kept = SINGLE * spectrum * len({*survey.receivers}) * by_receiver
    n = cells + 1
    made = modes_at_a_time(shots * receivers * n, modes)
    combined = shots * receivers * min(modes, MODES)
    sorted_rows = DOUBLE * (combined / GROUPS) * n
    # those of one mode are copied by each thread that combines them
    copies = 3 * THREADS * shots * receivers
    rows = SINGLE * n * (shots * receivers * made + combined + copies) + sorted_rows
    of_sources = SINGLE * sources * spectrum * cells
    return int(max(_assembling(survey), BUFFERS + of_sources + rows + DOUBLE * n**2) + kept)


def _sizes(survey: Survey) -> tuple[int, int, int, int]:
    """Shots, receivers, modes, cells."""
    shots, _, receivers = survey.record_shape
    modes = make_plan(survey, longest_interval(survey)).basis.shape[1]
    return shots, receivers, modes, math.prod(survey.shape)


def _frequencies(survey: Survey) -> int:
    return len(make_plan(survey, longest_interval(survey)).damped)


def _assembling(survey: Survey) -> int:
    """Bytes that the fields and what becomes of them take, before any row is made."""
    frames = make_plan(survey, longest_interval(survey)).analysis.shape[1]
    spectrum = 2 * _frequencies(survey)
    cells, padded = (math.prod(shape) for shape in (survey.shape, survey.padded_shape))
    edge = 2 * sum(survey.shape)
    sources = len({*survey.sources})
    first = max(BATCH, sources)  # points of the first batch
    fields = (first + THREADS * BATCH) * frames * padded
    spectra = sources * spectrum * (cells + 2 * (padded - cells))
    # sums over the band, with copies; and lines of it
    band = 8 * spectrum * edge * sources * (first + BATCH)
    lines = (first + BATCH) * (frames + 2 * spectrum) * LINES * survey.absorbing_cells
    return BUFFERS + SINGLE * (fields + spectra + band + lines)
