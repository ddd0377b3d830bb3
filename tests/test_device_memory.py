"""How much of a GPU's memory a Gauss-Newton step takes, counted on the pretended device.

What is allocated has its real size and place; the wave kernels, which would take hours in their
emulation, are left out, as they allocate nothing but what they return and the fields counted here.
"""

import weakref

import numpy as np
import pytest
import torch
from emulation import Emulation
from pretend import Pretended, pretended

from fwi_refine.cli.options.resources import MEMORY
from fwi_refine.objective.base import PriorTerm
from fwi_refine.objective.misfit import BandMisfit
from fwi_refine.objective.parameterisation import Full
from fwi_refine.objective.vmin_prior import VminPrior
from fwi_refine.optimise import DescentSettings, levenberg_marquardt
from fwi_refine.priors import load
from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator
from fwi_refine.wave.cuda import program as cuda
from fwi_refine.wave.cuda.layout import Layout
from fwi_refine.wave.simulator import IMAGING_STEP


class Count:
    """Bytes of the device's tensors now, and at the most; views share their memory."""

    def __init__(self):
        self.now = self.peak = 0
        self.users, self.sizes = {}, {}

    def add(self, tensor, inner):
        tensor.inner = inner
        place, size = inner.untyped_storage().data_ptr(), inner.untyped_storage().nbytes()
        if place == 0:
            return
        if place not in self.users:
            self.users[place], self.sizes[place] = 0, size
            self.now += size
            self.peak = max(self.peak, self.now)
        self.users[place] += 1
        weakref.finalize(tensor, self.drop, place)

    def drop(self, place):
        self.users[place] -= 1
        if not self.users[place]:
            del self.users[place]
            self.now -= self.sizes.pop(place)


def fields(simulator, every):
    """Memory for the wavefields of one sample."""
    survey = simulator.survey
    shape = (1, len(survey.sources), (survey.n_steps - 1) // every, *survey.padded_shape)
    return torch.zeros(shape, dtype=simulator.dtype, device=simulator.device)


def some_gradient(simulator, v, u, vmin):
    kept = fields(simulator, IMAGING_STEP)
    generator = torch.Generator().manual_seed(1)
    # so small that the step ends where velocities are allowed
    by_v = 1e-12 * torch.randn(v.shape, generator=generator, dtype=torch.float64).to(v.device)
    return by_v, torch.zeros_like(vmin) * kept[0, 0, 0, 0, 0]


@pytest.mark.accuracy
@pytest.mark.usefixtures("much_memory")
def test_a_sample_has_the_memory_that_is_counted_on(monkeypatch):
    """A few minutes and 7 GB of this machine's memory."""
    count, records = Count(), []
    monkeypatch.setattr(Pretended, "__init__", lambda self, inner: count.add(self, inner))

    def some_record(simulator, v, vmin):
        records.append(torch.full((1, *OPENFWI.record_shape), 0.5 ** len(records)).double())
        return records[-1].to(v.device)

    monkeypatch.setattr(
        Simulator, "wavefields", lambda self, *more: fields(self, self._kernel._every)
    )
    monkeypatch.setattr(Simulator, "forward", some_record)
    monkeypatch.setattr(Simulator, "adjoint", some_gradient)
    with pretended() as device:
        program = Emulation(Layout(1, 1, 1, side=1, halo=2, shared=True), device=device)
        monkeypatch.setattr(cuda, "program", lambda _: program)
        v = torch.full(OPENFWI.shape, 2500.0, dtype=torch.float64).to(device)
        parameters = Full(OPENFWI.shape)
        misfit = BandMisfit(Simulator(device=device), parameters, np.zeros(OPENFWI.record_shape))
        levenberg_marquardt(
            misfit,
            PriorTerm(load().style_b, parameters) + VminPrior(v.min()),
            parameters.from_velocity(v),
            DescentSettings(
                weight=lambda misfit, prior: 1e-3, max_iterations=1, retract=parameters.retract
            ),
            corrections=2,
        )
    print(f"{count.peak / 1e9:.2f} GB")
    assert misfit.last_hessian is not None
    assert len(records) >= 2  # a correction was reached
    assert count.peak <= 6e9 < MEMORY
