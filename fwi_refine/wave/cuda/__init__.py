"""The GPU's kernels: compiled by `program`, called by `kernel`, laid out by `layout`."""
