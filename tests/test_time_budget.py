"""A sample whose time is used up ends within its step: between simulations, not after them."""

import numpy as np
import pytest
import torch
from small_survey_cases import SURVEY

from fwi_refine import simulate
from fwi_refine.inversion.budget import Budget, OutOfTime
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.wave import Simulator
from fwi_refine.wave.interrupt import asking, may_go_on
from fwi_refine.wave.jacobian.accumulated import normal_matrix

TRUTH = np.full(SURVEY.shape, 1800.0)
TRUTH[9:] = 2600.0
TRUTH[12:, 10:] = 3000.0
START = np.roll(TRUTH, 1, axis=0)
MOST = 4  # what is asked after the time is up: simulations of the end, not those of a step


@pytest.fixture(scope="module")
def record():
    return simulate(TRUTH, survey=SURVEY)


def refined(record, method, out_of_time=None, family="general", start=START, most=40):
    return refine_sample(start, record, survey=SURVEY, family=family, method=method, force=True,
                         max_evaluations=most, out_of_time=out_of_time)  # fmt: skip


class Clock:
    """Time that is used up when it has been asked for so many times."""

    def __init__(self, limit=np.inf):
        self.limit, self.asked = limit, 0

    def __call__(self):
        self.asked += 1
        return self.asked > self.limit


@pytest.mark.parametrize("method", ["gauss-newton", "lbfgs"])
def test_time_that_suffices_changes_no_bit(record, method):
    clock = Clock()
    one, other = refined(record, method), refined(record, method, clock)
    assert clock.asked > 10
    assert np.array_equal(one.velocity, other.velocity)
    assert one.history == other.history


@pytest.mark.parametrize(
    ("method", "limit", "status"),
    [("gauss-newton", 4, "unchanged"), ("gauss-newton", 17, "refined"), ("lbfgs", 9, "refined"),
     ("matrix-free", 12, "unchanged"), ("preconditioned-lbfgs", 14, "refined")],
)  # fmt: skip
def test_a_sample_ends_within_a_step(record, method, limit, status):
    clock = Clock(limit)
    found = refined(record, method, clock)
    assert clock.asked - limit <= MOST
    assert found.status == status
    assert "stopped early" in found.flags
    assert found.objective_after <= found.objective_before
    assert (found.misfit_after < found.misfit_before) == (status == "refined")


@pytest.mark.parametrize("method", ["gauss-newton", "preconditioned-lbfgs"])
def test_a_network_s_map_is_kept_where_the_time_is_up_far_from_a_fit(record, method):
    """On the way there a map is farther from the truth than its start; that of a fit is taken."""
    found = refined(record, method, Clock(17), "layered")
    assert (found.status, found.expected_error) == ("unchanged", None)
    assert "stopped early" in found.flags
    assert "the start is likelier to be nearer" in found.reason
    assert np.array_equal(found.velocity, START)


def test_an_expected_error_is_that_of_the_last_matrix(record):
    """Of a map that explains its record: of another, none is known."""
    found = refined(record, "gauss-newton", Clock(110), "style-b", TRUTH + 0.1, most=300)
    assert "stopped early" in found.flags
    assert found.status == "refined"
    assert found.expected_error is not None


def test_a_jacobian_asks_between_its_batches(record):
    v = torch.from_numpy(START)

    def asked_of(survey):
        clock = Clock()
        with asking(clock):
            normal_matrix(v, v.min(), survey=survey, threads=1)
        return clock.asked

    assert asked_of(SURVEY) >= 5

    def stop():
        raise OutOfTime

    with asking(stop), pytest.raises(OutOfTime):
        normal_matrix(v, v.min(), survey=SURVEY, threads=1)
    with asking(stop), pytest.raises(OutOfTime):
        Simulator(SURVEY).forward(v[None])
    may_go_on()


def test_without_a_time_limit_nothing_is_asked():
    with Budget().interruptible():
        may_go_on()
    with pytest.raises(OutOfTime), Budget(out_of_time=lambda: True).interruptible():
        may_go_on()
