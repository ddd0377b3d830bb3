"""The wave operator. This is its only door: everything else in the folder is behind it."""

from fwi_refine.wave.cuda.program import devices
from fwi_refine.wave.cuda.program import memory as gpu_memory
from fwi_refine.wave.cuda.program import problem as gpu_problem
from fwi_refine.wave.deterministic import add_at, gram
from fwi_refine.wave.differentiable import simulate
from fwi_refine.wave.grid import C2, fold, pad
from fwi_refine.wave.interrupt import asking
from fwi_refine.wave.jacobian.accumulated import normal_matrix
from fwi_refine.wave.jacobian.assemble import jacobian_points
from fwi_refine.wave.jacobian.coefficient import coefficient_jacobian
from fwi_refine.wave.jacobian.flat_layers import (
    first_return,
    flat_jacobian,
    flat_jacobian_shots,
    has_flat_jacobian,
)
from fwi_refine.wave.jacobian.full import Jacobian, jacobian
from fwi_refine.wave.jacobian.memory import jacobian_bytes, normal_matrix_bytes
from fwi_refine.wave.jacobian.normal_matrix import transposed_product
from fwi_refine.wave.jacobian.operator import jacobian_operator
from fwi_refine.wave.jacobian.plan import longest_interval, record_basis
from fwi_refine.wave.modules import RecordMisfit, WaveSimulator
from fwi_refine.wave.paths import KERNELS
from fwi_refine.wave.released_arithmetic import (
    coefficient_rounding,
    first_unequal,
    released_medium,
)
from fwi_refine.wave.released_arithmetic import propagate as propagate_released
from fwi_refine.wave.released_record import first_differences, released_record
from fwi_refine.wave.self_test import compare_kernels
from fwi_refine.wave.simulator import Simulator
from fwi_refine.wave.speed import measure_speed
from fwi_refine.wave.threads import one_thread_each

__all__ = [
    "C2",
    "KERNELS",
    "Jacobian",
    "RecordMisfit",
    "Simulator",
    "WaveSimulator",
    "add_at",
    "asking",
    "coefficient_jacobian",
    "coefficient_rounding",
    "compare_kernels",
    "devices",
    "first_differences",
    "first_return",
    "first_unequal",
    "flat_jacobian",
    "flat_jacobian_shots",
    "fold",
    "gpu_memory",
    "gpu_problem",
    "gram",
    "has_flat_jacobian",
    "jacobian",
    "jacobian_bytes",
    "jacobian_operator",
    "jacobian_points",
    "longest_interval",
    "measure_speed",
    "normal_matrix",
    "normal_matrix_bytes",
    "one_thread_each",
    "pad",
    "propagate_released",
    "record_basis",
    "released_medium",
    "released_record",
    "simulate",
    "transposed_product",
]
