"""Faults put to an installed program through its command line and public names alone.

FWI_REFINE_PYTHON names the interpreter of the installation, this one where it is not set:

    FWI_REFINE_PYTHON=/path/to/bin/python python -m pytest -m slow tests/test_installed_program.py
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import h5py
import numpy as np
import pytest
from installed_program import PROGRAM, Here
from process_cases import dask_cluster, wait_for
from small_survey_cases import SURVEY

from fwi_refine import simulate
from fwi_refine.survey import write_survey

pytestmark = [pytest.mark.slow, pytest.mark.process]

SETTING = ["--survey", "s.toml", "--family", "layered", "--jobs", "1"]
SHORT = [*SETTING, "--method", "lbfgs", "--max-evaluations", "2"]
N = 12


@pytest.fixture(scope="session")
def made_inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_survey(SURVEY, folder / "s.toml")
    rows = np.arange(20)[:, None]
    # no prediction may look like the next sample's
    lower = [2400 + 40 * (7 * k % N) for k in range(N)]
    truth = np.stack([np.where(rows < 6 + k % 8, 1800.0, v) + np.zeros((20, 25))
                      for k, v in enumerate(lower)])  # fmt: skip
    np.save(folder / "t.npy", truth)
    np.save(folder / "p.npy", np.where(truth > 1800, truth + 40, truth).astype("f4"))
    records = simulate(truth, survey=SURVEY)
    np.save(folder / "r.npy", records)
    (folder / "rec").mkdir()
    for k, record in enumerate(records):
        np.save(folder / "rec" / f"s{k:02}.npy", record)
    return folder


@pytest.fixture
def here(made_inputs, tmp_path):
    shutil.copytree(made_inputs, tmp_path / "here")
    return Here(tmp_path / "here")


def load(here, name):
    return np.load(here.folder / name)


# Wrong results without a word


def test_the_report_is_of_the_written_map(here):
    random = np.random.default_rng(3)
    truth = load(here, "t.npy")[:1]
    record = load(here, "r.npy")[:1] + np.float32(1e-5) * random.standard_normal((1, 2, 400, 25))
    np.save(here.folder / "rn.npy", record.astype("f4"))
    np.save(here.folder / "pn.npy", (truth + 2 * random.normal(size=truth.shape)).astype("f4"))
    more = ["--method", "gauss-newton", "--max-evaluations", 40, "--out", "w.npy"]
    done = here.run("pn.npy", "rn.npy", *SETTING, *more)
    assert done.returncode == 0, done.stderr
    written = simulate(load(here, "w.npy"), survey=SURVEY)
    misfit = np.sqrt(np.mean((written - load(here, "rn.npy")) ** 2))
    assert float(here.rows("w.csv")[0]["misfit_after"]) == pytest.approx(misfit, rel=0.05)


@pytest.mark.parametrize("what", ["km/s", "scaled records", "another order"])
def test_inputs_that_do_not_belong_together_are_refused(here, what):
    maps, records = load(here, "p.npy"), load(here, "r.npy")
    if what == "km/s":
        maps = maps / 1000
    if what == "scaled records":
        records = records / 100
    if what == "another order":
        records = records[::-1]
    np.save(here.folder / "p.npy", maps)
    np.save(here.folder / "r.npy", records)
    done = here.run("p.npy", "r.npy", *SHORT, "--out", "o.npy")
    assert done.returncode == 2, done.stderr
    assert {"km/s": "--units", "scaled records": "--record-scale"}.get(what, "order") in done.stderr


def test_numbered_files_are_paired_by_their_numbers(here):
    for k, path in enumerate(sorted((here.folder / "rec").iterdir()), 1):
        path.rename(path.with_name(f"data{k}.npy"))
    done = here.run("t.npy", "rec", *SHORT, "--out", "o.npy")
    assert done.returncode == 0, done.stderr
    assert max(float(row["misfit_before"]) for row in here.rows("o.csv")) < 1e-4


def test_the_summary_tells_what_was_cut_off(here):
    done = here.run("p.npy", "rec", *SHORT, "--limit", 5, "--out", "o.npy")
    (counts,) = [line for line in done.stderr.splitlines() if "; misfit" in line]
    assert "stopped early" in counts


def test_velocities_beyond_the_stable_limit_are_refused(here):
    np.save(here.folder / "six.npy", np.full((1, 70, 70), 6000.0))  # within OpenFWI's bounds
    done = here.run("simulate", "six.npy", "--out", "six")
    assert done.returncode in (2, 3), np.load(here.folder / "six" / "000000.npy")[0, -1]
    assert not [*here.folder.glob("six/*.npy")]
    here.script("""
v = torch.full((1, 20, 25), 2000.0)
fast = v.clone(); fast[:, 8:12, 5:15] = 6200
try:
    loss = RecordMisfit(survey)(fast, WaveSimulator(survey)(v))
except ValueError:
    raise SystemExit
raise SystemExit(f"a misfit of {float(loss)}")
""")


def test_ids_stay_what_they_are(here):
    names = [f"a  {k:02}" for k in range(N)]
    for path, name in zip(sorted((here.folder / "rec").iterdir()), names, strict=True):
        path.rename(path.with_name(f"{name}.npy"))
    (here.folder / "ids.txt").write_text("\ufeff" + "\n".join(names), encoding="utf-8")
    done = here.run("p.npy", "rec", "--ids", "ids.txt", *SHORT, "--limit", 3, "--out", "o.npy")
    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in here.rows("o.csv")] == names[:3]


def test_one_vmin_for_two_maps(here):
    """A kernel that reads past its end takes what lies there in memory."""
    here.script("""
v = torch.stack([torch.full((20, 25), 2000.0), torch.full((20, 25), 2400.0)])
both = WaveSimulator(survey)(v, 1500 * torch.ones(2))
try:
    one = [WaveSimulator(survey)(v, 1500 * vmin) for vmin in (torch.ones(1), torch.ones(()))]
except ValueError:
    raise SystemExit
assert all(torch.equal(r, both) for r in one)
""")


def test_a_grid_that_is_too_small_is_refused(here):
    here.script("""
try:
    small = replace(survey, shape=(3, 25), absorbing_cells=0, velocity_bounds=(1400.0, 3000.0))
    record = simulate(np.full((3, 25), 2000.0), survey=small)
except (InputError, ValueError):
    raise SystemExit
raise SystemExit(f"a record of up to {abs(record).max()}")
""")


# Finished work lost


def test_records_that_vanish_for_a_while_fail_no_sample(here):
    """What is finished is kept, the rest is refined when they are back."""
    arguments = ["p.npy", "rec", *SHORT, "--run-dir", "run", "--chunk-size", 1]
    with here.running(*arguments) as process:
        here.wait_for_parts(process, 2)
        (here.folder / "rec").rename(here.folder / "away")
        process.communicate(timeout=300)
    (here.folder / "away").rename(here.folder / "rec")
    done = here.run(*arguments, "--out", "o.npy")
    assert done.returncode == 0, done.stderr
    assert "failed" not in {row["status"] for row in here.rows("o.csv")}


UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv")
def test_a_part_that_cannot_be_read_is_kept(here):
    arguments = ["p.npy", "rec", *SHORT, "--run-dir", "run", "--chunk-size", 1]
    assert here.run(*arguments).returncode == 0
    part = here.folder / "run" / "parts" / here.parts()[3]
    content, _ = part.read_bytes(), part.chmod(0)
    program = [*(UNPRIVILEGED if os.getuid() == 0 else []), *PROGRAM]
    if not here.run(program=[*program[: -len(PROGRAM)], "cat", part]).returncode:
        pytest.skip("this user reads all")
    done = here.run(*arguments, program=program)
    assert done.returncode not in (0, 3)
    assert "ermission denied" in done.stderr
    part.chmod(0o600)
    assert part.read_bytes() == content


def test_parts_whose_table_is_lost_are_kept(here):
    arguments = ["p.npy", "rec", *SHORT, "--run-dir", "run", "--chunk-size", 1]
    assert here.run(*arguments).returncode == 0
    before = here.parts()
    assert len(before) == N
    (here.folder / "run" / "run.toml").unlink()
    assert here.run(*arguments, "--max-evaluations", 3).returncode == 2
    assert here.parts() == before


def test_a_finished_sample_of_a_chunk_is_kept(here):
    """Eight samples are a chunk; the fault comes when some of them are finished."""
    arguments = ["p.npy", "rec", *SETTING, "--method", "lbfgs", "--max-evaluations", 60]
    run = ".o.npy.run"
    with here.running(*arguments, "--out", "o.npy") as process:
        here.wait_for_parts(process, 2, run)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "to go on: fwi-refine" in error
    kept = here.parts(run)
    done = here.run(*arguments, "--out", "o.npy")
    assert done.returncode == 0, done.stderr
    assert 2 <= len(kept) < N
    assert len(here.rows("o.csv")) == N


def test_a_broken_stderr_stops_nothing(here):
    shell = ["bash", "-c", '"$@" -v 2>&1 | head -2', "bash"]
    here.run("p.npy", "rec", *SHORT, "--out", "o.npy", program=[*shell, *PROGRAM])
    assert load(here, "o.npy").shape == (N, 20, 25)


def test_the_end_of_the_terminal_stops_in_order(here):
    arguments = ["p.npy", "rec", *SHORT, "--run-dir", "run", "--chunk-size", 1]
    with here.running(*arguments) as process:
        here.wait_for_parts(process, 2)
        process.send_signal(signal.SIGHUP)
        _, error = process.communicate(timeout=300)
    assert process.returncode == 129
    assert "to go on: fwi-refine" in error


@pytest.mark.parametrize("how", [["--run-dir", "run", "--chunk-size", "1"], ["--out", "o.npy"]])
@pytest.mark.parametrize("name", ["a\\b", "a\nb", b"a\xffb"])
def test_names_that_no_table_holds_cost_no_work(here, name, how):
    name = os.fsdecode(name) + ".npy"
    (here.folder / "rec" / "s00.npy").rename(here.folder / "rec" / name)
    before = os.listdir(here.folder)
    done = here.run("p.npy", "rec", *SHORT, *how)
    assert done.returncode == 2, done.stderr
    assert os.listdir(here.folder) == before


def test_an_output_that_is_an_input_is_refused(here):
    np.save(here.folder / "m.npy", np.full((2, 70, 70), 2000.0))
    (here.folder / "ids.txt").write_text("a\nb\n")
    before = (here.folder / "ids.txt").read_bytes(), (here.folder / "r.npy").read_bytes()
    submit = ["submit", "m.npy", "--ids", "ids.txt", "--out", "ids.txt"]
    start = ["start", "r.npy", "--survey", "s.toml", "--limit", 1, "--out", "r.npy"]
    codes = [here.run(*command, "--overwrite").returncode for command in (submit, start)]
    after = (here.folder / "ids.txt").read_bytes(), (here.folder / "r.npy").read_bytes()
    assert after == before
    assert codes == [2, 2]


def test_temporary_files_follow_no_link(here):
    """A link stands where a name made of the number of the process would be."""
    (here.folder / "others").write_text("not ours")
    shell = ["bash", "-c", 'ln -s others .o.npy.$$.tmp; exec "$@"', "bash"]
    arguments = ["p.npy", "rec", *SHORT, "--out", "o.npy"]
    assert here.run(*arguments, program=[*shell, *PROGRAM]).returncode == 0
    assert (here.folder / "others").read_text() == "not ours"
    assert not (here.folder / "o.npy").is_symlink()


def test_what_a_killed_command_left_is_swept(here):
    arguments = ["p.npy", "rec", *SETTING, "--method", "lbfgs", "--max-evaluations", 60]
    before = {"p.npy", "t.npy", "r.npy", "rec", "s.toml"}
    with here.running(*arguments, "--out", "o.npy") as process:
        assert wait_for(lambda: set(os.listdir(here.folder)) - before, 300)
        time.sleep(3)
        assert process.poll() is None
    assert here.run(*arguments, "--out", "o.npy").returncode == 0
    assert set(os.listdir(here.folder)) - before == {"o.npy", "o.csv"}


def test_a_lock_that_is_looked_at_refuses_no_shard(here):
    """Shards that start at once look at the lock that an earlier run left, each for a moment."""
    arguments = ["p.npy", "rec", *SHORT, "--run-dir", "run", "--chunk-size", 1]
    with here.running(*arguments) as process:
        here.wait_for_parts(process, 1)
    ending = threading.Event()

    def look():
        with open(here.folder / "run" / "shards" / "1-of-1.lock", "a") as file:
            while not ending.is_set():
                with suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    time.sleep(0.05)
                    fcntl.flock(file, fcntl.LOCK_UN)
                time.sleep(0.01)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for shard in ("1/3", "2/3", "3/3"):
            done = here.run(*arguments, "--shard", shard)
            assert done.returncode == 0, done.stderr
    finally:
        ending.set()
        thread.join()


# Hangs and crashes


def test_a_forked_loader_simulates(here):
    here.script("""
v = np.full((20, 25), 2000.0)
before = simulate(v, survey=survey)
class Records(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, k):
        return torch.from_numpy(simulate(v, survey=survey))
loader = torch.utils.data.DataLoader(Records(), num_workers=2, multiprocessing_context="fork")
assert [np.array_equal(r[0], before) for r in loader] == [True] * 4
""")


@pytest.mark.parametrize(("path", "code"), [("ids.txt", 2), ("rec/s03.npy", 3)])
def test_a_pipe_is_not_waited_for(here, path, code):
    """A list of ids is refused, a record fails its sample."""
    (here.folder / path).unlink(missing_ok=True)
    os.mkfifo(here.folder / path)
    more = ["--ids", path] if path == "ids.txt" else []
    done = here.run("p.npy", "rec", *SHORT, "--out", "o.npy", *more, timeout=150)
    assert done.returncode == code


def test_a_header_that_claims_too_much_takes_no_memory(here):
    header = {"descr": "<f4", "fortran_order": False, "shape": (30_000_000, 2, 400, 25)}
    with open(here.folder / "data1.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    measured = ["bash", "-c", 'ulimit -v 6000000; exec "$@"', "bash"]
    done = here.run("p.npy", "data1.npy", *SHORT, "--out", "o.npy", program=[*measured, *PROGRAM])
    assert done.returncode == 2
    assert "truncated" in done.stderr


def test_a_dask_worker_without_the_program_is_named(here):
    pytest.importorskip("distributed")
    lacking = here.folder / "lacking"
    lacking.mkdir()
    (lacking / "fwi_refine.py").write_text("raise ImportError('not here')")
    dask = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-dashboard", "--no-nanny"]
    with dask_cluster(here.folder, workers=0) as address:
        worker = subprocess.Popen(
            [*dask, "--host", "127.0.0.1", address],
            env=os.environ | {"PYTHONPATH": str(lacking)}, cwd=lacking,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            from distributed import Client

            with Client(address, set_as_default=False) as client:
                client.wait_for_workers(1, timeout=60)
            arguments = ["p.npy", "rec", *SHORT, "--dask", address, "--out", "o.npy"]
            done = here.run(*[a for a in arguments if a not in ("--jobs", "1")], timeout=300)
            assert done.returncode == 2
            assert "fwi_refine" in done.stderr
        finally:
            worker.kill()
            worker.wait()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a compiler")
def test_a_disk_without_locks(here):
    """Inputs need none; a run directory, which does, is refused with its file and a remedy."""
    (here.folder / "no.c").write_text(
        "#include <errno.h>\nint flock(int f, int o) { errno = ENOLCK; return -1; }\n"
    )
    library = str(here.folder / "no.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, here.folder / "no.c"], check=True)
    with h5py.File(here.folder / "r.h5", "w") as file:
        file["records"] = load(here, "r.npy")
    without = {"env": os.environ | {"LD_PRELOAD": library}}
    done = here.run("p.npy", "r.h5", *SHORT, "--out", "o.npy", **without)
    assert done.returncode == 0, done.stderr
    done = here.run("p.npy", "rec", *SHORT, "--run-dir", "run", **without)
    assert done.returncode == 1
    assert ".lock: this disk has no locks" in done.stderr


@pytest.mark.parametrize("text", ["[" * 100_000, "1e999"])
def test_numbers_of_a_plan_without_measure(here, text):
    plan = '{"shifts": [1, 2], "family": "x", "share_of_maps": 1, "samples": ' + text + "}"
    (here.folder / "plan.json").write_text(plan)
    done = here.run("probe", "solve", "plan.json", 1, 2, 3)
    assert done.returncode == 2
    assert "plan.json" in done.stderr


def test_keys_of_priors_without_measure(here):
    (here.folder / "n.toml").write_text("[style_a]\nlength." + ".".join("a" * 3000) + " = 1")
    done = here.run("p.npy", "rec", *SHORT, "--out", "o.npy", "--priors", "n.toml")
    assert done.returncode == 2
    assert "n.toml" in done.stderr


def test_a_negative_number_of_threads_is_refused(here):
    here.script("""
try:
    RecordMisfit(survey, threads=-1)(torch.full((1, 20, 25), 2000.0), torch.zeros(1, 2, 400, 25))
except (InputError, ValueError):
    raise SystemExit
raise SystemExit("no error")
""")


def test_a_time_budget_that_is_no_number_is_refused(here):
    arguments = ["p.npy", "rec", *SHORT, "--time-budget", "nan", "--run-dir", "run"]
    done = here.run(*arguments)
    assert done.returncode == 2
    assert "--time-budget" in done.stderr
    assert not (here.folder / "run").exists()


@pytest.mark.parametrize("method", ["gauss-newton", "lbfgs"])
def test_evaluations_are_never_more_than_allowed(here, method):
    for most in (3, 8, 17):
        more = ["--method", method, "--max-evaluations", most, "--limit", 4, "--overwrite"]
        done = here.run("p.npy", "rec", *SETTING, *more, "--out", "o.npy")
        assert done.returncode == 0, done.stderr
        assert max(int(row["evaluations"]) for row in here.rows("o.csv")) <= most
