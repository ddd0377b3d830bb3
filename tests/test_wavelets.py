"""Surveys with a wavelet of their own: in files, in the wave operator, at lower frequencies."""

from dataclasses import replace

import numpy as np
import pytest
import tomli_w
import torch
from jacobian_cases import SMALL, relative, smooth_change, textured

from fwi_refine.errors import InputError
from fwi_refine.survey import OPENFWI, Survey, read_survey, survey_table, write_survey
from fwi_refine.survey.frequency import lower_frequency
from fwi_refine.wave import Simulator, jacobian

# two Ricker wavelets, the later one with the other sign
WAVELET = np.pad(SMALL.whole_wavelet, (0, 20)) - 0.4 * np.pad(SMALL.whole_wavelet, (20, 0))
SIZE = WAVELET.size
GIVEN = SMALL.with_wavelet(WAVELET)


def test_the_wavelet_is_that_which_was_given():
    assert np.array_equal(GIVEN.wavelet[:SIZE], WAVELET)
    assert not GIVEN.wavelet[SIZE:].any()
    assert GIVEN.wavelet_centre == int(np.abs(WAVELET).argmax())
    assert replace(GIVEN, given_wavelet=None) == SMALL


@pytest.mark.parametrize("samples", [[0.0, 0.0], [1.0, np.nan], [[1.0, 2.0]], []])
def test_what_is_no_wavelet_is_refused(samples):
    with pytest.raises(ValueError, match="wavelet: expected samples"):
        replace(SMALL, given_wavelet=tuple(samples))


def test_a_record_is_linear_in_its_wavelet():
    v = textured(SMALL)[None]
    ricker = Simulator(SMALL).forward(v)
    own = Simulator(GIVEN).forward(v)
    both = Simulator(SMALL.with_wavelet(SMALL.wavelet + 2 * GIVEN.wavelet)).forward(v)
    assert relative(both, ricker + 2 * own) < 1e-13
    same = Simulator(SMALL.with_wavelet(SMALL.wavelet)).forward(v)
    assert torch.equal(same, ricker)


def test_the_jacobian_knows_the_wavelet():
    """As close to the tangent as that of the Ricker wavelet."""
    v, dv = textured(SMALL), smooth_change(SMALL)
    wavelet = np.roll(SMALL.wavelet, 5) * 0.7 - 0.2 * np.roll(SMALL.wavelet, 20)
    survey = SMALL.with_wavelet(wavelet)
    full = jacobian(v, survey=survey, dtype=torch.float64)
    expected = Simulator(survey).tangent(v[None], dv[None])[0]
    assert relative(full.matvec(dv), expected) < 2e-3


def test_lower_frequencies_of_another_wavelet():
    v = textured(GIVEN)[None]
    survey, record = lower_frequency(Simulator(GIVEN).forward(v)[0].numpy(), 8.0, GIVEN)
    assert survey.frequency == 8.0
    expected = Simulator(survey).forward(v)[0].numpy()
    assert np.abs(record - expected).max() < 2e-4 * np.abs(expected).max()


def written(folder, section) -> Survey:
    table = survey_table(replace(OPENFWI, n_steps=300, file_rows=300)) | {"wavelet": section}
    (folder / "survey.toml").write_text(tomli_w.dumps(table))
    return read_survey(folder / "survey.toml")


@pytest.mark.parametrize("form", ["npy", "csv", "times", "samples"])
def test_a_wavelet_is_read_from_a_file(tmp_path, form):
    section = {"file": "w.csv"}
    if form == "npy":
        np.save(tmp_path / "w.npy", WAVELET.astype(np.float32))
        section = {"file": "w.npy"}
    elif form == "csv":
        (tmp_path / "w.csv").write_text("amplitude\n" + "\n".join(map(str, WAVELET)))
    elif form == "times":
        lines = (f"{k * 0.001:.3f},{w}" for k, w in enumerate(WAVELET, 5))
        (tmp_path / "w.csv").write_text("time,amplitude\n" + "\n".join(lines))
    else:
        section = {"samples": WAVELET.tolist()}
    survey = written(tmp_path, section)
    first = 5 if form == "times" else 0
    found = survey.wavelet[first : first + SIZE]
    assert found == pytest.approx(WAVELET, rel=1e-6, abs=1e-6)
    assert not survey.wavelet[:first].any()
    # the peak of the spectrum, by a sum of cosines
    axis = np.arange(5.0, 40.0, 0.1)
    power = np.abs(np.exp(-2j * np.pi * np.outer(axis, np.arange(SIZE)) * 1e-3) @ WAVELET)
    assert survey.frequency == pytest.approx(axis[power.argmax()], abs=1.0)


def test_a_survey_with_a_wavelet_is_written_and_read(tmp_path):
    write_survey(GIVEN, tmp_path / "survey.toml")
    assert read_survey(tmp_path / "survey.toml") == GIVEN


@pytest.mark.parametrize(
    ("section", "text", "message"),
    [
        ({"file": "none.npy"}, None, "cannot be read"),
        ({"file": "w.csv"}, "time,amplitude\n0,1\n0.002,2\n", "expected steps of 0.001 s"),
        ({"file": "w.csv"}, "-0.001,1\n0.0,2\n", "expected steps of 0.001 s from 0 s or later"),
        ({"file": "w.csv"}, "1\nx\n", "line 2: found 'x'"),
        ({"file": "w.csv"}, "1 2 3\n", "line 1: found 3 numbers"),
        ({"file": "w.csv"}, "0\n0\n", "not all zero"),
        ({"file": "w.csv"}, "", "expected samples on one axis"),
        ({"file": 3}, None, "expected the name of a file"),
        ({"samples": ["a"]}, None, "expected a list of numbers"),
        ({"samples": [0.0, 0.0]}, None, "wavelet"),
        ({"samples": [1.0], "file": "w.npy"}, None, "found file and samples"),
        ({"kind": "ricker", "samples": [1.0], "frequency": 9.0}, None, "found samples"),
        ({"kind": "samples", "frequency": 9.0}, None, "found neither"),
        ({}, None, "wavelet.frequency is missing"),
    ],
)
def test_mistakes_are_named(tmp_path, section, text, message):
    if text is not None:
        (tmp_path / "w.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        written(tmp_path, section)


def test_a_damaged_file_of_a_wavelet(tmp_path):
    (tmp_path / "w.npy").write_bytes(b"\x93NUMPY and no more")
    with pytest.raises(InputError, match="survey"):
        written(tmp_path, {"file": "w.npy"})
