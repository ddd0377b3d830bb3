"""The wave operator. This is its only door: everything else in the folder is behind it."""

from fwi_refine.wave.cuda import devices
from fwi_refine.wave.cuda import memory as gpu_memory
from fwi_refine.wave.cuda import problem as gpu_problem
from fwi_refine.wave.flat import (
    first_return,
    flat_jacobian,
    flat_jacobian_shots,
    has_flat_jacobian,
)
from fwi_refine.wave.jacobian import (
    Jacobian,
    jacobian,
    jacobian_bytes,
    jacobian_points,
    record_basis,
)
from fwi_refine.wave.operator import (
    Simulator,
    first_differences,
    released_record,
    simulate,
)
from fwi_refine.wave.workers import one_thread_each

__all__ = [
    "Jacobian",
    "Simulator",
    "devices",
    "first_differences",
    "first_return",
    "flat_jacobian",
    "flat_jacobian_shots",
    "gpu_memory",
    "gpu_problem",
    "has_flat_jacobian",
    "jacobian",
    "jacobian_bytes",
    "jacobian_points",
    "one_thread_each",
    "record_basis",
    "released_record",
    "simulate",
]
