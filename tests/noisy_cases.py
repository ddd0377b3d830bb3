"""Noise of two kinds, and small samples of every route, for the tests of noise, gaps and cells."""

from dataclasses import replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from small_survey_cases import SURVEY as SMALL

from fwi_refine.wave import Simulator

SURVEY = replace(SMALL, sources=((1, 2), (1, 12), (1, 22)))
KINDS = ("white", "band")


def noise(kind, shape, seed=0, survey=SURVEY):
    """Noise of rms 1: white, or filtered by the wavelet."""
    rng = np.random.default_rng(seed)
    if kind == "white":
        return rng.standard_normal(shape)
    wavelet = survey.whole_wavelet
    longer = (shape[0], shape[1] + 2 * len(wavelet), shape[2])
    drawn = fftconvolve(rng.standard_normal(longer), wavelet[None, :, None], "same", axes=1)
    drawn = drawn[:, len(wavelet) : -len(wavelet)]
    return drawn / np.sqrt(np.mean(drawn**2))


def layered():
    row, column = np.mgrid[:20, :25]
    v = np.select([row + column // 8 < 8, row - column // 6 < 13], [1800.0, 2300.0], 2900.0)
    return v, gaussian_filter(v, 1.5, mode="nearest")


def flat():
    v = np.select([np.mgrid[:20, :25][0] < n for n in (6, 12)], [1800.0, 2400.0], 3000.0)
    return v, gaussian_filter(v, (1.5, 0), mode="nearest")


def blended():
    row, column = np.mgrid[:20, :25]
    v = np.where(row + 0.3 * column < 14, 2000.0, 2700.0)
    v = gaussian_filter(v, (0.42, 0.0), mode="nearest")  # as real maps of this family are resized
    return v, gaussian_filter(v, 1.5, mode="nearest")


def rough(seed=0):
    rng = np.random.default_rng(seed)
    texture = gaussian_filter(rng.standard_normal((20, 25)), 1.2)
    v = (1700 + 60 * np.arange(20)[:, None] + 600 * texture).clip(1500, 4500)
    return v, gaussian_filter(v, 2)


def smooth():
    row, column = np.mgrid[:20, :25]
    v = 1800.0 + 50 * row + 60 * np.sin(column / 6) * np.cos(row / 7)
    return v, v + 60 * np.cos(column / 8 + row / 9)


MAPS = {
    "layered": layered,
    "flat-vel": flat,
    "blended": blended,
    "style-a": smooth,
    "style-b": rough,
}


def record_of(v, survey=SURVEY):
    """(shots, steps, receivers) float32."""
    return Simulator(survey).forward(torch.as_tensor(v)[None])[0].numpy().astype(np.float32)


def rms(x):
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def error(v, truth):
    """Mean absolute error, m/s."""
    return float(np.abs(v - truth).mean())
