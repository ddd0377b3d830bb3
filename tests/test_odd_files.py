"""Files that no program means to write, and files that are read though no option names them."""

import errno
import io
import os
import struct
import warnings
import zipfile
from dataclasses import replace

import h5py
import numpy as np
import pytest
from run_cases import SETTINGS, open_case, prepare, refine_all, write_inputs

from fwi_refine.cli import run
from fwi_refine.cli.options.files import load_array
from fwi_refine.cli.pictures import drawing
from fwi_refine.cli.run_directory import RunJob
from fwi_refine.errors import InputError, MachineError, OutputExistsError, SampleError
from fwi_refine.files import read_npy, read_npy_header
from fwi_refine.io import (
    MapWriter,
    atomic_path,
    check_id,
    open_predictions,
    open_records,
    read_ids,
)
from fwi_refine.io.named_files import files_named_by
from fwi_refine.io.npy import NpyArray
from fwi_refine.io.posterior import SamplesWriter
from fwi_refine.io.report import ReportWriter, Row, read_report
from fwi_refine.io.results import Results
from fwi_refine.runs.directory.parts import Part
from fwi_refine.runs.executors import Processes, Serial
from fwi_refine.survey import OPENFWI, write_survey
from fwi_refine.survey.validate import check_prediction, check_record
from fwi_refine.survey.wavelet_file import read_wavelet

SHAPE = "'fortran_order': False, 'shape': (1, 70, 70), }"
HEADERS = {
    "a type of one": "{'descr': ('<f4',), " + SHAPE,
    "an empty type": "{'descr': (), " + SHAPE,
    "no end": "{'descr': '<f4', ",
    "brackets": "((((((((((",
    "an open text": "{'descr': '''<f4",
    "signs": "-" * 3000 + "1",
    "a key that is none": "{{}: 1}",
    "values without a byte": "{'descr': '|S0', 'shape': (900000, 5, 9, 9), 'fortran_order': False}",
    "records without a byte": "{'descr': '|S0', 'fortran_order': False, 'shape': (900000000, 5)}",
    "truth values for lengths": "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 70, 70)}",
    "a length beyond all": "{'descr': '<f4', 'fortran_order': False, 'shape': (1"
    + 30 * "0"
    + ",)}",
}


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.chdir(write_inputs(tmp_path, ["a", "b"]))
    return tmp_path


def write_header(path, text):
    data = text.encode() + b"\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(data)) + data + bytes(64))


@pytest.mark.parametrize("text", HEADERS.values(), ids=HEADERS)
def test_a_header_that_is_none_is_refused_by_every_reader(case, text):
    write_header("bad.npy", text)
    with zipfile.ZipFile("bad.npz", "w") as packed:
        packed.write("bad.npy", "velocity.npy")
    with open("bad.npy", "rb") as file, pytest.raises(ValueError, match=r"header|claims"):
        read_npy(file, 10_000)
    with open("bad.npy", "rb") as file, pytest.raises(ValueError, match="header"):
        read_npy_header(file)
    with pytest.raises(SampleError, match="header"):
        NpyArray("bad.npy")
    for read in (open_predictions, open_records):
        for name in ("bad.npy", "bad.npz"):
            with pytest.raises(InputError, match="header"):
                read(name)
    with pytest.raises(ValueError, match="header"):
        read_wavelet(case / "bad.npy", 0.001)


def test_such_a_header_in_an_option(case):
    write_header("bad.npy", HEADERS["an empty type"])
    for option in ("--weights", "--fixed", "--bounds"):
        with pytest.raises(InputError, match=f"{option} bad.npy: cannot be read .*header"):
            load_array(case.relative_to(case) / "bad.npy", option)


def test_hdf5_behind_bytes_of_its_user(tmp_path):
    path = tmp_path / "maps.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["velocity"] = np.full((2, 70, 70), 2000.0)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(512))
    assert open_predictions(path).count == 2
    assert run(["info", str(path)]) == 0


def test_bytes_behind_an_array_are_told_of(case, caplog):
    for name, what in [("starts.npy", open_predictions), ("all.npy", open_records)]:
        if name == "all.npy":
            np.save(name, np.zeros((2, 5, 1000, 70), np.float32))
        with open(name, "ab") as file:
            np.save(file, np.zeros(8))
        what(name)
        assert f"{name}: 192 bytes behind its array" in caplog.text


def test_two_arrays_of_one_name_are_refused(tmp_path):
    one = io.BytesIO()
    np.save(one, np.full((2, 70, 70), 2000.0))
    path = tmp_path / "maps.npz"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as file:
        warnings.simplefilter("ignore")
        for _ in range(2):
            file.writestr("velocity.npy", one.getvalue())
    with pytest.raises(InputError, match="two arrays of one name"):
        open_predictions(path)


def test_rows_without_values_are_no_samples(tmp_path):
    shape = (10**9, 0, 1000, 70)
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file.create_dataset("records", shape, "f4", chunks=(1, 1, 1000, 70), maxshape=(None,) * 4)
    np.savez(tmp_path / "r.npz", records=np.zeros(shape, "f4"))
    for name in ("r.h5", "r.npz"):
        with pytest.raises(InputError, match="rows of 0 bytes"):
            open_records(tmp_path / name)


def test_a_wider_type_does_not_hide_infinity():
    if np.finfo(np.longdouble).max <= np.finfo(float).max:
        pytest.skip("no type here is wider than float64")
    v = np.full((70, 70), 2000, np.longdouble)
    record = np.ones((5, 1000, 70), np.longdouble)
    v[3, 4] = record[1, 2, 3] = np.longdouble("1e4000")
    with pytest.raises(SampleError, match="not finite, the first inf at row 3, column 4"):
        check_prediction(v)
    with pytest.raises(SampleError, match="not finite, the first inf at shot 1, row 2"):
        check_record(record)


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("a.csv", b"\xff\xfe\0id,family\n", 2),
        ("b.csv", b"id,family\n" + b"a" * 200_000 + b",b\n", 2),
        ("c.csv", b"a" * 2_000_000, 2),
        ("dates.npy", np.zeros((2, 70, 70), "M8[s]"), 0),
        ("texts.npy", np.full((2, 5, 1000, 70), "a"), 0),
        ("fields.npz", np.zeros((2, 70, 70), [("v", "f4")]), 0),
        ("complex.npy", np.ones((2, 70, 70), complex), 0),
    ],
)
def test_info_of_what_is_neither_maps_nor_records(tmp_path, capsys, name, data, code):
    path = tmp_path / name
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        np.savez(path, velocity=data) if path.suffix == ".npz" else np.save(path, data)
    assert run(["info", str(path)]) == code
    said = capsys.readouterr()
    assert (("not a table" in said.err or "longer than" in said.err) if code
            else "no maps and no records" in said.out)  # fmt: skip


def test_a_record_whose_file_has_another_suffix(case):
    os.rename("seismic/a.npy", "a.dat")
    records = open_records("a.dat")
    assert records.ids == ["a.dat"]
    assert records.alone(0).read(0).shape == (5, 1000, 70)
    assert [path.name for path in records.files([0])] == ["a.dat"]


# Outputs


def test_what_an_input_names_is_an_input(case, capsys):
    write_survey(OPENFWI, "s.toml")
    text = (case / "s.toml").read_text()
    wavelet = 'kind = "samples"\nfile = "w.npy"'
    (case / "s.toml").write_text(text.replace('kind = "ricker"\nfrequency = 15.0', wavelet))
    np.save("w.npy", np.sin(np.arange(200) / 10))
    (case / "priors.toml").write_text('[style_b_learned]\nweights = "d.npz"\n')
    (case / "d.npz").write_bytes(b"weights")
    np.save("seis1.npy", np.ones((2, 5, 1000, 70), "f4"))
    np.save("vel1.npy", np.full((2, 1, 70, 70), 2000, "f4"))
    before = {path.name: path.read_bytes() for path in case.iterdir() if path.is_file()}
    refine = ["refine", "starts.npy", "seis1.npy", "--family", "layered", "--overwrite"]
    for more in (
        ["--survey", "s.toml", "--out", "w.npy"],
        ["--priors", "priors.toml", "--out", "d.npz"],
        ["--out", "vel1.npy"],
        ["--out", "o.npy", "--deviation", "./vel1.npy"],
    ):
        assert run([*refine, *more]) == 2
        assert "is an input as well" in capsys.readouterr().err
    after = {path.name: path.read_bytes() for path in case.iterdir() if path.is_file()}
    assert after == before


def test_the_inputs_of_a_run_are_inputs_of_what_reads_it(case, capsys):
    refine_all(case, prepare(case, case / "run"))
    assert [path.name for path in files_named_by(case / "run")] == ["starts.npy", "seismic"]
    before = (case / "starts.npy").read_bytes()
    assert run(["merge", "run", "--out", "starts.npy", "--overwrite"]) == 2
    assert run(["merge", "run", "--out", "seismic/o.npy"]) == 2
    assert capsys.readouterr().err.count("an input") == 2
    assert (case / "starts.npy").read_bytes() == before


def test_what_cannot_be_read_names_nothing(tmp_path):
    (tmp_path / "a.toml").write_text("wavelet = 3")
    (tmp_path / "b.toml").write_bytes(b"\xff")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.toml").write_text("inputs = []")
    for name in ("a.toml", "b.toml", "run", "absent.toml", "absent"):
        assert files_named_by(tmp_path / name) == []


def test_an_output_replaces_no_pipe_and_no_device(case, capsys):
    os.mkfifo("pipe.csv")
    refine = ["refine", "starts.npy", "seismic", "--ids", "ids.txt", "--overwrite", "--force"]
    assert run([*refine, "--out", "o.npy", "--report", "pipe.csv"]) == 2
    assert run([*refine, "--out", "o.npy", "--history", "/dev/null"]) == 2
    assert run([*refine, "--out", "o.npy", "--log-file", "pipe.csv"]) == 2  # would wait for ever
    words = capsys.readouterr().err
    assert words.count("expected a regular file") == 3
    assert "a device" in words
    assert not os.path.isfile("/dev/null")


def test_pictures_of_another_run_are_not_taken_for_those_of_this_one(case):
    pytest.importorskip("matplotlib", reason="the extra [plot] is not installed")
    os.mkdir("pictures")
    picture = case / "pictures" / "b.png"
    picture.write_bytes(b"of another run")
    inputs, folder = open_case(case), case / "pictures"
    with pytest.raises(OutputExistsError, match=r"1 of these .* already, the first is b\.png"):
        drawing(folder, inputs, goes_on=False, overwrite=False)
    part = Part([Row("b", status="refined")], {"velocity": np.full((1, 70, 70), 2000, "f4")})
    drawing(folder, inputs, goes_on=True, overwrite=False)([1], part)
    assert picture.read_bytes() == b"of another run"
    drawing(folder, inputs, goes_on=False, overwrite=True)([1], part)
    assert picture.read_bytes() != b"of another run"


def test_inputs_that_change_while_they_are_refined_are_told_of(case, caplog, monkeypatch):
    job = RunJob(case / "run", open_case(case), SETTINGS, 8, None)
    monkeypatch.setattr("fwi_refine.runs.carry_out", lambda *args, **more: None)
    monkeypatch.setattr("fwi_refine.cli.run_directory.is_wanted", lambda: False)
    job.refine(Serial())
    assert "were changed" not in caplog.text
    os.utime("seismic/a.npy", (1, 1))
    job.refine(Serial())
    assert "the inputs were changed while they were refined" in caplog.text


def test_a_range_the_wrong_way_round(case, capsys):
    (case / "f.csv").write_text("id,family\na,x\nb,x\n")
    probe = ["probe", "write", "starts.npy", "--ids", "ids.txt", "--families", "f.csv", "--family",
             "x", "--out", "probe"]  # fmt: skip
    for ends in (("4500", "1500"), ("3000", "3000")):
        assert run([*probe, "--bounds", *ends]) == 2
        assert "expected LOW < HIGH" in capsys.readouterr().err
    assert not os.path.exists("probe")


# Ids


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\x07", "a\x7f", "a\x85", "a\u2028", "a\x0b"])
def test_ids_that_steer_a_terminal_or_break_lines(name):
    with pytest.raises(InputError, match="control characters"):
        check_id(name)


STRANGE = [
    "=1+1",
    "@a",
    "-2",
    "+3",
    "a;b",
    "A;b",
    "007",
    "1e5",
    "a",
    "A",
    " b",
    "b ",
    "a\tb",
    'q"',
    "c,d",
]


def test_strange_ids_stay_what_they_are(tmp_path):
    report = ReportWriter(STRANGE, tmp_path)
    for k, name in enumerate(STRANGE):
        report.add(k, Row(name, status="refined"))
    report.publish(tmp_path / "o.csv")
    assert [row.id for row in read_report(tmp_path / "o.csv")] == STRANGE
    assert read_ids(tmp_path / "o.csv") == STRANGE


def test_white_space_before_an_id_survives_a_submission(case):
    (case / "ids.csv").write_text("id\n a\na\n")
    assert run(["submit", "starts.npy", "--ids", "ids.csv", "--out", "o.csv"]) == 0
    assert open_predictions("o.csv").ids == [" a", "a"]
    assert (
        run(["submit", "starts.npy", "--ids", "ids.csv", "--like", "o.csv", "--out", "p.csv"]) == 0
    )
    assert (case / "p.csv").read_bytes() == (case / "o.csv").read_bytes()


def test_notes_of_priors_stay_comments(tmp_path, capsys):
    import tomllib

    folder = tmp_path / "x\n[layered]\n\x01\udcff"
    (folder / "Style_A").mkdir(parents=True)
    np.save(
        folder / "Style_A" / "vel1.npy", np.random.default_rng(0).uniform(2000, 3000, (3, 70, 70))
    )
    assert run(["fit-priors", str(folder), "--out", str(tmp_path / "p.toml")]) == 0
    assert "style_a" in tomllib.loads((tmp_path / "p.toml").read_text())


# Workers


def test_processes_that_cannot_be_started(monkeypatch):
    def refuse(*args, **more):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fwi_refine.runs.executors.ProcessPoolExecutor", refuse)
    with pytest.raises(MachineError, match=r"Function not implemented .*; it takes .*/dev/shm"):
        next(Processes(1).map(abs, [1]))


# Disks and sizes


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "o.npy"
    with pytest.raises(OSError, match="No space left") as caught, atomic_path(out):
        full()
    assert caught.value.filename == str(out)
    monkeypatch.setattr("fwi_refine.io.map_writer.claim_space", full)
    with pytest.raises(OSError, match="No space left") as caught:
        MapWriter(out, (1, 70, 70), (70, 70))
    assert caught.value.filename == str(out)
    assert os.listdir(tmp_path) == []


def test_a_submission_for_which_temporary_files_have_no_room(case, monkeypatch):
    assert run(["submit", "starts.npy", "--ids", "ids.txt", "--out", "o.csv"]) == 0
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(MachineError, match=r"no room .* in TMPDIR"):
        open_predictions("o.csv")


def test_samples_of_posteriors_on_a_full_disk(tmp_path):
    """HDF5 ended the process where it met one; now there is room before it begins."""
    resource = pytest.importorskip("resource")
    names = ["a", "ü" * 60, "c"]
    sizes = {"shape": (3, 70, 70), "map_shape": (70, 70), "ids": names}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            Results(tmp_path / "o.npy", tmp_path / "o.csv", **sizes, samples=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(tmp_path / "o.samples.h5")
    assert os.listdir(tmp_path) == []
    writer = SamplesWriter(tmp_path / "s.h5", names, (2, 4, 5))
    drawn = np.random.default_rng(0).random((2, 4, 5))
    writer.write(1, drawn)
    writer.publish(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5") as file:
        assert np.array_equal(file["samples"][1], drawn.astype("f4"))
        assert np.isnan(file["samples"][[0, 2]]).all()
        assert file["ids"].asstr()[:].tolist() == names


@pytest.mark.parametrize("name", ["n_steps", "file_rows", "absorbing_cells"])
def test_a_survey_of_any_size_takes_no_memory(name):
    with pytest.raises(ValueError, match=f"{name} is 1000000000, expected a whole number of"):
        replace(OPENFWI, **{name: 10**9})
    with pytest.raises(ValueError, match="spacing is 1e"):
        replace(OPENFWI, spacing=1e300)
