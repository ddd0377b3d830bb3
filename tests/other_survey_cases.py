"""A survey that is OpenFWI's in nothing, and small."""

from fwi_refine.survey import Survey

SURVEY = Survey(
    shape=(14, 18),
    spacing=12.5,
    n_steps=200,
    file_rows=201,
    frequency=12.0,
    absorbing_cells=20,
    sources=((2, 2), (2, 9), (3, 15)),
    receivers=(*((1, c) for c in range(0, 18, 2)), (9, 16)),
    velocity_bounds=(1200.0, 5000.0),
)
