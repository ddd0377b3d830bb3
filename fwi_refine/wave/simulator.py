"""The wave operator: velocity maps to records, its tangent, its adjoint, and the data misfit.

The map is padded with its edge values; the gradient of a padded cell therefore belongs to the
edge cell whose value it took. vmin, the velocity that scales the damping, is the minimum of the
map unless it is given: in an inversion it is an unknown of its own, as min(v) is not smooth.
"""

import functools
import os
import warnings
from dataclasses import replace

import torch

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave.cpu import NativeKernel
from fwi_refine.wave.cpu import load as load_native
from fwi_refine.wave.cuda import program as cuda
from fwi_refine.wave.cuda.kernel import BlockKernel
from fwi_refine.wave.grid import pad
from fwi_refine.wave.reference import ReferenceKernel
from fwi_refine.wave.released_arithmetic import released_medium

# Imaging every 5th step changes the gradient by a few 1e-6 relative (BENCHMARKS.md).
IMAGING_STEP = 5

FALLBACK_WARNING = (
    "the compiled wave kernel is not available, so the slow torch reference is used; "
    "reinstall fwi-refine where a C compiler is present"
)


class Simulator:
    """The wave operator of one survey.

    Shapes: velocity maps v (B, nz, nx) m/s; vmin (B,) m/s; records (B, shots, steps, receivers).
    All methods take torch tensors and return tensors of the simulator's dtype (misfit values and
    derivatives by vmin: float64), without autograd; `simulate` is the differentiable door.

    device: "cpu", or a GPU such as "cuda" or "cuda:1": there tensors are taken to and results
    stay. kernel: "auto" takes the compiled kernel where it was built, "native" insists on it,
    "cuda" is that of a GPU, "reference" is plain torch. imaging_step: gradients correlate every so
    many steps; 1 is exact. threads: of the CPU, default all cores that torch uses. Raises
    ValueError for a velocity that is not finite and positive, or too high for the time step,
    RuntimeError, saying why, for a GPU that cannot be used.
    """

    def __init__(
        self,
        survey: Survey = OPENFWI,
        dtype: torch.dtype = torch.float64,
        kernel: str = "auto",
        threads: int | None = None,
        imaging_step: int = IMAGING_STEP,
        narrow: bool = True,
        device: str | torch.device | None = None,
    ):
        if kernel not in ("auto", "native", "reference", "cuda"):
            raise ValueError(f"kernel {kernel!r}: expected 'auto', 'native', 'reference' or 'cuda'")
        if imaging_step < 1:
            raise ValueError(f"imaging_step {imaging_step}: expected at least 1")
        self.device = torch.device(device or ("cuda" if kernel == "cuda" else "cpu"))
        on_gpu = self.device.type != "cpu"
        if kernel != "auto" and on_gpu != (kernel == "cuda"):
            raise ValueError(f"kernel {kernel!r} does not run on the device {self.device}")
        if kernel == "auto" and not on_gpu:
            kernel = "native" if load_native() is not None else "reference"
            if kernel == "reference" and os.environ.get("FWI_REFINE_KERNEL") != "reference":
                warnings.warn(FALLBACK_WARNING, RuntimeWarning, stacklevel=2)
        self.survey = survey
        self.dtype = dtype
        self.threads = threads or torch.get_num_threads()
        if on_gpu:
            program = cuda.program(self.device)
            self.device = program.device
            self._make = lambda dtype: BlockKernel(survey, dtype, imaging_step, program)
        else:
            kind = NativeKernel if kernel == "native" else ReferenceKernel
            self._make = lambda dtype: kind(survey, dtype, self.threads, imaging_step, narrow)
        self._kernel = self._make(dtype)

    @functools.cached_property
    def _single(self):
        """The kernel in float32, which the released data was made in."""
        return self._kernel if self.dtype == torch.float32 else self._make(torch.float32)

    @property
    def kernel(self) -> str:
        """Which kernel computes, with its instruction set or card; the first word is its kind."""
        return self._kernel.name

    @property
    def how(self) -> dict:
        """Keyword arguments of another simulator, or of `jacobian`, that is to run like this."""
        kind = self.kernel.split()[0]
        return {"kernel": kind, "threads": self.threads, "device": self.device}

    def forward(self, v, vmin=None):
        """Records of the maps v, (B, shots, steps, receivers)."""
        alpha, vmin = self._medium(v, vmin)
        return self._kernel.forward(alpha, vmin)

    def released(self, v, vmin=None):
        """Records of the maps v with the bits of the released data (released_arithmetic.py)."""
        self._check(v)
        return self._single.released(
            *released_medium(v.detach().to(self.device), vmin, self.survey)
        )

    def recorded(self, v):
        """Records of the maps v as a file has them: `released` ones in float32 of OpenFWI's survey,
        whatever its number of steps, `forward` ones otherwise."""
        ours = replace(self.survey, n_steps=OPENFWI.n_steps) == OPENFWI
        return (self.released if ours and self.dtype == torch.float32 else self.forward)(v)

    def first_differences(self, v, d, vmin=None, stop=False):
        """(B, shots, receivers) int32: the first step in which `released` records of v are not d.

        n_steps where there is none. stop: a shot may end with the first of its differences.
        """
        self._check(v)
        medium = released_medium(v.detach().to(self.device), vmin, self.survey)
        return self._single.first_differences(*medium, d, stop)

    def wavefields(self, v, vmin=None, out=None):
        """Every k-th wavefield p[k], p[2k], ... before the last step, k the imaging step.

        (B, shots, frames, rows, columns) on the padded grid; p[n] is what row n - 1 of a record
        was taken from. In a survey without receivers nothing is left out; with receivers the
        compiled kernel leaves zeros where nothing can reach one of them any more. out: an earlier
        result of the same shape, or of one sample and more shots cut to this shape, to overwrite.
        """
        return self._kernel.wavefields(*self._medium(v, vmin), out)

    def tangent(self, v, dv, vmin=None, dvmin=None):
        """J dv: change of the records, to first order, for changes dv of v and dvmin of vmin.

        vmin stays what it is unless dvmin says otherwise, whatever dv does to the minimum.
        """
        alpha, vmin = self._medium(v, vmin)
        dvmin = torch.zeros_like(vmin) if dvmin is None else dvmin.to(vmin)
        v, dv = (x.to(self.device, self.dtype) for x in (v, dv))
        dalpha = 2 * pad(v * dv, self.survey) * self._scale
        return self._kernel.tangent(alpha, vmin, dalpha, dvmin)

    def adjoint(self, v, u, vmin=None):
        """J^T u: (by v (B, nz, nx), by vmin (B,)); exact for imaging_step = 1."""
        alpha, vmin = self._medium(v, vmin)
        by_alpha, by_vmin = self._kernel.adjoint(alpha, vmin, u)
        return self._by_velocity(v, by_alpha), by_vmin

    def misfit(self, v, d, vmin=None):
        """mean((s(v) - d)^2) over shots, steps and receivers, (B,) float64."""
        alpha, vmin = self._medium(v, vmin)
        value, _, _ = self._kernel.misfit(alpha, vmin, d, gradient=False)
        return value / self._samples_per_record

    def misfit_and_gradient(self, v, d, vmin=None):
        """mean((s(v) - d)^2), (B,), its gradient by v, (B, nz, nx), and by vmin, (B,)."""
        alpha, vmin = self._medium(v, vmin)
        value, by_alpha, by_vmin = self._kernel.misfit(alpha, vmin, d, gradient=True)
        n = self._samples_per_record
        return value / n, self._by_velocity(v, by_alpha) / n, by_vmin / n

    @property
    def _samples_per_record(self):
        shots, steps, receivers = self.survey.record_shape
        return shots * steps * receivers

    @property
    def _scale(self):
        return (self.survey.dt / self.survey.spacing) ** 2

    def _medium(self, v, vmin):
        self._check(v)
        v = v.detach().to(self.device)
        vmin = v.amin(dim=(1, 2)).double() if vmin is None else vmin.to(self.device)
        return pad(v.to(self.dtype), self.survey).square() * self._scale, vmin

    def _check(self, v):
        nz, nx = self.survey.shape
        if v.ndim != 3 or tuple(v.shape[1:]) != (nz, nx):
            raise ValueError(f"velocity of shape {tuple(v.shape)}: expected (B, {nz}, {nx})")

    def _by_velocity(self, v, by_alpha):
        """By the cells of the map; d alpha / dv = 2 v (dt / dx)^2."""
        # one after the other: a GPU's sum over the band might come in an order for the batch
        folded = torch.cat([self._folded(one) for one in by_alpha.split(1)])
        return folded * 2 * self._scale * v.detach().to(folded)

    def _folded(self, by_alpha):
        """The padded band added to the edge cells that it repeats."""
        margin = self.survey.absorbing_cells
        for dim in (1, 2):
            n = by_alpha.shape[dim] - 2 * margin
            inside = by_alpha.narrow(dim, margin, n).clone()
            inside.select(dim, 0).add_(by_alpha.narrow(dim, 0, margin).sum(dim))
            inside.select(dim, n - 1).add_(by_alpha.narrow(dim, margin + n, margin).sum(dim))
            by_alpha = inside
        return by_alpha


class _Simulate(torch.autograd.Function):
    """Forward run with the adjoint run as its backward; nothing but v is kept in between."""

    @staticmethod
    def forward(ctx, v, vmin, simulator):
        ctx.save_for_backward(v, vmin)
        ctx.simulator = simulator
        return simulator.forward(v, vmin)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, u):
        v, vmin = ctx.saved_tensors
        by_v, by_vmin = ctx.simulator.adjoint(v, u, vmin)
        return by_v.to(v), by_vmin.to(vmin), None


@functools.lru_cache(maxsize=2)
def _default_simulator(dtype, device):
    return Simulator(dtype=dtype, device=device)


def simulate(v, vmin=None, simulator: Simulator | None = None):
    """Records of velocity maps v, (B, nz, nx) m/s or (nz, nx), differentiable by v and vmin.

    With vmin=None it is the minimum of each map, and its derivative goes to the minimal cell.
    simulator: default one for the type and device of v. Returns (B, shots, steps, receivers),
    without B where v has none. A network can be trained through it.
    """
    batched = v if v.ndim == 3 else v[None]
    simulator = simulator or _default_simulator(v.dtype, v.device)
    vmin = (
        batched.amin(dim=(1, 2))
        if vmin is None
        else torch.as_tensor(vmin, device=v.device).reshape(-1)
    )
    record = _Simulate.apply(batched, vmin, simulator)
    return record if v.ndim == 3 else record[0]


def released_record(
    v, vmin=None, survey: Survey = OPENFWI, threads: int | None = None, kernel: str = "auto"
):
    """The record of one map v (nz, nx) m/s as the released data has it: (shots, steps, receivers).

    float32, with the bits of the released data, on any device and by any kernel. vmin: default the
    minimum of v. threads: on the CPU, default torch's number. On a GPU where v is on one.
    Raises ValueError for a v of another shape.
    """
    v, vmin = _one(v, vmin, survey)
    return _simulator(survey, threads, kernel, v.device).released(v, vmin)[0]


def first_differences(
    v, record, vmin=None, survey: Survey = OPENFWI, *, stop=False, threads=None, kernel="auto"
):
    """(shots, receivers) int32: the first row in which a record is not that of one map v.

    record: (shots, rows >= n_steps, receivers). n_steps where a trace is equal throughout: a map
    all of whose traces are is proven by its record. stop: each shot ends with the first of its
    differences, which is what is sought where a map is tried; later ones are not looked for.
    Raises ValueError for arrays of other shapes.
    """
    v, vmin = _one(v, vmin, survey)
    data = torch.as_tensor(record)[None, :, : survey.n_steps]
    simulator = _simulator(survey, threads, kernel, v.device)
    return simulator.first_differences(v, data, vmin, stop=stop)[0]


def _one(v, vmin, survey):
    if tuple(v.shape) != survey.shape:
        raise ValueError(f"velocity of shape {tuple(v.shape)}: expected {survey.shape}")
    vmin = None if vmin is None else torch.as_tensor(vmin, dtype=torch.float64).reshape(1)
    return v.detach()[None], vmin


def _simulator(survey, threads, kernel, device):
    return Simulator(survey, torch.float32, kernel, threads, device=device)
