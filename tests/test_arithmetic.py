"""Which arithmetic made a record, by its first rows and by a map."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fwi_refine.analysis.diagnose import check_arithmetic
from fwi_refine.objective.arithmetic import (
    DIVISION,
    DOUBLE,
    RELEASED,
    equal_samples,
    possible_arithmetics,
)
from fwi_refine.survey import OPENFWI
from fwi_refine.wave import Simulator
from fwi_refine.wave.released_arithmetic import propagate, released_medium

SHORT = replace(OPENFWI, n_steps=30)


@pytest.fixture(scope="module")
def truth():
    blocks = np.random.default_rng(5).integers(1500, 4500, (7, 7))
    return np.kron(blocks, np.ones((10, 10)))


@pytest.fixture(scope="module")
def records(truth):
    maps = torch.from_numpy(truth)[None]
    return {
        RELEASED: propagate(*released_medium(maps, None, SHORT), SHORT)[0].numpy(),
        DIVISION: propagate(*released_medium(maps, None, SHORT, divide=True), SHORT)[0].numpy(),
        DOUBLE: Simulator(SHORT).forward(maps)[0].numpy(),
    }


@pytest.mark.parametrize("name", [RELEASED, DIVISION, DOUBLE])
def test_first_rows_allow_the_arithmetic_that_made_them(records, name):
    assert name in possible_arithmetics(records[name], SHORT)


def test_first_rows_tell_float64_from_float32(records):
    assert possible_arithmetics(records[DOUBLE], SHORT) == (DOUBLE,)
    assert possible_arithmetics(records[DOUBLE].astype(np.float32), SHORT) == (DOUBLE,)
    assert DOUBLE not in possible_arithmetics(records[RELEASED], SHORT)


def test_some_maps_tell_division_from_the_product_by_their_first_rows():
    draws, told, rows = np.random.default_rng(1), 0, replace(SHORT, n_steps=3)
    for v in draws.integers(1500, 4500, 20):
        maps = torch.full((1, 70, 70), float(v))
        record = propagate(*released_medium(maps, None, rows, divide=True), rows)[0].numpy()
        told += possible_arithmetics(record, rows) == (DIVISION,)
    assert told > 0


@pytest.mark.parametrize("factor", [1.01, -1.0])
def test_another_scale_is_of_no_arithmetic(records, factor):
    for record in records.values():
        assert possible_arithmetics(factor * record, SHORT) == ()


@pytest.mark.parametrize("name", [RELEASED, DIVISION, DOUBLE])
def test_a_map_tells_the_arithmetic(records, truth, name):
    equal = equal_samples(records[name], truth, Simulator(SHORT, torch.float32))
    assert [key for key, fraction in equal.items() if fraction == 1.0] == [name]


def test_the_doctor_says_so(records, truth):
    simulator = Simulator(SHORT, torch.float32)
    proof = {c.name: c.value for c in check_arithmetic(records[RELEASED], simulator, truth)}
    assert proof["map proven by its record"] == "yes"
    assert proof["arithmetic, by the map"].startswith("released (")
    wrong = {c.name: c.value for c in check_arithmetic(records[DIVISION], simulator, truth)}
    assert wrong["map proven by its record"] == "no"
    assert wrong["arithmetic, by the map"].startswith("released code on a CPU")
    (rows,) = check_arithmetic(records[DOUBLE], simulator)
    assert rows.value == "float64"
    (rows,) = check_arithmetic(1.01 * records[RELEASED], simulator)
    assert rows.value == "of another code"
