"""Does a kernel compute on this device what the CPU's kernel computes?

A card proves itself before it is used: records, tangent, adjoint, misfit with its gradient,
wavefields, the released data's arithmetic and a small Jacobian, against the kernel of the CPU. A
test that passed is remembered in the user's cache folder, for this card, driver, torch and program
(identity.py); one that failed is not, and is done again in the next process.
"""

import functools
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from fwi_refine.precision import Float64, float64
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave.cuda.compiler import cache_folder, cached
from fwi_refine.wave.jacobian.full import jacobian
from fwi_refine.wave.paths import MakeKernel, Path, choose, paths_on
from fwi_refine.wave.simulator import Simulator

# The grid of OpenFWI, as the kernels are compiled for a grid. In 0.45 s a wave of 4 km/s crosses
# the band and comes round at the other end; receivers share a cell with a source or stand apart.
SURVEY = replace(
    OPENFWI,
    n_steps=450,
    file_rows=450,
    sources=((1, 0), (1, 69)),
    receivers=((1, 0), (1, 34), (1, 69), (40, 20)),
)
SLOWEST, FASTEST = 3500.0, 4500.0  # m/s, of its map
JACOBIAN_STEPS = 300
SAMPLES = 2
KEEP_EVERY = 7  # steps between two wavefields: it divides neither number of steps

# Relative differences (2-norm) from the CPU's kernel. In float64 kernels differ by the order of
# their sums. In float32 two kernels of the CPU differ by 1.2e-4 in gradients by vmin after a
# thousand steps, by 4e-5 in other gradients, and by 2e-6 in records (tests/test_gpu.py).
DOUBLE_TOLERANCE = 1e-11
SINGLE_TOLERANCES = {"records": 2e-5, "misfit": 2e-5, "wavefields": 2e-5, "Jacobian": 5e-5}
SINGLE_TOLERANCE_OF_OTHERS = 5e-4
BITS = "equal bits"

Values = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Comparison:
    """One line of a self-test.

    Attributes
    ----------
    name : str
        What was computed.
    error : float
        Relative difference from the CPU's kernel; infinite where a result is not finite.
    bound : float
        Most that is allowed.
    """

    name: str
    error: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the bound."""
        return self.error <= self.bound

    def __str__(self) -> str:
        return f"{self.name} differ by {self.error:.1e}, expected at most {self.bound:.0e}"


def compare(
    make: MakeKernel, device: torch.device, survey: Survey = SURVEY, seed: int = 0
) -> list[Comparison]:
    """Compare a kernel with that of the CPU.

    Parameters
    ----------
    make : callable
        Makes the kernel, of a survey, a type and an imaging step.
    device : torch.device
        Where it computes.
    survey : Survey
        The survey; the grid of the data that the kernel is for.
    seed : int
        Of maps and residuals.

    Returns
    -------
    list of Comparison
        Everything that a kernel can do, in float64, where the device has that, and in float32.
    """
    of_cpu = choose("auto", "cpu", torch.get_num_threads()).make
    cpu = torch.device("cpu")
    double = [] if float64(device) is Float64.NONE else [torch.float64]
    compared = []
    for dtype in (*double, torch.float32):
        for what, values in _calls(survey, seed).items():
            right = values(of_cpu, cpu, dtype)
            once, twice = (values(make, device, dtype) for _ in range(2))
            for name, value in once.items():
                # a result that is another one the second time has a race in it
                same = torch.equal(value, twice[name])
                error = _error(value, right[name]) if same else math.inf
                bound = SINGLE_TOLERANCES.get(what, SINGLE_TOLERANCE_OF_OTHERS)
                if dtype == torch.float64:
                    bound = DOUBLE_TOLERANCE
                compared.append(Comparison(f"{name}, {str(dtype)[6:]}", error, bound))
    single = torch.float32
    maps = _maps(survey, seed)
    expected, found = (
        Simulator(survey, single, make, imaging_step=KEEP_EVERY, device=where).released(maps).cpu()
        for make, where in ((of_cpu, cpu), (make, device))
    )
    error = 0.0 if torch.equal(found, expected) else max(_error(found, expected), 1e-12)
    compared.append(Comparison(f"released records, {BITS}", error, 0.0))
    return [*compared, _jacobians(make, of_cpu, device, survey, seed)]


def problem(path: Path, survey: Survey = SURVEY) -> str | None:
    """Say why a path is not to be used; what passed is remembered.

    Parameters
    ----------
    path : Path
        The path; one without an identity needs no test.
    survey : Survey
        As for `compare`.

    Returns
    -------
    str or None
        None where the self-test passes, or passed before.
    """
    return None if path.identity is None else _problem(path.identity, survey, _Once(path))


class _Once:
    """A path as an argument that a cache takes for the same each time."""

    def __init__(self, path: Path):
        self.path = path

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Once)


@functools.cache
def _problem(identity: str, survey: Survey, once: _Once) -> str | None:
    """One test in a process, and one for an identity, as long as its result can be kept."""

    def tested() -> bytes:
        compared = compare(once.path.make, once.path.device, survey)
        if failed := [str(line) for line in compared if not line.passed]:
            more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
            raise _FailedError(f"its self-test failed: {failed[0]}{more}")
        table: dict[str, Any] = {"for": identity.split("\n"), "compared": [*map(asdict, compared)]}
        return json.dumps(table, indent=1).encode()

    try:
        cached(cache_folder() / f"self-test-{_name(identity, survey)}.json", tested)
    except _FailedError as error:
        return str(error)
    except Exception as error:  # whatever a compiler, a driver or a library raises
        return f"{type(error).__name__}: {error}"
    return None


class _FailedError(Exception):
    pass


def _name(identity: str, survey: Survey) -> str:
    return hashlib.sha256(f"{identity}\n{survey}".encode()).hexdigest()[:32]


def _maps(survey: Survey, seed: int) -> torch.Tensor:
    """Rough maps, (SAMPLES, nz, nx) m/s, within the survey's bounds."""
    generator = torch.Generator().manual_seed(seed)
    slowest, fastest = survey.velocity_bounds
    low, high = max(slowest, SLOWEST), min(fastest, FASTEST)
    random = torch.rand(SAMPLES, *survey.shape, generator=generator, dtype=torch.float64)
    return low + (high - low) * random


def _random(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _calls(
    survey: Survey, seed: int
) -> dict[str, Callable[[MakeKernel, torch.device, torch.dtype], Values]]:
    """The computations of the test, as functions of a kernel, a device and a type."""
    v = _maps(survey, seed)
    dv, u = _random(tuple(v.shape), seed + 1), _random((SAMPLES, *survey.record_shape), seed + 2)
    vmin = 0.98 * v.amin((1, 2))
    dvmin = torch.linspace(7.0, -3.0, SAMPLES, dtype=torch.float64)
    # without receivers the CPU's kernel leaves no cell out
    whole = replace(survey, receivers=())

    def with_simulator(
        call: Callable[[Simulator], Values], survey: Survey = survey
    ) -> Callable[[MakeKernel, torch.device, torch.dtype], Values]:
        def values(make: MakeKernel, device: torch.device, dtype: torch.dtype) -> Values:
            simulator = Simulator(survey, dtype, make, imaging_step=KEEP_EVERY, device=device)
            return {name: value.cpu().double() for name, value in call(simulator).items()}

        return values

    def adjoint(simulator: Simulator) -> Values:
        return dict(zip(("adjoint", "adjoint by vmin"), simulator.adjoint(v, u, vmin), strict=True))

    def misfit(simulator: Simulator) -> Values:
        names = ("misfit", "gradient", "gradient by vmin")
        return dict(zip(names, simulator.misfit_and_gradient(v, u, vmin), strict=True))

    return {
        "records": with_simulator(lambda s: {"records": s.forward(v, vmin)}),
        "tangent": with_simulator(lambda s: {"tangent": s.tangent(v, dv, vmin, dvmin)}),
        "adjoint": with_simulator(adjoint),
        "gradient": with_simulator(misfit),
        "wavefields": with_simulator(
            lambda s: {"wavefields": s.wavefields(v[:1], vmin[:1])}, whole
        ),
    }


def _jacobians(
    make: MakeKernel, of_cpu: MakeKernel, device: torch.device, survey: Survey, seed: int
) -> Comparison:
    """The Jacobian of a short record by a smooth map."""
    steps = min(JACOBIAN_STEPS, survey.n_steps)
    short = replace(survey, n_steps=steps, file_rows=steps)
    v = _maps(short, seed).mean() + 100 * torch.linspace(-1, 1, short.shape[0])[:, None]
    v = v.double().expand(short.shape).contiguous()
    found, expected = (
        jacobian(v, survey=short, kernel=kernel, device=where).matrix.cpu().double()
        for kernel, where in ((make, device), (of_cpu, torch.device("cpu")))
    )
    return Comparison("Jacobian, float32", _error(found, expected), SINGLE_TOLERANCES["Jacobian"])


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative difference; infinite where it is not a number."""
    error = float((found.double() - expected.double()).norm() / expected.double().norm())
    return error if math.isfinite(error) else math.inf


def compare_kernels(
    device: torch.device, survey: Survey | None = None
) -> dict[str, list[Comparison] | str]:
    """The whole self-test of every kernel on a device, whatever is remembered.

    Parameters
    ----------
    device : torch.device
        The device; on the CPU, torch's operations alone.
    survey : Survey, optional
        Default SURVEY, on the CPU with a tenth of its steps.

    Returns
    -------
    dict of str to list of Comparison or str
        By the kernel's name; a text says why it cannot be used.
    """
    few = replace(SURVEY, n_steps=SURVEY.n_steps // 10, file_rows=SURVEY.n_steps // 10)
    survey = survey or (few if device.type == "cpu" else SURVEY)
    found: dict[str, list[Comparison] | str] = {}
    for name, path in paths_on(device).items():
        try:
            found[name] = path if isinstance(path, str) else compare(path.make, device, survey)
        except Exception as error:  # whatever a compiler, a driver or a library raises
            found[name] = f"{type(error).__name__}: {error}"
    return found
