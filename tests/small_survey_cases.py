"""A survey of 20 x 25 cells and two shots, on which a sample takes a moment."""

from dataclasses import replace

from fwi_refine.survey import OPENFWI

SURVEY = replace(
    OPENFWI,
    shape=(20, 25),
    absorbing_cells=25,
    velocity_bounds=(1400.0, 5000.0),
    n_steps=400,
    file_rows=400,
    sources=((1, 2), (1, 20)),
    receivers=tuple((1, column) for column in range(25)),
)
