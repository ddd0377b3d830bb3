"""Arrays of unusual kinds: plain values are used, others are refused by name."""

import warnings

import numpy as np
import pytest
import torch
from small_survey_cases import SURVEY

from fwi_refine import (
    InputError,
    SampleError,
    classify,
    jacobian_operator,
    refine,
    refine_sample,
    simulate,
)
from fwi_refine.objective.constraints import check_fixed
from fwi_refine.survey import OPENFWI
from fwi_refine.survey.weights import check_weights, sample_weights

LAYERS = np.full((2, *SURVEY.shape), 1800.0)
LAYERS[:, 9:] = 2600
STARTS = np.full((2, *SURVEY.shape), 1800.0)
STARTS[:, 10:] = 2600
HOW = {"survey": SURVEY, "family": "layered", "method": "lbfgs", "max_evaluations": 2}


@pytest.fixture(scope="module")
def records():
    return simulate(LAYERS, survey=SURVEY)


def refined(starts, records, **more):
    return refine(starts, records, device="cpu", threads=1, **HOW, **more)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.astype(a.dtype.newbyteorder(">")),
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        lambda a: torch.tensor(a).requires_grad_(),
        lambda a: np.ma.masked_array(a, False),
    ],
    ids=["big-endian", "Fortran", "strided", "tensor", "masked"],
)
def test_plain_values_in_any_layout_have_the_same_bits(records, change):
    expected = refined(STARTS, records)
    found = refined(change(STARTS), change(records))
    np.testing.assert_array_equal(found.velocity, expected.velocity)
    assert found.column("misfit_after") == expected.column("misfit_after")
    operators = [jacobian_operator(v[0], survey=SURVEY) for v in (STARTS, change(STARTS))]
    x = np.ones(operators[0].shape[1])
    np.testing.assert_array_equal(operators[0] @ x, operators[1] @ x)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.astype(object),
        lambda d: d.astype(complex),
        lambda d: np.array(d) > 0,
        lambda d: np.zeros(d.shape, [("a", "f4")]),
        lambda d: np.zeros(d.shape, "M8[s]"),
        lambda d: np.float32(3),
    ],
    ids=["objects", "complex", "bool", "structured", "times", "0-d"],
)
def test_a_record_of_another_kind_fails_alone(records, change):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = refined(STARTS, [records[0], change(records[1])])
    assert [*found.failed] == [1]
    assert "records[1]): found " in found.failed[1]
    np.testing.assert_array_equal(found.velocity[0], refined(STARTS[:1], records[:1]).velocity[0])


class Lazy:
    """Records with a shape and no length, as arrays of Zarr are."""

    def __init__(self, records):
        self.shape, self._records = records.shape, records

    def __getitem__(self, k):
        return self._records[k]


def test_records_need_a_shape_or_a_length(records):
    found, expected = refined(STARTS, Lazy(records)), refined(STARTS, records)
    np.testing.assert_array_equal(found.velocity, expected.velocity)
    with pytest.raises(InputError, match="found 2 predictions and 1 records"):
        refined(STARTS, Lazy(records[:1]))


def test_a_record_of_another_kind_in_a_file(records, tmp_path, monkeypatch, capsys):
    from fwi_refine.cli import run
    from fwi_refine.survey import write_survey

    monkeypatch.chdir(tmp_path)
    write_survey(SURVEY, "s.toml")
    np.save("p.npy", STARTS)
    np.save("d.npy", np.zeros(records.shape, [("a", "f4")]))
    assert run(["p.npy", "d.npy", "--survey", "s.toml", "--family", "layered", "--dry-run"]) == 3
    assert "2 samples would fail" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.astype(object),
        lambda v: v.astype(complex),
        lambda v: v > 0,
        lambda v: v[0, 0, 0],
        lambda v: torch.empty(v.shape, device="meta"),
        lambda v: np.ma.masked_array(v, v < 2000).astype(complex),
    ],
    ids=["objects", "complex", "bool", "0-d", "meta", "masked"],
)
@pytest.mark.parametrize("entry", ["refine", "simulate", "jacobian_operator", "refine_sample"])
def test_maps_of_another_kind_are_refused(records, entry, change):
    entries = {
        "refine": lambda v: refined(v, records),
        "simulate": lambda v: simulate(v, survey=SURVEY),
        "jacobian_operator": lambda v: jacobian_operator(v[0] if v.ndim else v, survey=SURVEY),
        "refine_sample": lambda v: refine_sample(v[0] if v.ndim else v, records[0], **HOW),
    }
    with pytest.raises(ValueError, match="found"):
        entries[entry](change(STARTS))


def test_the_mask_of_a_map_is_no_value():
    v = np.ma.masked_array(STARTS[0], STARTS[0] < 2000)
    with pytest.raises(ValueError, match="nan"):
        jacobian_operator(v, survey=SURVEY)
    with pytest.raises(InputError, match="expected one map"):
        jacobian_operator(STARTS, survey=SURVEY)


@pytest.mark.parametrize(
    ("map_factor", "record_factor", "words"),
    [
        (1e-3, 1, "km/s"),
        (1, 1000, "times as large"),
        (1, -1, "other sign"),
        (1, 1e-42, "times as large"),  # subnormal in float32
    ],
)
def test_one_sample_is_looked_at_too(records, map_factor, record_factor, words):
    record = (records[0] * record_factor).astype("f4")
    with pytest.raises(InputError, match=words):
        refine_sample(STARTS[0] * map_factor, record, **HOW)
    assert refine_sample(STARTS[0] * map_factor, record, **HOW, force=True).status == "unchanged"


@pytest.mark.parametrize("factor", [1e-320, 1e-310, 1e300, 1e307])
def test_weights_count_by_their_ratios_alone(records, factor):
    expected = sample_weights(records[0], SURVEY, check_weights([2.0, 4.0], SURVEY))
    found = sample_weights(records[0], SURVEY, check_weights([2 * factor, 4 * factor], SURVEY))
    np.testing.assert_allclose(found, expected, rtol=1e-3)  # subnormal numbers have few digits
    given = np.array([2.0, 4.0])
    mean = np.broadcast_to(given[:, None, None], expected.shape)
    np.testing.assert_array_equal(expected, mean / mean.mean())


def test_quantised_tensors_are_no_maps(records):
    tensor = torch.from_numpy(STARTS).float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(tensor, 1.0, 0, torch.qint32)
    with pytest.raises(SampleError, match="dequantize"):
        refined(quantised, records)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"bounds": (STARTS[0],)}, "expected two"),
        ({"bounds": [*STARTS, STARTS[0]]}, "expected two"),
        ({"bounds": 3}, "expected two"),
        ({"time_budget": True}, "expected more than 0 seconds"),
        ({"force": "no"}, "expected True or False"),
        ({"callback": 3}, "expected a function"),
        ({"priors": {}}, "load_priors reads a TOML file"),
        ({"fixed": np.ones(SURVEY.shape, bool)}, "every cell is fixed"),
    ],
)
def test_options_that_are_none_are_refused_before_the_work(records, more, words):
    with pytest.raises(InputError, match=words):
        refined(STARTS, records, **more)


def test_a_survey_is_no_name_of_a_file():
    with pytest.raises(InputError, match="read_survey makes one"):
        simulate(STARTS, survey="s.toml")
    with pytest.raises(InputError, match="every cell is fixed"):
        check_fixed(np.ones(OPENFWI.shape), OPENFWI)
    with pytest.raises(InputError, match="read_survey"):
        classify(STARTS, None, survey="s.toml")


def test_a_tensor_that_is_negated_when_it_is_read():
    v = torch.full(SURVEY.shape, 2000.0)
    negated = torch._neg_view(-v)
    assert negated.is_neg()
    np.testing.assert_array_equal(simulate(negated, survey=SURVEY), simulate(v, survey=SURVEY))


@pytest.mark.parametrize("dtype", [None, "x", 0, object(), np.float16, torch.bfloat16, ">f8"])
def test_a_type_of_records_that_is_none(dtype):
    with pytest.raises(InputError, match="expected float32 or float64"):
        simulate(np.full(SURVEY.shape, 2000.0), survey=SURVEY, dtype=dtype)


@pytest.mark.parametrize("kernel", [None, "x", [], np.array(3), np.float64])
def test_a_kernel_that_is_none(records, kernel):
    maps = np.full(SURVEY.shape, 2000.0)
    with pytest.raises(InputError, match=r"kernel .*expected one of"):
        simulate(maps, survey=SURVEY, kernel=kernel)
    with pytest.raises(InputError, match=r"kernel .*expected one of"):
        refine(maps, records[0], survey=SURVEY, family="layered", kernel=kernel)
