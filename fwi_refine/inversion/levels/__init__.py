"""Maps of few levels, which are what layered maps are.

`levels` reads them off a map, `assign` gives each cell its level, `refine` repeats that until the
record is explained, and `rounding` takes out of it what the data's own rounding put in.
"""
