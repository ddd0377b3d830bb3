"""A whole made sample: truth, start and record, each drawn from one seed."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from fwi_refine.survey import OPENFWI
from fwi_refine.synthetic.layers import LAYERINGS, layered_map
from fwi_refine.synthetic.starts import make_start
from fwi_refine.synthetic.styles import PHOTOGRAPHS, style_map
from fwi_refine.wave import Simulator, released_record

FAMILIES = (*LAYERINGS, *PHOTOGRAPHS)
ALL_ROWS = replace(OPENFWI, n_steps=OPENFWI.file_rows)  # of a record file


@dataclass(frozen=True)
class SyntheticSample:
    """One made sample. Maps are (nz, nx) float32 m/s, the record (shots, rows, receivers)."""

    id: str  # 10 hexadecimal digits, as the benchmark's ids
    family: str
    truth: np.ndarray
    start: np.ndarray
    record: np.ndarray
    start_mae: float  # m/s
    start_misfit: float  # rms over the rows that the misfit uses


def make_map(family: str, rng: np.random.Generator, layers: int | None = None) -> np.ndarray:
    """Draw a map of one of `FAMILIES`.

    Parameters
    ----------
    family : str
    rng : numpy.random.Generator
    layers : int, optional
        Number of layers, in the families with faults; 2 in FlatFault_A and CurveFault_A, of which
        some of the released files hold such maps, gives two velocities.

    Returns
    -------
    numpy.ndarray
        (70, 70) float64, m/s; integers, except in the Style families and in the blended cells of
        FlatFault_A and CurveFault_A.

    Raises
    ------
    ValueError
        For an unknown family.
    """
    return draw_map(family, rng, layers)[0]


def draw_map(
    family: str, rng: np.random.Generator, layers: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a map as `make_map` does, with its fault blocks.

    Parameters
    ----------
    family : str
        One of `FAMILIES`.
    rng : Generator
        Source of randomness.
    layers : int, optional
        How many; by default drawn.

    Returns
    -------
    v : ndarray, shape (70, 70)
        Map in m/s.
    blocks : ndarray of int, shape (70, 70)
        Fault block of each cell; 0 in maps without faults.

    Raises
    ------
    ValueError
        For another family.
    """
    if family in LAYERINGS:
        return layered_map(family, rng, layers)
    if family in PHOTOGRAPHS:
        return style_map(family, rng), np.zeros(OPENFWI.shape, int)
    raise ValueError(f"unknown family {family!r}, expected one of {', '.join(FAMILIES)}")


def make_record(velocity: np.ndarray) -> np.ndarray:
    """The record of a map (70, 70) in m/s: (5, 1000, 70) float32, simulated in float32.

    It is the released data's, bit for bit: a double precision simulation of the true map misses it
    by 1e-5 to 3e-5 rms.
    """
    return released_record(torch.as_tensor(np.asarray(velocity)), survey=ALL_ROWS).numpy()


def make_sample(
    family: str, seed: int, index: int = 0, hardness: float = 1.0, layers: int | None = None
) -> SyntheticSample:
    """Make one sample of a family: map, network-like start and record.

    Parameters
    ----------
    family : str
        One of `FAMILIES`.
    seed, index : int
        The sample depends on the arguments alone, not on which samples were made before.
    hardness : float
        Scales the start's error. Samples that differ only in it have the same id, truth, record and
        pattern of errors.
    layers : int, optional
        As for `make_map`.

    Returns
    -------
    SyntheticSample

    Raises
    ------
    ValueError
        For an unknown family, or a negative or infinite hardness.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}, expected one of {', '.join(FAMILIES)}")
    rng = np.random.default_rng([seed, FAMILIES.index(family), index])
    name = rng.bytes(5).hex()
    truth, blocks = draw_map(family, rng, layers)
    truth = truth.astype(np.float32)
    start = make_start(truth.astype(np.float64), family, rng, hardness, blocks).astype(np.float32)
    record = make_record(truth)
    simulated = Simulator().forward(torch.from_numpy(start.astype(np.float64))[None])[0].numpy()
    difference = simulated - record[:, : OPENFWI.n_steps]
    return SyntheticSample(
        id=name,
        family=family,
        truth=truth,
        start=start,
        record=record,
        start_mae=float(np.abs(start.astype(np.float64) - truth).mean()),
        start_misfit=float(np.sqrt(np.mean(difference**2))),
    )
