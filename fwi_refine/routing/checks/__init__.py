"""Checks of inputs: are they maps in m/s and records as simulated?

`inputs` takes a few samples of a run, and `recognise` looks for what they seem to be. Each of the
other modules looks for one kind: units and axes (`form`), scales (`regression`), `order`, `source`,
`physics`, the `first_rows` of records, the `source_velocities` that these tell, and `other_maps` of
the same samples.
"""
