"""The full Jacobian of a record, from one simulation for each source and receiver.

How it is assembled stands in reciprocity.py. Its rows are not samples but coefficients of an
orthonormal basis Q of all records that the wavelet's frequencies can make: J = Q matrix. So
J^T J = matrix^T matrix and J^T u = matrix^T Q^T u without weights, and with a tenth of the rows
that the samples would be.
"""

import dataclasses
import math
import threading
from dataclasses import dataclass

import torch

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave.jacobian.normal_matrix import ROWS, sum_of_products, sum_without_hidden
from fwi_refine.wave.jacobian.reciprocity import LINES, Assembly, make_plan
from fwi_refine.wave.simulator import Simulator
from fwi_refine.wave.threads import workers

KEPT_PER_PERIOD = 8.2  # wavefields kept per period of the wavelet: every 8th step at 15 Hz
BATCH = 7  # points simulated at a time in float32; 60 MB each for the survey of OpenFWI
GPU_BATCH = 14  # points put into the Jacobian at a time on a GPU, which simulates all at once


@dataclass(frozen=True)
class Jacobian:
    """Derivative of one record by the velocity of each cell and by vmin.

    matrix: (shots * receivers * modes, nz * nx + 1); cells row by row, vmin last
    basis: Q, (n_steps, modes) float64, orthonormal; the derivative of the record is Q matrix
    """

    matrix: torch.Tensor
    basis: torch.Tensor
    survey: Survey

    def project(self, record):
        """Q^T record: (shots, n_steps, receivers) -> (rows,), in the order of the matrix."""
        expected = self.survey.record_shape
        if tuple(record.shape) != expected:
            raise ValueError(f"record of shape {tuple(record.shape)}: expected {expected}")
        return torch.einsum("str,tk->srk", record.to(self.basis), self.basis).flatten()

    def expand(self, rows):
        """Q rows: the record (shots, n_steps, receivers) of a vector of rows."""
        shots, _, receivers = self.survey.record_shape
        rows = rows.to(self.basis).reshape(shots, receivers, -1)
        return torch.einsum("srk,tk->str", rows, self.basis)

    def matvec(self, dv, dvmin=0.0):
        """J (dv, dvmin): change of the record for a change of the map (nz, nx) and of vmin."""
        dvmin = torch.as_tensor(dvmin, dtype=torch.float64).to(dv.device).reshape(1)
        change = torch.cat([dv.detach().flatten().to(dvmin), dvmin])
        return self.expand(self.matrix @ change.to(self.matrix))

    def rmatvec(self, u):
        """J^T u for a record u: (by v (nz, nx), by vmin), float64."""
        gradient = (self.matrix.T @ self.project(u).to(self.matrix)).double()
        return gradient[:-1].reshape(self.survey.shape), gradient[-1]

    def normal_matrix(self, along=None, threads: int | None = None, hidden: float = 0.0):
        """J^T J = D N D with a unit diagonal of N: (N (n, n), D (n,)), float64.

        along: takes rows (m, nz * nx + 1) of J to derivatives (m, n) by other unknowns; default
        every cell and vmin. hidden: for the latter, what in a row of J, by cells from some depth
        on, has no larger norm than this may be left out; see normal_matrix.py. A GPU multiplies
        all, as its products are fast and its eigenvectors of many small matrices are not.
        Products and sums are in float64: in float32 the matrix would not be definite. A column of J
        that is zero has D = 1 and stays zero.
        """
        with workers(self.matrix.device, threads) as pool:
            if along is None and hidden and self.matrix.device.type == "cpu":
                shots, _, receivers = self.survey.record_shape
                matrix = self.matrix.unflatten(0, (shots, receivers, -1))
                normal = sum_without_hidden(matrix, self.survey.shape, hidden, pool)
            else:
                parts = self.matrix.split(ROWS)
                normal = sum_of_products(parts if along is None else pool.map(along, parts), pool)
        squares = normal.diagonal()
        scale = torch.where(squares > 0, squares, 1.0).sqrt()
        normal.div_(scale).div_(scale[:, None])
        return normal.triu_().add_(normal.triu(1).T), scale


def record_basis(survey: Survey = OPENFWI):
    """Q: an orthonormal basis of the traces that the wavelet's band can make, (n_steps, modes)."""
    return make_plan(survey, longest_interval(survey)).basis


def jacobian_points(survey: Survey = OPENFWI) -> tuple[tuple[int, int], ...]:
    """Where `jacobian` simulates a shot: each place of a source or receiver once, sources first."""
    return tuple(dict.fromkeys((*survey.sources, *survey.receivers)))


def jacobian_bytes(survey: Survey = OPENFWI) -> int:
    """About how much memory `jacobian` takes on the CPU, in float32, with two threads."""
    plan = make_plan(survey, longest_interval(survey))
    modes, (spectrum, frames) = plan.basis.shape[1], plan.analysis.shape
    shots, _, receivers = survey.record_shape
    cells, padded = (math.prod(shape) for shape in (survey.shape, survey.padded_shape))
    edge = 2 * sum(survey.shape)
    sources = len({*survey.sources})
    first = max(BATCH, sources)  # points of the first batch
    matrix = shots * receivers * modes * (cells + 1)
    fields = (first + 2 * BATCH) * frames * padded
    spectra = sources * spectrum * (cells + 2 * (padded - cells))
    # of `Assembly`: products of one point with the sources, and sums over the band, with copies
    products = 2 * sources * (spectrum + modes) * (cells + edge)
    band = 8 * spectrum * edge * sources * (first + BATCH)
    lines = (first + BATCH) * (frames + 2 * spectrum) * LINES * survey.absorbing_cells
    return torch.float32.itemsize * (matrix + fields + spectra + products + band + lines)


def longest_interval(survey):
    """Most steps between two kept wavefields that still hold the wavelet."""
    return max(1, int(1 / (KEPT_PER_PERIOD * survey.frequency * survey.dt)))


def jacobian(
    v,  # (nz, nx) m/s
    vmin=None,
    *,
    survey: Survey = OPENFWI,
    dtype: torch.dtype = torch.float32,
    kernel: str = "auto",
    threads: int | None = None,
    every: int | None = None,
    device: str | torch.device | None = None,
) -> Jacobian:
    """The Jacobian of the record of v at v; vmin (default: the minimum of v) is an unknown apart.

    Costs one shot for each distinct position of a source or receiver and, for the survey of
    OpenFWI, 3 GB of memory in float32 and 5 GB in float64. kernel, threads, device: as for
    `Simulator`; on a GPU all points are simulated at once, or as many as memory allows, and the
    result stays there. every: steps between two kept wavefields, default as many as the wavelet
    allows.

    Measured on eight maps, relative: single cells and vmin differ from the tangent by up to 3e-3,
    smooth changes by 1e-3, J^T u from the adjoint by 5e-5 for a residual u. What differs is above
    the frequencies kept, where the cut ends of the wavelet ring, and, in rows that are early, what
    comes round from beyond the transform's period: 2e-3 of the largest row for deep cells. In
    float32 the last ninth of the rows is off by 1e-3 of itself. On white noise from 1500 to 4500
    m/s the wavelet's ends ring most, and a source's cell is 1.6e-2 and a smooth change 5e-3 off.

    Raises ValueError for a v that the simulator refuses and for an `every` that is too large.
    """
    if tuple(v.shape) != survey.shape:
        raise ValueError(f"velocity of shape {tuple(v.shape)}: expected {survey.shape}")
    device = Simulator(survey, dtype, kernel, threads, device=device).device
    v = v.detach().to(device)
    vmin = v.min() if vmin is None else torch.as_tensor(vmin, dtype=torch.float64)
    vmin = vmin.detach().reshape(1).to("cpu", torch.float64)
    most = longest_interval(survey)
    every = most if every is None else every
    if not 1 <= every <= most:
        raise ValueError(
            f"every {every}: expected 1 to {most}, or what is kept of the wavefields cannot hold "
            f"a wavelet of {survey.frequency} Hz"
        )
    plan = make_plan(survey, every)
    # the sources come first: every receiver's fields are multiplied with theirs
    points = jacobian_points(survey)

    def simulated(batch, threads, out):
        shots = dataclasses.replace(plan.survey, sources=tuple(batch))
        simulator = Simulator(shots, dtype, kernel, threads, every, device=device)
        out = None if out is None else out[:, : len(batch)]
        return simulator.wavefields(v[None], vmin, out)

    on_cpu = device.type == "cpu"
    size = BATCH * torch.float32.itemsize // dtype.itemsize if on_cpu else len(points)
    group = max(size if on_cpu else GPU_BATCH, len(set(survey.sources)))
    threads = threads or torch.get_num_threads()
    while True:
        work = Assembly(survey, plan, v, float(vmin), dtype)
        try:
            _assemble(work, points, size, group, simulated, threads)
        except torch.OutOfMemoryError:
            if size <= group:
                raise
        else:
            break
        del work
        size = max(size // 2 // group, 1) * group
        torch.cuda.empty_cache()
    return Jacobian(work.result.flatten(0, 2), plan.basis.to(device), survey)


def _assemble(work, points, size, group, simulated, threads):
    """Fills work.result from the wavefields of `size` points at a time, as long as memory lasts.

    They are assembled `group` points at a time, whatever size is: products of other shapes
    would have other bits, and those must not depend on how much memory was free.
    """
    first = max(size, len(work.sources))
    batches = [points[i : i + size] for i in range(first, len(points), size)]
    memory = threading.local()

    def wavefields(batch, threads=1):
        memory.fields = simulated(batch, threads, getattr(memory, "fields", None))
        return memory.fields[0]

    def add(batch, fields):
        for i in range(0, len(batch), group):
            work.add_receivers(batch[i : i + group], fields[i : i + group])

    fields = wavefields(points[:first], threads)
    with workers(fields.device, threads) as pool:
        work.take_sources(fields[: len(work.sources)], pool)
        rest = pool.map(lambda batch: add(batch, wavefields(batch)), batches)
        pool.submit(add, points[:first], fields).result()
        list(rest)
