"""Wavelets in files: .npy, or CSV with a sample on each line, or its time and the sample."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fwi_refine.files import lines, open_regular, open_text, read_npy

MAX_SAMPLES = 1_000_000  # samples
PADDED_LENGTHS = 16  # lengths of a wavelet, in which its spectrum is looked at
MAX_STEP_DEVIATION = 0.01  # of a step, by which times of a file may be off


def read_wavelet(path: Path, dt: float) -> NDArray[np.float64]:
    """The samples of a wavelet, one for each time step from 0 on.

    Parameters
    ----------
    path : Path
        .npy of one axis; else text, one line for each sample, with or without a first line of
        names: the sample, or its time in s and the sample, by comma, semicolon or blanks.
    dt : float
        Time step of the survey, s.

    Returns
    -------
    ndarray of float64, (n,)
        Zeros before the first time of the file.

    Raises
    ------
    ValueError
        For a file that cannot be read or holds something else, and for times with other steps.
    """
    try:
        values = _of_npy(path) if path.suffix == ".npy" else _of_text(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and values.shape[1] == 2:
        values = _by_time(values, dt, path)
    if values.ndim != 1 or not 0 < values.size <= MAX_SAMPLES:
        raise ValueError(f"{path}: found shape {values.shape}, expected samples on one axis")
    if not np.isfinite(values).all() or not values.any():
        raise ValueError(f"{path}: expected samples that are finite and not all zero")
    return values


def _of_npy(path: Path) -> NDArray[np.float64]:
    with open_regular(path) as file:
        try:
            values = read_npy(file, path.stat().st_size)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{path}: found type {values.dtype}, expected numbers")
    return np.asarray(values, np.float64)


def _of_text(path: Path) -> NDArray[np.float64]:
    rows: list[list[float]] = []
    with open_text(path) as file:
        for number, line in enumerate(lines(file, path), 1):
            cells = line.replace(",", " ").replace(";", " ").split()
            if not cells or cells[0].startswith("#"):
                continue
            try:
                row = [float(cell) for cell in cells]
            except ValueError:
                if not rows and number == 1:  # names of the columns
                    continue
                raise ValueError(
                    f"{path}, line {number}: found {line.strip()[:40]!r}, expected "
                    "a sample, or a time and a sample"
                ) from None
            if len(row) > 2 or (rows and len(row) != len(rows[0])) or len(rows) >= MAX_SAMPLES:
                raise ValueError(
                    f"{path}, line {number}: found {len(row)} numbers, expected a "
                    "sample, or a time and a sample, on each line"
                )
            rows.append(row)
    return np.asarray(rows, np.float64)


def _by_time(values: NDArray[np.float64], dt: float, path: Path) -> NDArray[np.float64]:
    times, samples = values.T
    steps = np.diff(times)
    if times[0] < 0 or not (np.abs(steps - dt) <= MAX_STEP_DEVIATION * dt).all():
        raise ValueError(
            f"{path}: found times from {times[0]:g} s with steps of {np.median(steps):g} s, "
            f"expected steps of {dt:g} s from 0 s or later"
        )
    first = times[0] / dt
    if not first <= MAX_SAMPLES or abs(first - round(first)) > MAX_STEP_DEVIATION:
        raise ValueError(f"{path}: the first time is {times[0]:g} s, expected a multiple of {dt:g}")
    return np.concatenate([np.zeros(math.floor(first + 0.5)), samples])


def peak_frequency(wavelet: NDArray[np.float64], dt: float) -> float:
    """Frequency of the largest amplitude of a wavelet's spectrum.

    Parameters
    ----------
    wavelet : ndarray, (n,)
        Samples.
    dt : float
        Time step, s.

    Returns
    -------
    float
        Hz.
    """
    length = PADDED_LENGTHS * wavelet.size
    return float(np.fft.rfftfreq(length, dt)[np.argmax(np.abs(np.fft.rfft(wavelet, length)))])
