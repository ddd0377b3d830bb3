"""The torch modules: right derivatives, any batch, and modules that behave as modules do."""

import copy
import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from wave_cases import SMALL, random_like, random_maps

from fwi_refine.survey import OPENFWI
from fwi_refine.wave import RecordMisfit, Simulator, WaveSimulator

# Few cells and steps: a numerical derivative simulates twice for each cell.
FEW = replace(
    SMALL,
    shape=(4, 5),
    n_steps=100,  # the peak of the wavelet is at 73
    sources=((1, 0), (1, 4)),
    receivers=((1, 1), (1, 3)),
)


def test_records_are_those_of_the_simulator():
    v = random_maps(SMALL)
    expected = Simulator(SMALL).forward(v)
    simulate = WaveSimulator(SMALL)
    assert torch.equal(simulate(v), expected)
    assert torch.equal(simulate(v[:, None]), expected)
    assert torch.equal(simulate(v[1:]), expected[1:])
    damped = torch.tensor([1200.0, 1300.0], dtype=torch.float64)
    assert torch.equal(simulate(v, damped), Simulator(SMALL).forward(v, damped))
    assert simulate(v[:0]).shape == (0, *SMALL.record_shape)


@pytest.mark.parametrize("module", [WaveSimulator, RecordMisfit])
def test_derivatives(module):
    operator = module(FEW, imaging_step=1)
    v = random_maps(FEW).requires_grad_()
    vmin = torch.tensor([1100.0, 1400.0], dtype=torch.float64, requires_grad=True)
    others = () if module is WaveSimulator else (random_like((2, *FEW.record_shape), 3),)
    options = {"eps": 1e-2, "atol": 1e-9, "rtol": 1e-4, "fast_mode": True}

    def both(v, vmin):
        return operator(v, *others, vmin)

    assert torch.autograd.gradcheck(both, (v, vmin), **options)
    # without a vmin of its own the least cell has its derivative too
    assert torch.autograd.gradcheck(lambda v: operator(v, *others), (v,), **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_types(dtype):
    v = random_maps(SMALL).to(dtype).requires_grad_()
    simulated = torch.float64 if dtype is torch.float64 else torch.float32
    record = WaveSimulator(SMALL)(v)
    misfit = RecordMisfit(SMALL)(v, torch.zeros_like(record))
    assert record.dtype == misfit.dtype == simulated
    misfit.sum().backward()
    assert v.grad.dtype == dtype
    assert v.grad.shape == v.shape
    assert v.grad.isfinite().all()


def test_the_misfit_is_the_difference_of_records():
    v, d = random_maps(SMALL).requires_grad_(), random_like((2, 3, 70, 14), 1)
    weights = torch.tensor([0.3, 2.0], dtype=torch.float64)
    one_pass = RecordMisfit(SMALL)(v, d)
    (by_misfit,) = torch.autograd.grad(one_pass @ weights, v)
    two_passes = (WaveSimulator(SMALL)(v) - d[:, :, :61]).square().mean(dim=(1, 2, 3))
    (by_record,) = torch.autograd.grad(two_passes @ weights, v)
    torch.testing.assert_close(one_pass, two_passes, rtol=1e-12, atol=0)
    torch.testing.assert_close(by_misfit, by_record, rtol=1e-9, atol=1e-12 * by_record.abs().max())
    with torch.no_grad():
        torch.testing.assert_close(RecordMisfit(SMALL)(v, d), one_pass, rtol=1e-12, atol=0)
    assert not RecordMisfit(SMALL)(v.detach(), d).requires_grad


@pytest.mark.parametrize("module", [WaveSimulator, RecordMisfit])
def test_modules_can_be_kept_and_copied(module):
    operator = module(SMALL, imaging_step=2, threads=1)
    arguments = [random_maps(SMALL)]
    if module is RecordMisfit:
        arguments.append(random_like((2, *SMALL.record_shape), 2))
    expected = operator(*arguments)
    stored = io.BytesIO()
    torch.save(operator, stored)
    stored.seek(0)
    copies = (
        copy.deepcopy(operator),
        pickle.loads(pickle.dumps(operator)),
        torch.load(stored, weights_only=False),
        operator.to(torch.float32).eval(),
    )
    for other in copies:
        assert (other.survey, other.imaging_step, other.threads) == (SMALL, 2, 1)
        assert torch.equal(other(*arguments), expected)
    assert operator.state_dict() == {}
    assert [*operator.parameters()] == []
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), operator)
    assert len(network.state_dict()) == 2
    assert repr(operator) == f"{module.__name__}((9, 12) -> (3, 61, 14))"


def test_a_network_is_trained_through_it():
    """A map that comes out of weights: a few steps of Adam lower the misfit by much."""
    torch.manual_seed(0)
    truth = torch.full((1, 9, 12), 2000.0)
    truth[:, 5:] = 2400.0
    record = WaveSimulator(SMALL)(truth)
    network = torch.nn.Sequential(torch.nn.Linear(4, 108), torch.nn.Unflatten(1, (1, 9, 12)))
    code, misfit = torch.ones(1, 4), RecordMisfit(SMALL)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        v = 1500 + 1500 * torch.sigmoid(network(code))
        loss = misfit(v, record).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("shape", [(9, 12), (2, 3, 9, 12), (2, 12, 9), (1, 2, 1, 9, 12)])
def test_maps_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(B, 9, 12\) or \(B, 1, 9, 12\)"):
        WaveSimulator(SMALL)(torch.full(shape, 2000.0))


@pytest.mark.parametrize("shape", [(3, 61, 14), (1, 3, 61, 14), (2, 3, 60, 14), (2, 3, 61, 13)])
def test_records_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=rf"record of shape {str(shape)[:-1]}"[:16]):
        RecordMisfit(SMALL)(random_maps(SMALL), torch.zeros(shape))


@pytest.mark.parametrize("velocity", [0.0, -2000.0, float("nan"), float("inf"), 1e5])
def test_velocities_that_cannot_be_simulated(velocity):
    v = torch.full((1, 9, 12), 2000.0)
    v[0, 3, 3] = velocity
    with pytest.raises(ValueError, match=r"is not finite and positive|is too high"):
        WaveSimulator(SMALL)(v)


def test_the_default_survey_is_that_of_openfwi():
    assert WaveSimulator().survey is OPENFWI
    with torch.no_grad():
        assert WaveSimulator()(torch.full((1, 70, 70), 2000.0)).shape == (1, 5, 999, 70)


def test_maps_in_other_units_are_warned_of():
    v = torch.full((1, *SMALL.shape), 2.0)
    with pytest.warns(UserWarning, match="km/s or scaled"):
        WaveSimulator(SMALL)(v)


@pytest.mark.parametrize("module", [WaveSimulator, RecordMisfit])
def test_a_loss_that_depends_on_a_gradient_is_refused(module):
    """Its second derivatives would be taken for zero, and the loss's gradient be wrong."""
    others = () if module is WaveSimulator else (random_like((2, *FEW.record_shape), 3),)
    v = random_maps(FEW).requires_grad_()
    value = module(FEW)(v, *others).square().sum()
    (gradient,) = torch.autograd.grad(value, v, create_graph=True)
    expected = torch.autograd.grad(module(FEW)(v, *others).square().sum(), v)[0]
    assert torch.equal(gradient, expected)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        (value + gradient.square().sum()).backward(retain_graph=True)
    (value + gradient.detach().square().sum()).backward()
    assert torch.equal(v.grad, expected)


@pytest.mark.parametrize("module", [WaveSimulator, RecordMisfit])
@pytest.mark.filterwarnings("ignore:torch.quantize:UserWarning")
@pytest.mark.parametrize("kind", ["sparse", "meta", "quantised"])
def test_tensors_that_are_not_ordinary_are_refused(module, kind):
    v = random_maps(SMALL).float()
    records = torch.zeros(2, *SMALL.record_shape)
    change = {
        "sparse": torch.Tensor.to_sparse,
        "meta": lambda x: x.to("meta"),
        "quantised": lambda x: torch.quantize_per_tensor(x, 1.0, 0, torch.qint8),
    }[kind]
    others = () if module is WaveSimulator else (records,)
    with pytest.raises(ValueError, match="expected an ordinary one"):
        module(SMALL)(change(v), *others)
    if module is RecordMisfit:
        with pytest.raises(ValueError, match="expected an ordinary one"):
            module(SMALL)(v, change(records))


@pytest.mark.parametrize("vmin", [True, 1500j, "a", torch.tensor(True), {}])
def test_a_vmin_that_is_no_number(vmin):
    with pytest.raises(ValueError, match="vmin"):
        WaveSimulator(SMALL)(random_maps(SMALL), vmin)


def test_numbers_of_numpy_are_numbers():
    module = WaveSimulator(SMALL, imaging_step=np.int64(2), threads=np.int32(1))
    assert (module.imaging_step, module.threads) == (2, 1)
    assert type(module.threads) is type(module.imaging_step) is int


@pytest.mark.parametrize("survey", [None, "s.toml", 0])
def test_a_survey_that_is_none(survey):
    with pytest.raises(ValueError, match="expected a Survey"):
        WaveSimulator(survey)
