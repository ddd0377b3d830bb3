"""Classification of arrays: what `fwi-refine classify` does with files, without files."""

from typing import Any

import torch
from numpy.typing import ArrayLike

from fwi_refine import routing
from fwi_refine.api.arrays import match
from fwi_refine.api.options import check_arrays, check_priors
from fwi_refine.errors import SampleError
from fwi_refine.inversion import routes
from fwi_refine.priors import Priors
from fwi_refine.routing import Classification
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.survey.validate import to_maps, to_numpy


def classify(
    predictions: ArrayLike | torch.Tensor,
    records: Any,
    *,
    survey: Survey = OPENFWI,
    priors: Priors | None = None,
    force: bool = False,
) -> Classification | list[Classification]:
    """Family of each sample, and what speaks for it.

    Parameters
    ----------
    predictions, records : array-like
        As for `refine`.
    survey : Survey
        Grid, steps, wavelet, sources, receivers.
    priors : Priors, optional
        Of `load_priors`; default those for OpenFWI.
    force : bool
        Goes on where the arrays look like other units, another scale or another order.

    Returns
    -------
    Classification or list of Classification
        `family`, `confidence`, `evidence` and `reason`, for one map, else a list of them.

    Raises
    ------
    SampleError
        For the first sample that cannot be used; a ValueError.
    InputError
        For arrays that do not match and for surveys with another grid, sources or receivers than
        OpenFWI's.

    Examples
    --------
    >>> import numpy as np
    >>> from fwi_refine import classify, simulate
    >>> flat = np.full((70, 70), 2000.0)
    >>> flat[30:] = 2600.0
    >>> found = classify(flat, simulate(flat))
    >>> str(found.family), found.evidence["symmetry_rms"] < 1e-4
    ('flat-vel', True)
    """
    maps, shape = to_maps(predictions, survey, "predictions")
    records = match(records, shape)
    priors = check_priors(priors)
    if not force and routing.can_classify(survey):
        check_arrays(maps, records, survey)
    found = []
    for k, v in enumerate(maps):
        try:
            found.append(routes.classify(v, to_numpy(records[k]), priors, survey))
        except SampleError as error:
            raise SampleError(f"sample {k}: {error}") from error
    return found[0] if len(shape) == 2 else found
