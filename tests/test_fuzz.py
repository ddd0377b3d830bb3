"""Files from strangers: whatever they hold, they are read, or refused with a reason."""

import contextlib
import io as stdio
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from run_cases import RUN, make_part, merged, prepare, refine_all, write_inputs

from fwi_refine import io
from fwi_refine.cli import run
from fwi_refine.errors import FwiRefineError, InputError, PartError, SampleError
from fwi_refine.io.hdf5 import Hdf5Array
from fwi_refine.priors import load as load_priors
from fwi_refine.runs.directory import RunDirectory, read_state
from fwi_refine.runs.directory.parts import _digest, read_part, write_part

MAP = np.random.default_rng(0).uniform(1500, 4500, (1, 70, 70)).astype("f4")
FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def npy():
    buffer = stdio.BytesIO()
    np.save(buffer, MAP)
    return buffer.getvalue()


def hdf5():
    buffer = stdio.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["velocity"] = MAP
        file["ids"] = ["a"]
    return buffer.getvalue()


def submission():
    columns = range(1, 70, 2)
    lines = ["oid_ypos," + ",".join(f"x_{c}" for c in columns)]
    lines += [f"a_y_{y}," + ",".join(str(MAP[0, y, c]) for c in columns) for y in range(70)]
    return "\n".join(lines).encode()


@st.composite
def damaged(draw, content, head):
    """The bytes with some changed, left out or put in, most of them among the first `head`."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 5))):
        region = draw(st.sampled_from([head, head, len(content)]))
        place = draw(st.integers(0, max(0, min(region, len(content)) - 1)))
        kind = draw(st.sampled_from(["change", "change", "change", "remove", "insert", "cut"]))
        if kind == "change" and content:
            content[place] = draw(st.integers(0, 255))
        elif kind == "remove":
            del content[place : place + draw(st.sampled_from([1, 8, 500]))]
        elif kind == "insert":
            content[place:place] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "cut":
            del content[place:]
    return bytes(content)


@contextlib.contextmanager
def refused(kind, *words):
    """Lets an error of one kind pass, if its text has one of the words."""
    try:
        yield
    except kind as error:
        if not any(str(word) in str(error) for word in words):
            raise AssertionError(f"{error} says nothing of {words}") from error


def read_all(path):
    """Opens predictions and reads them as the program does; nothing but its own errors comes."""
    with refused(FwiRefineError, path, "id "):
        source = io.open_predictions(path)
        for k in range(min(source.count, 3)):
            start = io.read_start(source, k)
            assert (start.shape, start.dtype) == ((70, 70), np.float32)
            with refused(SampleError, path):
                source.read(k)


@FUZZ
@given(content=damaged(npy(), 128))
@example(npy().replace(b"(1, 70, 70), }", b"(1, 70, 70}, )"))
@example(npy().replace(b"{'descr'", b"((((((((("))
@example(npy().replace(b"'<f4'", b"'|O8'"))
def test_npy(tmp_path, content):
    (tmp_path / "p.npy").write_bytes(content)
    read_all(tmp_path / "p.npy")


@FUZZ
@given(content=damaged(hdf5(), 4000))
def test_hdf5(tmp_path, content):
    (tmp_path / "p.h5").write_bytes(content)
    read_all(tmp_path / "p.h5")


@FUZZ
@given(content=damaged(submission(), 400))
@example(submission().replace(b"a_y_3,", b"a_y_" + b"9" * 5000 + b","))
def test_submission(tmp_path, content):
    (tmp_path / "p.csv").write_bytes(content)
    read_all(tmp_path / "p.csv")


@FUZZ
@given(content=st.binary(max_size=200) | damaged(b'id,family\na,layered\n"b",style-a\n', 40))
@example(b"id,family\n" + b"x" * 200_000)
def test_lists_of_ids_and_families(tmp_path, content):
    (tmp_path / "ids").write_bytes(content)
    with refused(InputError, tmp_path, "id "):
        assert all("/" not in name for name in io.read_ids(tmp_path / "ids"))
    with refused(InputError, tmp_path):
        assert isinstance(io.read_families(tmp_path / "ids"), dict)


@FUZZ
@given(content=damaged(b"[style_a]\nlength = 3.5\n[routing]\nstyle_b_cells = 95.0\n", 60))
@example(b"style_a = " + b"[" * 3000)
@example(b"[style_a]\nlength = " + b"9" * 5000)
@example(b"[style_a]\nlength = " + b"9" * 400)
@example(b"[style_a]\nmean = " + b"-9" + b"9" * 400)
def test_priors(tmp_path, content):
    (tmp_path / "p.toml").write_bytes(content)
    with refused(ValueError, tmp_path):
        load_priors(tmp_path / "p.toml")


@FUZZ
@given(content=damaged(b'jobs = 2\nfamily = "layered"\ncandidate = ["a"]\nquiet = true\n', 60))
@example(b"jobs = " + b"[" * 3000)
@example(b"jobs = " + b"9" * 5000)
@example(b"report = 3")
@example(b"candidate = 3.5")
@example(b"report = true")
@example(b'report = "\\u0000"')
@example(b"overwrite = 3.5")
@example(b"overwrite = 7")
@example(b'shard = "1/' + b"9" * 5000 + b'"')
@example(b"quiet = [1]")
@example(b"[report]\na = 1979-05-27")
def test_options_from_a_file(tmp_path, content):
    (tmp_path / "c.toml").write_bytes(content)
    absent = [str(tmp_path / name) for name in ("absent.npy", "absent", "out.npy")]
    arguments = [*absent[:2], "--out", absent[2], "--config", str(tmp_path / "c.toml")]
    assert run(arguments) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]


@FUZZ
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@example(b"format = 1\nsamples = " + b"[" * 3000)
@example(b"format = 1\nsamples = 3\nsurvey = [1]")
def test_the_table_of_a_run(tmp_path, content):
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(InputError):
        RunDirectory(tmp_path)


@FUZZ
@given(data=st.data())
def test_a_part_whose_name_was_made_to_match(tmp_path, data):
    """Whoever can write a part can give it the right digest: then its content has to do."""
    path = write_part(tmp_path, 7, make_part(1), RUN)
    content = data.draw(damaged(path.read_bytes(), 4000))
    path.unlink()
    made = tmp_path / f"part-000007-{_digest(content, 7, RUN)}.h5"
    made.write_bytes(content)
    with refused(PartError, made.name):
        assert read_part(made, RUN).maps


JOURNAL = """{"time": 1.5, "event": "start", "pid": 7, "host": "h"}
{"time": 2.5, "event": "part", "chunk": 0, "seconds": [1, 2], "status": {"refined": 2}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    case = write_inputs(tmp_path_factory.mktemp("case"), ["a", "b"])
    run = prepare(case, case / "run")
    refine_all(case, run)
    return run, case


@FUZZ
@given(content=damaged(JOURNAL.encode(), 200))
@example(JOURNAL.replace("1.5", '"x"').encode())
@example(JOURNAL.replace('"chunk": 0', '"chunk": []').encode())
@example(JOURNAL.replace('"refined": 2', '"refined": "b"').encode())
@example(b"[" * 9000)
def test_a_journal(finished, content):
    """It may be lost or wrong: the result is there all the same."""
    run, case = finished
    (run.shards_folder / "1-of-1.jsonl").write_bytes(content)
    assert read_state(run).done == 2
    maps, report = merged(run, case)
    assert maps.shape == (2, 70, 70)
    assert [line[0] for line in report] == ["id", "a", "b"]


def rewrite(change):
    """The bytes of a part whose HDF5 file was changed."""

    def bytes_of(content):
        buffer = stdio.BytesIO(content)
        with h5py.File(buffer, "r+") as file:
            change(file)
        return buffer.getvalue()

    return bytes_of


def replaced(name, value):
    def change(file):
        before = file[name][()] if isinstance(file[name], h5py.Dataset) else None
        del file[name]
        file[name] = value(before) if callable(value) else value

    return rewrite(change)


def with_cell(name, value):
    def change(table):
        table[name][0] = value
        return table

    return replaced("report", change)


@pytest.mark.parametrize(
    "change",
    [
        rewrite(lambda file: file.__delitem__("report")),
        rewrite(lambda file: file.__delitem__("maps/velocity")),
        replaced("report", 3.5),
        replaced("report", lambda table: table["id"]),
        replaced("report", lambda table: table[["id", "status"]]),
        replaced("report", lambda table: table[:0]),
        replaced("maps", MAP),
        replaced("maps/velocity", lambda maps: maps[:, None][[0, 0]]),
        with_cell("id", b"../a"),
        with_cell("id", b"\xff"),
        with_cell("status", b"lost"),
        with_cell("evaluations", np.inf),
    ],
)
def test_a_part_that_holds_something_else(tmp_path, change):
    path = write_part(tmp_path, 7, make_part(1), RUN)
    content = change(path.read_bytes())
    made = tmp_path / f"part-000007-{_digest(content, 7, RUN)}.h5"
    made.write_bytes(content)
    with pytest.raises(PartError, match="does not hold the results of a chunk"):
        read_part(made, RUN)


# What a file could lead to outside of itself


def test_links_to_other_files_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["velocity"] = MAP
    MAP.tofile(tmp_path / "secret.raw")
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["harmless"] = MAP
        file["velocity"] = h5py.ExternalLink("secret.h5", "velocity")
        file["soft"] = h5py.SoftLink("/velocity")
        layout = h5py.VirtualLayout(shape=MAP.shape, dtype="f4")
        layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "velocity", shape=MAP.shape)
        file.create_virtual_dataset("view", layout)
        file.create_dataset(
            "raw", MAP.shape, "f4", external=[(str(tmp_path / "secret.raw"), 0, MAP.nbytes)]
        )
    with pytest.raises(InputError, match=r"found the datasets \['harmless'\]"):
        io.open_predictions(tmp_path / "p.h5")


def test_a_file_that_claims_to_be_huge_takes_no_memory(tmp_path):
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file.create_dataset("records", (3, 5, 10**10, 70), "f4", chunks=(1, 1, 1000, 70))
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["velocity"] = MAP
        file.create_dataset("ids", (10**12,), "S8", chunks=(1000,))
    tracemalloc.start()
    with pytest.raises(InputError, match="found rows of 14000000000000 bytes"):
        io.open_records(tmp_path / "r.h5")
    with pytest.raises(InputError, match=r"found ids of shape \(1000000000000,\) and 1 rows"):
        io.open_predictions(tmp_path / "p.h5")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_hdf5_arrays_are_read_in_other_processes_too(tmp_path):
    import pickle

    (tmp_path / "p.h5").write_bytes(hdf5())
    there = pickle.loads(pickle.dumps(Hdf5Array(tmp_path / "p.h5", ("velocity",))))
    np.testing.assert_array_equal(there.row(0), MAP[0])


@pytest.mark.parametrize("name", ["../up", "/etc/x", "a/../../b", "..", "."])
def test_no_file_is_written_outside_of_the_directory(tmp_path, name):
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["velocity"] = MAP
        file["ids"] = [name]
    before = sorted(tmp_path.rglob("*"))
    assert run(["simulate", str(tmp_path / "p.h5"), "--out", str(tmp_path / "out")]) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_in_the_program_unpickles():
    """numpy.load and torch.load can run code that a file holds; h5py and npy headers cannot."""
    root = Path(io.__file__).parents[1]
    sources = [*root.rglob("*.py"), *(root.parent / "priors").rglob("*.py")]
    assert len(sources) > 40
    for path in sources:
        text = path.read_text()
        for word in (
            "allow_pickle=True",
            "torch.load",
            "np.load(",
            "import pickle",
            "eval(",
            "exec(",
        ):
            assert word not in text, f"{path}: {word}"
