"""What follows a simulation stays on the simulator's device, and never mixes devices."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from emulation import NEEDS_COMPILER, Emulation
from helpers import others_slow
from jacobian_cases import SMALL, relative, smooth_change, textured
from level_cases import blurred
from pretend import pretended

from fwi_refine.inversion.accept import best_of, integers
from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.model import Model
from fwi_refine.inversion.uncertainty import Solution
from fwi_refine.objective.base import PriorTerm, SumOfSquares
from fwi_refine.objective.misfit import BandMisfit, DataMisfit
from fwi_refine.objective.parameterisation import Full, Modes, Regions, Rows
from fwi_refine.objective.source_cells import SourceCells, source_cells
from fwi_refine.objective.vmin_prior import VminPrior
from fwi_refine.optimise import DescentSettings, expectation_propagation, lbfgs, levenberg_marquardt
from fwi_refine.priors import GaussianProcess, TotalVariation1D, TotalVariation2D
from fwi_refine.wave import Simulator, first_differences, jacobian, released_record
from fwi_refine.wave.cuda import program as cuda
from fwi_refine.wave.cuda.layout import Layout

pytestmark = NEEDS_COMPILER
PROCESS = GaussianProcess(2.0, 150.0, 20.0, 500.0, 30.0, 2500.0, SMALL.shape)


@pytest.fixture
def device(monkeypatch):
    """The pretended device, with the emulated kernels as what a GPU has."""
    with pretended() as device:
        program = Emulation(Layout(2, 4, 2, side=2, halo=2, shared=True), device=device)
        monkeypatch.setattr(cuda, "program", lambda _: program)
        yield device


def test_the_device_refuses_what_a_gpu_would(device):
    there, here = torch.ones(3, device=device), torch.ones(3)
    with pytest.raises(RuntimeError, match="on the same device"):
        there + here
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()
    with pytest.raises(RuntimeError, match="adds in any order"):
        there.index_add_(0, torch.zeros(3, device=device).long(), there)
    assert (there + here.to(device)).cpu().tolist() == [2, 2, 2]


def test_jacobian_and_normal_matrix(device):
    v, dv = textured(SMALL), smooth_change(SMALL)
    expected = jacobian(v, survey=SMALL, dtype=torch.float64)
    found = jacobian(v, survey=SMALL, dtype=torch.float64, device=device)
    assert found.matrix.device == device
    assert relative(found.matvec(dv.to(device), 2.0).cpu(), expected.matvec(dv, 2.0)) <= 1e-11
    u = expected.matvec(dv)
    for one, other in zip(found.rmatvec(u.to(device)), expected.rmatvec(u), strict=True):
        assert relative(one.cpu(), other) <= 1e-11
    for one, other in zip(found.normal_matrix(), expected.normal_matrix(), strict=True):
        assert one.device == device
        assert relative(one.cpu(), other) <= 1e-11


def test_a_jacobian_that_memory_is_too_small_for_is_made_in_parts(device, monkeypatch):
    """The limit is on the points simulated at a time: all 5 are too many, and 2 are not."""
    monkeypatch.setattr(sys.modules["fwi_refine.wave.jacobian.assemble"], "GPU_BATCH", 2)
    v = textured(SMALL)
    expected = jacobian(v, survey=SMALL, device=device)
    real, sizes = Simulator.wavefields, []

    def limited(self, *args):
        sizes.append(len(self.survey.sources))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("a limit of this test")
        return real(self, *args)

    monkeypatch.setattr(Simulator, "wavefields", limited)
    found = jacobian(v, survey=SMALL, device=device)
    assert sizes == [5, 2, 2, 1]
    assert torch.equal(found.matrix.cpu(), expected.matrix.cpu())


@pytest.mark.parametrize(
    ("prior", "shape"),
    [(PROCESS, SMALL.shape), (TotalVariation2D(), SMALL.shape), (TotalVariation1D(), (12,))],
)
def test_priors(device, prior, shape):
    v = textured(SMALL) if len(shape) == 2 else textured(SMALL)[:, 0].clone()
    value, gradient = prior.value_and_gradient(v)
    found, found_gradient = prior.value_and_gradient(v.to(device))
    assert float(found) == pytest.approx(float(value), rel=1e-10)
    assert relative(found_gradient.cpu(), gradient) <= 1e-10
    assert relative(prior.hessian(v.to(device)).cpu(), prior.hessian(v)) <= 1e-14


def cases(v):
    """(parameters, prior) of each kind, on the device of the map v."""
    modes = (part.to(v.device) for part in PROCESS.modes(30.0))
    yield Full(v.shape), TotalVariation2D()
    yield Full(v.shape), PROCESS
    yield Rows(v.shape), TotalVariation1D()
    yield Modes(*modes), SumOfSquares()
    yield Regions((v / 200).long()), TotalVariation2D()


@pytest.mark.parametrize("case", others_slow(range(5)))
def test_levenberg_marquardt_and_the_expected_error(device, case):
    """The same steps as on the CPU, from objectives, priors and factors on the device."""
    truth = textured(SMALL)
    record = Simulator(SMALL).forward(truth[None])[0].numpy()
    results = []
    for place in ("cpu", device):
        v = (truth + 20 * smooth_change(SMALL)).to(place)
        parameters, prior = list(cases(v))[case]
        term = PriorTerm(prior, parameters)
        simulator = Simulator(SMALL, device=place)
        misfit = BandMisfit(simulator, parameters, record)
        priors = term + VminPrior(v.min())
        if parameters.prior_acts_on_map:
            priors = priors + SourceCells(source_cells(record, v, SMALL), parameters)
        result = levenberg_marquardt(
            misfit,
            priors,
            parameters.from_velocity(v),
            DescentSettings(
                weight=lambda misfit, prior: 0.01 * misfit / max(prior, 1.0),
                max_iterations=1,
                retract=parameters.retract,
            ),
            corrections=2,
        )
        assert result.x.device.type == torch.device(place).type
        hessian = prior_hessian = None
        if misfit.last_hessian is not None:
            hessian = misfit.last_hessian.clone()
            prior_hessian = term.hessian(result.x) if prior.quadratic else None
            found = Solution(parameters, hessian, result.value, prior_hessian, SMALL)
            hessian = found.deviation()
        v = parameters.velocity(result.x).cpu()
        results.append((result.value, v, hessian.cpu()))
    (value, v, deviation), (found, found_v, found_deviation) = results
    assert found == pytest.approx(value, rel=0.05)  # after a step with a float32 Jacobian
    assert relative(found_v - truth, v - truth) <= 0.05
    assert relative(found_deviation, deviation) <= 1e-2


def test_levels_are_assigned_there(device):
    problem, _, _ = blurred(120, 0)
    there = dataclasses.replace(problem, matrix=problem.matrix.to(device))
    expected, found = expectation_propagation(problem), expectation_propagation(there)
    assert isinstance(found.mean, np.ndarray)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-9)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-9)


def test_lbfgs_and_stages(device):
    """The published method's objective, and what the stages of a sample ask of the simulator."""
    truth = textured(SMALL)
    simulator = Simulator(SMALL, device=device)
    record = Simulator(SMALL).forward(truth[None])[0].numpy()
    start = (truth + 20).to(device)
    parameters = Full(SMALL.shape)
    objective = DataMisfit(simulator, parameters, record) + 1e-8 * PriorTerm(
        TotalVariation2D(), parameters
    )
    result = lbfgs(objective, parameters.from_velocity(start), max_iterations=2, scale=1e15)
    assert result.value < objective(parameters.from_velocity(start))
    data, model = Data.of_sample(record, start, simulator), Model.of(start)
    assert data.with_source_velocities(start).device == device
    assert data.misfit(model, Budget()) > 0
    assert best_of(integers(model), data, Budget())[0].v.device == device


def test_precision_and_cells_are_those_of_the_survey(device):
    """Several samples, and a survey of its own, through the device."""
    survey = dataclasses.replace(SMALL, n_steps=60)
    v = torch.stack([textured(survey, seed) for seed in (1, 2)])
    single = Simulator(survey, torch.float32, device=device).forward(v)
    assert single.dtype == torch.float32
    expected = Simulator(survey, torch.float32).forward(v)
    assert np.linalg.norm(single.cpu() - expected) <= 2e-5 * np.linalg.norm(expected)


def test_a_record_in_released_arithmetic(device):
    v = textured(SMALL)
    expected = released_record(v, survey=SMALL)
    found = released_record(v.to(device), survey=SMALL)
    assert found.device == device
    assert torch.equal(found.cpu(), expected)
    data = expected.clone()
    data[1] += 1
    first = first_differences(v.to(device), data, survey=SMALL)
    assert first.device == device
    assert [int(n) for n in first.amax(1)] == [SMALL.n_steps, 0]
