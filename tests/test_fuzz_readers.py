"""Every reader, on damaged files: it reads, or says what is wrong, within bounded time and memory.

Bits are flipped, files cut short, stretches repeated, and numbers in headers made huge. Whatever
the damage, nothing but an error of this program's own comes out.
"""

import contextlib
import io as stdio
import json
import re
import resource
import signal

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st
from run_cases import RUN, make_part, prepare, refine_all, write_inputs

from fwi_refine import io
from fwi_refine.cli.blend_weights import read_table
from fwi_refine.cli.commands.probe import _read_plan
from fwi_refine.cli.options.files import load_priors
from fwi_refine.errors import FwiRefineError
from fwi_refine.io.history import read_history
from fwi_refine.io.report import read_report
from fwi_refine.io.submission import _keys_of_file
from fwi_refine.priors import load, to_table
from fwi_refine.runs.directory import Contents, RunDirectory, check_parts, read_state
from fwi_refine.runs.directory.parts import _digest, read_part, write_part
from fwi_refine.survey import OPENFWI, read_survey, write_survey

pytestmark = pytest.mark.slow

SECONDS = 20  # of one example
MEMORY = 400_000  # KiB, by which the process may grow in a test
MAP = np.random.default_rng(0).uniform(1500, 4500, (2, 70, 70)).astype("f4")
RECORD = np.random.default_rng(1).normal(size=(1, 5, 1000, 70)).astype("f4")
FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class TooLong(BaseException):
    """Not an Exception, which a reader might take for its own."""


@contextlib.contextmanager
def bounded():
    """Lets errors of the program pass; a hang, a blow-up of memory and other errors do not."""

    def ring(*_):
        raise TooLong(f"not read within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        yield
    except FwiRefineError as error:
        if not str(error).strip():
            raise AssertionError("an error without a word") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size < MEMORY


@st.composite
def damaged(draw, content, head=200):
    """The bytes, damaged once to four times, mostly in their first `head`."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["flip", "flip", "cut", "repeat", "inflate", "ones"]))
        last = max(0, min(draw(st.sampled_from([head, head, len(data)])), len(data)) - 1)
        place = draw(st.integers(0, last))
        if kind == "flip" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[place:]
        elif kind == "repeat":
            data[place:place] = data[place : place + draw(st.sampled_from([1, 40, 1000]))]
        elif kind == "inflate":  # a number of the text gets digits, many of them or a few
            numbers = [*re.finditer(rb"[0-9]+", bytes(data[: max(head, 1)]))]
            if numbers:
                found = draw(st.sampled_from(numbers))
                more = draw(st.sampled_from([b"0" * 6, b"9" * 20, b"9" * 5000]))
                data[found.end() : found.end()] = more
        elif kind == "ones" and data:  # a size of a binary header becomes the largest there is
            data[place : place + 8] = b"\xff" * min(8, len(data) - place)
    return bytes(data)


def bytes_of_npy(array):
    buffer = stdio.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def bytes_of_hdf5(**datasets):
    buffer = stdio.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return buffer.getvalue()


def text_of_submission():
    lines = ["oid_ypos," + ",".join(f"x_{c}" for c in range(1, 70, 2))]
    lines += [f"a_y_{y}," + ",".join(f"{v:.2f}" for v in MAP[0, y, 1::2]) for y in range(70)]
    return "\n".join(lines).encode()


def read_maps(path):
    source = io.open_predictions(path)
    for k in range(min(source.count, 3)):
        assert io.read_start(source, k).shape == (70, 70)
        with contextlib.suppress(FwiRefineError):
            source.read(k)


def read_records(path):
    source = io.open_records(path)
    for k in range(min(len(source.ids), 3)):
        with contextlib.suppress(FwiRefineError):
            source.read(k)
        with contextlib.suppress(FwiRefineError):
            source.truth(k)


HEADERS = [
    b"(2, 70, 70)",
    b"(9999999999, 70, 70)",
    b"(2, 70, 7999999999999999999)",
    b"(-2, 70, 70)",
]


@seed(1)
@FUZZ
@given(content=damaged(bytes_of_npy(MAP), 128))
@example(bytes_of_npy(MAP).replace(HEADERS[0], HEADERS[1]))
@example(bytes_of_npy(MAP).replace(HEADERS[0], HEADERS[2]))
@example(bytes_of_npy(MAP).replace(HEADERS[0], HEADERS[3]))
def test_npy(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    (tmp_path / "d").mkdir(exist_ok=True)
    (tmp_path / "d" / "x.npy").write_bytes(content)
    for read in (read_maps, read_records):
        for path in (tmp_path / "x.npy", tmp_path / "d"):
            with bounded():
                read(path)


@seed(1)
@FUZZ
@given(content=damaged(bytes_of_npy(RECORD), 128))
def test_shards(tmp_path, content):
    for name in ("data1.npy", "model1.npy"):
        (tmp_path / name).write_bytes(content)
    with bounded():
        read_records(tmp_path)


@seed(1)
@FUZZ
@given(content=damaged(bytes_of_hdf5(velocity=MAP, ids=["a", "b"]), 4000))
def test_hdf5_of_maps(tmp_path, content):
    (tmp_path / "x.h5").write_bytes(content)
    for read in (read_maps, read_records):
        with bounded():
            read(tmp_path / "x.h5")


@seed(1)
@FUZZ
@given(content=damaged(bytes_of_hdf5(records=RECORD, velocity=MAP[:1], ids=["a"]), 4000))
def test_hdf5_of_records(tmp_path, content):
    (tmp_path / "x.h5").write_bytes(content)
    with bounded():
        read_records(tmp_path / "x.h5")


@seed(1)
@FUZZ
@given(content=damaged(text_of_submission(), 400))
def test_submissions(tmp_path, content):
    (tmp_path / "x.csv").write_bytes(content)
    with bounded():
        read_maps(tmp_path / "x.csv")
    with bounded():
        list(_keys_of_file(tmp_path / "x.csv", OPENFWI))


IDS = b'id,family\na,layered\n"b,c",style-a\n'
REPORT = b"id,family,status,misfit_after,evaluations\na,layered,refined,0.25,31\nb,,failed,,\n"
HISTORY = b"id,stage,evaluations,misfit\na,0,1,0.5\na,1,12,0.25\n"


@pytest.mark.parametrize(
    ("content", "read"),
    [
        (IDS, io.read_ids),
        (IDS, io.read_families),
        (REPORT, read_report),
        (REPORT, io.read_ids),
        (HISTORY, read_history),
    ],
)
def test_tables(tmp_path, content, read):
    @seed(1)
    @FUZZ
    @given(found=damaged(content, 80) | st.binary(max_size=100))
    @example(content.replace(b",", b";"))
    @example(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
    @example(content.decode().encode("utf-16"))
    @example(b"id,family,status\n" + b'"' + b"x\n" * 300_000)
    def each(found):
        (tmp_path / "x.csv").write_bytes(found)
        with bounded():
            read(tmp_path / "x.csv")

    each()


def toml_of_survey(folder):
    write_survey(OPENFWI, folder / "survey.toml")
    return (folder / "survey.toml").read_bytes()


def toml_of_priors(folder):
    import tomli_w

    return tomli_w.dumps(to_table(load())).encode()  # the thresholds of the routing are in it


@pytest.mark.parametrize(
    ("make", "read"), [(toml_of_survey, read_survey), (toml_of_priors, load_priors)]
)
def test_settings(tmp_path, make, read):
    content = make(tmp_path)

    @seed(1)
    @FUZZ
    @given(found=damaged(content, 600))
    @example(b"[routing]\nstyle_b_cells = nan\n")
    @example(b"[grid]\nrows = 9007199254740993\ncolumns = 70\nspacing = 1e-300\n")
    def each(found):
        (tmp_path / "x.toml").write_bytes(found)
        with bounded():
            read(tmp_path / "x.toml")

    each()


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ({"families": {"all": {"weights": [0.5, 0.5]}}}, lambda p: read_table(p, 2, ["all"])),
        (
            {"family": "a", "shifts": [100.0, 1e5], "samples": 3, "share_of_maps": 0.5},
            _read_plan,
        ),
    ],
)
def test_json(tmp_path, content, read):
    @seed(1)
    @FUZZ
    @given(found=damaged(json.dumps(content).encode(), 100))
    def each(found):
        (tmp_path / "x.json").write_bytes(found)
        with bounded():
            read(tmp_path / "x.json")

    each()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    case = write_inputs(tmp_path_factory.mktemp("case"), ["a", "b", "c"])
    run = prepare(case, case / "run")
    refine_all(case, run)
    return run.path


@pytest.mark.parametrize("name", ["run.toml", "parts", "shards/1-of-1.jsonl"])
def test_run_directories(finished, name):
    path = finished / name
    path = sorted(path.iterdir())[0] if path.is_dir() else path
    whole = path.read_bytes()

    @seed(1)
    @FUZZ
    @given(content=damaged(whole, 2000))
    def each(content):
        path.write_bytes(content)
        with bounded():
            run = RunDirectory(finished)
            read_state(run)
            list(check_parts(run))
            contents = Contents(run)
            if contents.rows:
                io.read_start(contents, 0)

    try:
        each()
    finally:
        path.write_bytes(whole)


@seed(1)
@FUZZ
@given(data=st.data())
def test_parts_of_the_right_digest(tmp_path, data):
    """Whoever can write a part can give it the name that its bytes need."""
    path = write_part(tmp_path, 7, make_part(2), RUN)
    content = data.draw(damaged(path.read_bytes(), 4000))
    path.unlink()
    made = tmp_path / f"part-000007-{_digest(content, 7, RUN)}.h5"
    made.write_bytes(content)
    with bounded():
        read_part(made, RUN)
    made.unlink()
