"""Is this installation sound? Checks with numbers."""

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave import Simulator, compare_kernels, gpu_problem, measure_speed

PACKAGES = ("fwi-refine", "torch", "numpy", "scipy", "scikit-learn", "h5py", "joblib")


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report.

    Attributes
    ----------
    name : str
        What is checked.
    value : float, list of float or str
        What was found.
    expected : str
        What was expected, in words.
    passed : bool or None
        None where there is nothing to pass.
    """

    name: str
    value: object
    expected: str = ""
    passed: bool | None = None


def versions(simulator: Simulator) -> list[Check]:
    """Versions, devices and the kernel in use.

    Parameters
    ----------
    simulator : Simulator
        The one whose kernel and threads are reported.

    Returns
    -------
    list of Check
    """
    checks = [Check("python", platform.python_version())]
    checks += [Check(name, importlib.metadata.version(name)) for name in PACKAGES]
    found = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    checks += [
        Check("cpu threads", simulator.threads),
        Check("gpus", ", ".join(found) or "none"),
        Check("gpu kernels", _gpu_kernels(bool(found))),
        Check("kernel", simulator.kernel, "native or cuda; the reference is right, but slow"),
    ]
    return checks


def _gpu_kernels(there: bool) -> str:
    """Which kernels a GPU is computed on with."""
    problem = gpu_problem()
    if there and problem:
        return f"torch's operations, as {problem}"
    return problem or "can be used"


def self_tests(simulator: Simulator) -> list[Check]:
    """Every kernel of the simulator's device against that of the CPU; nothing for the CPU's own.

    Parameters
    ----------
    simulator : Simulator
        The one whose device is tested.

    Returns
    -------
    list of Check
    """
    if simulator.kernel.split()[0] in ("native", "reference"):
        return []
    checks = []
    for kernel, compared in compare_kernels(simulator.device).items():
        if isinstance(compared, str):
            checks.append(Check(f"self-test, {kernel}", compared, "a kernel that computes", False))
            continue
        for line in compared:
            expected = "equal bits" if line.bound == 0 else f"<= {line.bound:.0e}"
            name = f"self-test, {kernel}: {line.name}"
            checks.append(Check(name, line.error, expected, line.passed))
    return checks


def adjoint_test(
    survey: Survey = OPENFWI, seed: int = 0, options: Mapping[str, Any] | None = None
) -> Check:
    """Relative difference between <J dv, u> and <dv, J^T u> for random dv and u, in float64.

    Every step is imaged, as only that is exact, and kept short: it takes memory.

    Parameters
    ----------
    survey : Survey
        Its first 200 time steps are used.
    seed : int
        Of dv and u.
    options : mapping, optional
        Of a `Simulator`, whose kernel and device are used; default the CPU's kernel.

    Returns
    -------
    Check
        Passed if the relative difference is at most 1e-12.
    """
    rng = torch.Generator().manual_seed(seed)
    nz, nx = survey.shape
    survey = replace(survey, n_steps=min(survey.n_steps, 200))
    simulator = Simulator(survey, imaging_step=1, **(options or {}))

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    v = 2500 + 300 * draw(1, nz, nx).clamp(-3, 3)
    dv, dvmin, u = draw(1, nz, nx), draw(1), draw(1, *survey.record_shape)
    tangent = simulator.tangent(v, dv, dvmin=dvmin)
    by_v, by_vmin = simulator.adjoint(v, u)
    left = (tangent.cpu() * u).sum()
    right = (dv * by_v.cpu()).sum() + (dvmin * by_vmin.cpu()).sum()
    error = ((left - right).abs() / left.abs()).item()
    return Check("adjoint test, relative error", error, "<= 1e-12", passed=error <= 1e-12)


def speed(simulator: Simulator) -> list[Check]:
    """Seconds for one sample: the records of a map, and the misfit with its gradient.

    Parameters
    ----------
    simulator : Simulator
        The one that is timed.

    Returns
    -------
    list of Check
    """
    simulation, gradient = measure_speed(simulator)
    return [Check("simulation, s", simulation), Check("misfit and gradient, s", gradient)]
