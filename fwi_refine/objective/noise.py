"""The noise of a record, by the wavelet's band."""

from fwi_refine.wave import record_basis

# Of float32 records, rms per coefficient of the wavelet's band: no record is better than this.
LEAST_NOISE = 5e-6


def noise_variance(misfit, survey) -> float:
    """Variance of a coefficient of the wavelet's band, for a mean square residual within it.

    N samples hold no more than `modes` coefficients of each trace: the noise is theirs.
    """
    return misfit * survey.record_shape[1] / record_basis(survey).shape[1]
