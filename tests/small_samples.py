"""Samples of a small survey, which the main method refines within a second."""

import dataclasses

from jacobian_cases import SMALL, smooth_change, textured

from fwi_refine.io.samples import Chunk, Sample
from fwi_refine.priors import GaussianProcess, load
from fwi_refine.runs.settings import Settings
from fwi_refine.wave import Simulator

PROCESS = GaussianProcess(2.0, 150.0, 20.0, 500.0, 30.0, 2500.0, SMALL.shape)
SETTINGS = Settings(
    dataclasses.replace(load(), style_a=PROCESS, style_b=PROCESS),
    family="layered",
    method="gauss-newton",
    max_evaluations=60,
    survey=SMALL,
)


def small_chunk(count=4):
    """A chunk of samples with their records."""
    samples = []
    for k in range(count):
        truth = textured(SMALL, k).round()
        start = (truth + 30 * smooth_change(SMALL, k)).numpy()
        record = Simulator(SMALL).forward(truth[None])[0].numpy()
        samples.append(Sample(k, f"s{k}", (("start", start),), record))
    return Chunk(0, tuple(samples))
