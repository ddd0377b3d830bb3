"""`info`, and the forms of files that it tells apart: .npz, float16, training sets."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from small_survey_cases import SURVEY as SMALL

from fwi_refine import io
from fwi_refine.analysis.describe import describe_file
from fwi_refine.cli import run
from fwi_refine.errors import InputError
from fwi_refine.survey.toml import write_survey

SURVEY = replace(SMALL, n_steps=60, file_rows=60)


def layers(*shape):
    """Flat maps of two velocities, (..., nz, nx) float32 m/s."""
    v = np.full(shape, 1800, np.float32)
    v[..., shape[-2] // 2 :, :] = 2600
    return v


def told(*arguments, capsys):
    assert run(["info", "--json", *map(str, arguments)]) == 0
    return [*json.loads(capsys.readouterr().out).values()]


def test_maps_records_and_runs_are_told_apart(made, tmp_path, capsys):
    np.save(tmp_path / "flatvel_b.npy", layers(3, 1, 70, 70))
    np.save(tmp_path / "km.npy", layers(2, 70, 70) / 1000)
    maps, kilometres, records, one = told(
        tmp_path / "flatvel_b.npy", tmp_path / "km.npy", made.seismic,
        made.seismic + f"/{made.ids[0]}.npy", capsys=capsys,
    )  # fmt: skip
    assert maps["what"] == kilometres["what"] == "velocity maps"
    assert (maps["maps"], maps["shape"], maps["type"]) == ("3", "3 x 1 x 70 x 70", "float32")
    assert maps["family"].startswith("FlatVel_B, by the name")
    assert maps["range"].startswith("1800 to 2600, rms 2236")
    assert maps["velocities"].startswith(
        "3 of 3 with at most 20 velocities, 3 of flat layers, 3 of"
    )
    assert maps["units"].startswith("m/s")
    assert "--units km/s" in kilometres["units"]
    assert "fwi-refine classify" in kilometres["family"]
    assert records["records"] == "3, 5 x 1000 x 70 each"
    assert records["sampling"] == "999 steps of 1 ms"
    assert records["survey"].startswith("that of OpenFWI: 70 x 70 cells of 10 m, 5 shots")
    assert one["records"] == "1, 5 x 1000 x 70 each"


def test_another_survey_is_named(tmp_path, capsys):
    write_survey(SURVEY, tmp_path / "s.toml")
    np.save(tmp_path / "p.npy", layers(4, 20, 25))
    unknown, survey = told(tmp_path / "p.npy", tmp_path / "s.toml", capsys=capsys)
    assert "name it with --survey" in unknown["what"]
    assert survey["survey"].startswith("described by a file: 20 x 25 cells of 10 m, 2 shots")
    (known,) = told(tmp_path / "p.npy", "--survey", tmp_path / "s.toml", capsys=capsys)
    assert (known["what"], known["maps"]) == ("velocity maps", "4")


def test_tables_are_named(tmp_path, capsys):
    for name, header, word in (
        ("r", "id,family,evidence,status", "report"),
        ("h", "id,stage,evaluations,misfit", "history"),
        ("f", "id,family", "families"),
        ("o", "a,b", "not of this program"),
    ):
        (tmp_path / f"{name}.csv").write_text(f"{header}\n1,2\n3,4\n")
        (found,) = told(tmp_path / f"{name}.csv", capsys=capsys)
        assert word in found["what"]
        assert found["rows"] == "2"


def test_a_submission_tells_its_maps(tmp_path, capsys):
    path, lines = tmp_path / "s.csv", ["oid_ypos,x_1,x_3,x_5"]
    for name, most in (("a", 3000), ("b_y_2", 4500)):
        lines += [f"{name}_y_{row},{1500 + row},2000,{most}" for row in range(2)]
    path.write_text("\n".join([*lines, ""]))
    (found,) = told(path, capsys=capsys)
    assert found["what"] == "a submission to the competition"
    assert (found["maps"], found["ids"]) == ("2, 2 lines each", "a to b_y_2")
    assert found["columns"] == "x_1, x_3, x_5"
    assert found["range"].startswith("1500 to 4500, rms ")
    path.write_text(f"{lines[0]}\n\na_y_0,1500,fast,2\n")
    assert run(["info", str(path)]) == 2
    assert "s.csv, line 2, of a_y_0: could not convert" in capsys.readouterr().err
    path.write_text(lines[0])
    (found,) = told(path, capsys=capsys)
    assert found == {"what": "a submission without maps"}


def test_what_is_nothing_is_refused(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("hello, this is text")
    assert run(["info", str(tmp_path / "t.txt")]) == 2
    assert "neither .npy, .npz, HDF5" in capsys.readouterr().err
    assert run(["info", str(tmp_path / "absent")]) == 2


def test_npz_and_float16_are_read(tmp_path):
    maps = layers(3, 20, 25)
    records = np.arange(3 * 2 * 60 * 25, dtype="f4").reshape(3, 2, 60, 25)
    ids = np.array(["a", "b", "c"])
    np.savez_compressed(tmp_path / "p.npz", velocity=maps.astype("f2"), ids=ids)
    np.savez(tmp_path / "one.npz", maps)  # a single array may have any name
    np.savez(tmp_path / "r.npz", seismic=records, velocity=maps, ids=ids)
    opened = io.open_predictions(tmp_path / "p.npz", SURVEY)
    assert opened.ids == ["a", "b", "c"]
    assert opened.read(1).dtype == np.float16
    np.testing.assert_array_equal(io.read_start(opened, 1, SURVEY), maps[1])
    np.testing.assert_array_equal(
        io.open_predictions(tmp_path / "one.npz", SURVEY).read(2), maps[2]
    )
    found = io.open_records(tmp_path / "r.npz", SURVEY)
    assert found.ids == ["a", "b", "c"]
    np.testing.assert_array_equal(found.alone(2).read(0), records[2])
    np.testing.assert_array_equal(found.alone(2).truth(0), maps[2])


def test_npz_that_cannot_be_used(tmp_path):
    np.savez(tmp_path / "two.npz", a=layers(1, 20, 25), b=layers(1, 20, 25))
    with pytest.raises(InputError, match=r"found the arrays \['a', 'b'\], expected one called"):
        io.open_predictions(tmp_path / "two.npz", SURVEY)
    np.savez(tmp_path / "object.npz", velocity=np.array([{}], dtype=object))
    whole = (tmp_path / "two.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "damaged.npz", layers(1, 20, 25))
    whole = (tmp_path / "damaged.npz").read_bytes()
    (tmp_path / "damaged.npz").write_bytes(whole.replace(b"NUMPY", b"NIMPY"))
    for name in ("object", "cut", "damaged"):
        with pytest.raises(InputError, match=r"not a readable \.npz file"):
            io.open_predictions(tmp_path / f"{name}.npz", SURVEY)


def test_the_top_folder_of_a_training_set(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    record, rows = np.zeros((2, 60, 25), "f4"), []
    for family, folder, name, truth in (
        ("CurveFault_A", "", "seis2_1_0.npy", "vel2_1_0.npy"),
        ("FlatVel_A", "data", "data1.npy", "model1.npy"),
        ("FlatVel_A", "data", "data10.npy", "model10.npy"),
        ("FlatVel_A", "data", "data2.npy", "model2.npy"),
    ):
        here = tmp_path / family / folder
        beside = tmp_path / family / ("model" if folder else "")
        for path in (here, beside):
            path.mkdir(parents=True, exist_ok=True)
        number = len(rows)
        np.save(here / name, np.stack([record + 2 * number, record + 2 * number + 1]))
        np.save(beside / truth, layers(2, 20, 25) + number)
        rows += [number]
    found = io.open_records(tmp_path, SURVEY)
    assert found.ids == [
        "CurveFault_A_seis2_1_0_0", "CurveFault_A_seis2_1_0_1",
        *(f"FlatVel_A_data{n}_{row}" for n in (1, 2, 10) for row in (0, 1)),
    ]  # fmt: skip
    assert [int(found.read(k)[0, 0, 0]) for k in range(8)] == [0, 1, 2, 3, 6, 7, 4, 5]
    assert [int(found.alone(k).truth(0)[0, 0]) for k in (0, 7)] == [1800, 1802]
    said = [record.getMessage() for record in caplog.records]
    expected = "3 files in the order of their numbers: data1.npy, data2.npy, data10.npy"
    assert said == [f"{tmp_path / 'FlatVel_A' / 'data'}: {expected}"]
    io.open_records(tmp_path / "FlatVel_A", SURVEY)
    assert len(caplog.records) == 2
    facts = dict(describe_file(tmp_path, SURVEY))
    assert facts["family"] == "CurveFault_A, FlatVel_A, by the names of their folders"
