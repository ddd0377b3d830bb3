"""The noise of a record, by the wavelet's band."""

from fwi_refine.survey import Survey
from fwi_refine.wave import record_basis

# Of float32 records, rms per coefficient of the wavelet's band: no record is better than this.
LEAST_NOISE = 5e-6


def noise_variance(misfit: float, survey: Survey) -> float:
    """Variance of a coefficient of the wavelet's band.

    Parameters
    ----------
    misfit : float
        Mean squared residual of the record's samples, within the band.
    survey : Survey
        Survey of the record.

    Returns
    -------
    float
        Variance of each coefficient of `wave.record_basis`: a trace has fewer of these than
        samples, and all of the residual is theirs.
    """
    return misfit * survey.record_shape[1] / record_basis(survey).shape[1]


def misfit_of_noise(variance: float, survey: Survey) -> float:
    """Mean squared residual that noise of the wavelet's band makes.

    Parameters
    ----------
    variance : float
        Of each coefficient of the band.
    survey : Survey
        Survey of the record.

    Returns
    -------
    float
        Of which `noise_variance` is the inverse.
    """
    return variance * record_basis(survey).shape[1] / survey.record_shape[1]
