"""Maps of few levels, as layered maps are.

`levels` reads the levels off a map, `integers` rounds a map to them, `assign` gives each cell its
level, `refine` repeats that until the record is explained, and `rounding` removes the rounding of
the released data from the record; `settings` holds their constants.
`exact` proves maps of integers by their record and repairs those that are almost right, with the
unknowns of `candidates` and their effects by `scattering`.
"""
