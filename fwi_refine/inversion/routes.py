"""The family of a sample, by the tests of the registry in families/."""

from numpy.typing import ArrayLike

from fwi_refine import routing
from fwi_refine.inversion.families import criteria
from fwi_refine.priors import Priors
from fwi_refine.routing import Classification
from fwi_refine.survey import OPENFWI, Survey


def classify(
    prediction: ArrayLike, record: ArrayLike, priors: Priors, survey: Survey = OPENFWI
) -> Classification:
    """Family of one sample; see `routing.classify`.

    Parameters
    ----------
    prediction : array_like, shape (nz, nx)
        Predicted map in m/s.
    record : array_like, shape (shots, rows, receivers)
        Measured record, of which the rows up to `survey.n_steps` are used.
    priors : Priors
        Priors and thresholds.
    survey : Survey
        Survey of the record.

    Returns
    -------
    Classification

    Raises
    ------
    SampleError, InputError, ValueError
        As `routing.classify`.
    """
    return routing.classify(prediction, record, priors, survey, criteria=criteria())
