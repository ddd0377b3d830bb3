"""Run directories: continued where they were left, shared by shards, merged, checked."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from run_cases import (
    SETTINGS,
    expected_maps,
    merged,
    open_case,
    part_names,
    prepare,
    refine_all,
    trivial,
    write_inputs,
)

from fwi_refine.errors import InputError, OutputExistsError, PartError, RunError
from fwi_refine.io.predictions import read_start
from fwi_refine.priors import load
from fwi_refine.runs.directory import (
    RunDirectory,
    check_parts,
    describe,
    merge,
    read_state,
    shard_chunks,
)
from fwi_refine.runs.directory.shards import Journal, claimed, read_journal

NAMES = ["a", "b", "bad", "c", "d", "e", "f"]  # four chunks of two, the last with one


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("case"), NAMES)


@pytest.fixture
def whole(case, tmp_path):
    """A finished run."""
    run = prepare(case, tmp_path / "whole")
    refine_all(case, run)
    return run


def counted(calls):
    def refine(sample, settings, watch=None):
        calls.append(sample.id)
        return trivial(sample, settings)

    return refine


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_from_its_parts(case, whole, tmp_path):
    maps, report = merged(whole, tmp_path)
    np.testing.assert_array_equal(maps, expected_maps(case))
    assert [line[0] for line in report[1:]] == NAMES
    assert [line[3] for line in report[1:]] == [
        "failed" if name == "bad" else "refined" for name in NAMES
    ]
    np.testing.assert_array_equal(maps[2], read_start(open_case(case).predictions, 2))
    with open(tmp_path / "merged.csv") as file:
        assert file.read().count(",0.12,") == len(NAMES) - 1  # the seconds, from the journal


def test_a_finished_run_does_nothing_more(case, whole):
    before, calls, found = part_names(whole), [], []
    refine_all(case, whole, refine=counted(calls), found=found.extend)
    assert calls == []
    assert [row.id for row in found] == NAMES
    assert part_names(whole) == before


@pytest.mark.parametrize("damage", ["flipped", "cut", "absent", "renamed"])
def test_continuing_computes_what_is_damaged_and_nothing_else(case, whole, damage):
    before = part_names(whole)
    path = whole.parts()[1][0]
    content = path.read_bytes()
    if damage == "flipped":
        path.write_bytes(content[:9000] + bytes([content[9000] ^ 1]) + content[9001:])
    elif damage == "cut":
        os.truncate(path, 5000)
    else:
        path.unlink()
        if damage == "renamed":
            path.with_name(path.name.replace("-000001-", "-000003-")).write_bytes(content)
    problems = {number: problem for number, problem in check_parts(whole) if problem}
    assert set(problems) == {"flipped": {1}, "cut": {1}, "absent": set(), "renamed": {3}}[damage]
    calls = []
    refine_all(case, whole, refine=counted(calls))
    assert calls == ["bad", "c"]
    assert part_names(whole) == before
    assert all(problem is None for _, problem in check_parts(whole))


def test_what_a_killed_process_was_writing_is_swept(case, whole):
    stale = whole.parts_folder / ".part-000002.4711.tmp"
    stale.write_bytes(b"half a part")
    whole.parts()[2][0].unlink()
    assert whole.temporaries() == [stale]
    refine_all(case, whole, shard=(1, 2))
    assert stale.exists()  # that of another shard is not ours to judge
    refine_all(case, whole)
    assert not stale.exists()
    assert len(part_names(whole)) == 4


def test_shards_fill_one_directory(case, whole, tmp_path):
    run = prepare(case, tmp_path / "run")
    for shard in ((2, 3), (1, 3), (3, 3)):
        refine_all(case, run, shard=shard)
    assert part_names(run) == part_names(whole)
    assert tree(run.parts_folder).values() != {}
    for mine, theirs in zip(run.parts().values(), whole.parts().values(), strict=True):
        assert mine[0].read_bytes() == theirs[0].read_bytes()
    assert merged(run, tmp_path)[1] == merged(whole, tmp_path)[1]


def test_shards_are_the_whole():
    for n in (1, 2, 3, 7, 11):
        parts = [shard_chunks((i, n), 7) for i in range(1, n + 1)]
        assert [k for part in parts for k in part] == [*range(7)]


def test_directories_of_several_machines_are_merged(case, whole, tmp_path):
    runs = [prepare(case, tmp_path / name) for name in ("one", "two")]
    for number, run in enumerate(runs, start=1):
        refine_all(case, run, shard=(number, 2))
    with pytest.raises(RunError, match="2 of 4 parts are missing, the first that of sample number"):
        merge(runs[:1], tmp_path / "o.npy", tmp_path / "o.csv")
    assert not (tmp_path / "o.npy").exists()
    merge(runs, tmp_path / "o.npy", tmp_path / "o.csv")
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), merged(whole, tmp_path)[0])
    with pytest.raises(OutputExistsError):
        merge(runs, tmp_path / "o.npy", tmp_path / "o.csv")
    other = prepare(case, tmp_path / "three", limit=3)
    with pytest.raises(InputError, match=r"not the same run: samples\.count: 7 in the run, 3 now"):
        merge([runs[0], other], tmp_path / "x.npy", tmp_path / "x.csv")


def test_merging_names_a_damaged_part_and_writes_nothing(whole, tmp_path):
    path = whole.parts()[2][0]
    os.truncate(path, 5000)
    with pytest.raises(PartError, match=path.name):
        merge([whole], tmp_path / "o.npy", tmp_path / "o.csv")
    assert not (tmp_path / "o.npy").exists()
    assert not (tmp_path / "o.csv").exists()
    copy = tmp_path / "copy"
    shutil.copytree(whole.path, copy)
    (copy / "parts" / path.name).unlink()
    with pytest.raises(PartError, match=path.name):
        merge([RunDirectory(copy), whole], tmp_path / "o.npy", tmp_path / "o.csv")


def test_two_parts_of_one_chunk_are_named(case, whole):
    """Different results of one chunk: a time budget can do that where two disks are copied."""
    run, part = whole, whole.read(whole.parts()[0][0])
    part.maps["velocity"][0, 0, 0] += 1
    run.add(0, part)
    assert len(run.parts()[0]) == 2
    problems = dict(check_parts(run))
    assert "another part of the same chunk" in problems[0]
    assert [problem for number, problem in problems.items() if number] == [None] * 3
    refine_all(case, run)
    assert len(run.parts()[0]) == 1
    assert all(problem is None for _, problem in check_parts(run))


# The lock


HOLDER = """
import sys, time
from fwi_refine.runs import RunDirectory
from fwi_refine.runs.directory.shards import Journal, claimed
run = RunDirectory(sys.argv[1])
with claimed(run.shards_folder, (2, 2), run.chunk_count):
    Journal(run.shards_folder, (2, 2)).write("start")
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.process
def test_a_second_process_is_refused_until_the_first_has_ended(case, whole):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(whole.path)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        for shard in ((2, 2), (1, 1), (3, 3)):
            with pytest.raises(RunError, match=f"process {process.pid} on .* works on shard 2/2"):
                refine_all(case, whole, shard=shard)
        refine_all(case, whole, shard=(1, 2))
        state = read_state(whole)
        assert [s["running"] for s in state.shards if s["shard"] == "2/2"] == [True]
        process.send_signal(signal.SIGKILL)
        process.wait()
    refine_all(case, whole)
    assert not any(shard["running"] for shard in read_state(whole).shards)


def test_a_shard_is_free_after_an_error(case, whole):
    folder = whole.shards_folder

    def fail(rows):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        refine_all(case, whole, found=fail)
    assert [*read_journal(folder, (1, 1))][-1]["reason"].startswith("ZeroDivisionError")
    with claimed(folder, (1, 1), whole.chunk_count):
        pass


# What is the same run, and what is not


def test_another_run_is_refused_with_the_difference(case, whole, tmp_path):
    with pytest.raises(InputError, match=r"samples\.chunk_size: 2 in the run, 3 now"):
        prepare(case, whole.path, chunk_size=3)
    with pytest.raises(InputError, match=r"samples\.count: 7 in the run, 5 now"):
        prepare(case, whole.path, limit=5)
    config = whole.path / "run.toml"
    text = config.read_text()
    config.write_text(text.replace('version = "', 'version = "0.0.'))
    with pytest.raises(InputError, match=r"program\.version: '0\.0\.\S+' in the run, '\S+' now"):
        prepare(case, whole.path)
    config.write_text(text)
    prepare(case, whole.path)


@pytest.mark.parametrize("name", ["starts.npy", "seismic/d.npy"])
def test_a_changed_input_is_noticed(tmp_path, name):
    case = write_inputs(tmp_path, NAMES)
    run = prepare(case, tmp_path / "run")
    array = np.load(tmp_path / name)
    (tmp_path / name).unlink()
    np.save(tmp_path / name, array + 1)
    what = "predictions" if name == "starts.npy" else "records"
    with pytest.raises(InputError, match=rf"inputs\.{what}: names, sizes or modification times"):
        prepare(case, run.path)


def test_inputs_may_be_moved(tmp_path):
    (tmp_path / "here").mkdir()
    run = prepare(write_inputs(tmp_path / "here", NAMES), tmp_path / "run")
    (tmp_path / "here").rename(tmp_path / "there")
    assert prepare(tmp_path / "there", run.path).hash == run.hash


def test_another_denoiser_is_noticed_where_it_is_used(case, tmp_path):
    """By what the file holds: it may be moved and written again."""

    def prepared(prior, weights, content=b"weights"):
        (tmp_path / weights).write_bytes(content)
        priors = load()
        priors = replace(
            priors,
            style_b_learned=replace(priors.style_b_learned, weights=str(tmp_path / weights)),
        )
        settings = replace(SETTINGS, prior=prior, priors=priors)
        return RunDirectory.prepare(tmp_path / prior, describe(open_case(case), settings, 2))

    run = prepared("learned", "a.npz")
    assert prepared("learned", "b.npz").hash == run.hash
    with pytest.raises(InputError, match="denoiser: other weights"):
        prepared("learned", "a.npz", b"Weights")
    prepared("auto", "a.npz")
    with pytest.raises(InputError, match="denoiser: other weights"):
        prepared("auto", "a.npz", b"Weights")
    assert prepared("tv", "a.npz").hash == prepared("tv", "a.npz", b"Weights").hash
    own = replace(SETTINGS, prior="learned")
    with pytest.raises(InputError, match="denoiser: other weights"):
        RunDirectory.prepare(run.path, describe(open_case(case), own, 2))


def test_directories_that_are_no_run(case, tmp_path):
    (tmp_path / "mine").write_text("not yours")
    for path, words in ((tmp_path, "holds other things"), (tmp_path / "mine", "holds other")):
        with pytest.raises(InputError, match=words):
            prepare(case, path)
    assert tree(tmp_path) == {tmp_path / "mine": b"not yours"}
    with pytest.raises(InputError, match="not a run directory"):
        RunDirectory(tmp_path)


def test_a_run_that_is_just_being_made_is_none_of_strangers(case, tmp_path):
    """What a process leaves that is killed, or has not finished, between its first two steps."""
    (tmp_path / ".run.toml.123.tmp").write_text("format")
    (tmp_path / "shards").mkdir()
    assert prepare(case, tmp_path).count == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("format = 1", "format = 2"), "found format 2, expected 1"),
        (lambda text: text.replace("count = 7", "count = -7"), "damaged"),
        (lambda text: text.replace("[samples]", "[sample]"), "damaged"),
        (lambda text: text[:500], "not a run directory|damaged"),
        (lambda text: "", "found format None"),
        (lambda text: "\x00", "not a run directory"),
    ],
)
def test_a_spoilt_table_of_a_run(whole, change, words):
    path = whole.path / "run.toml"
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=words):
        RunDirectory(whole.path)


# Journal and progress


def test_progress(case, tmp_path):
    run = prepare(case, tmp_path / "run")
    assert (read_state(run).done, read_state(run).shards) == (0, [])
    refine_all(case, run, shard=(1, 2))
    state = read_state(run)
    assert (state.samples, state.done, state.parts, state.chunks) == (7, 4, 2, 4)
    assert state.status == {"refined": 3, "failed": 1}
    assert state.families == {"layered": 3}
    assert state.rate is None
    (shard,) = state.shards
    assert shard["pid"] == os.getpid()
    assert (shard["done"], shard["chunks"], shard["running"]) == (2, 2, False)
    refine_all(case, run, shard=(2, 2))
    assert read_state(run).status == {"refined": 6, "failed": 1}


def test_the_rate_is_that_of_the_process_that_works_now(case, tmp_path):
    run = prepare(case, tmp_path / "run", chunk_size=2)
    seen = []
    refine_all(case, run, added=lambda rows: seen.append(read_state(run)))
    assert [state.done for state in seen] == [1, 2, 3, 4, 5, 6, 7]
    assert seen[0].rate is None
    assert all(state.rate > 0 and state.seconds_left >= 0 for state in seen[1:])


def test_a_line_of_the_journal_that_was_cut_is_left_out(whole):
    path = whole.shards_folder / "1-of-1.jsonl"
    before = [*read_journal(whole.shards_folder, (1, 1))]
    path.write_bytes(path.read_bytes()[:-20])
    Journal(whole.shards_folder, (1, 1)).write("later", note="ü\n")
    events = [*read_journal(whole.shards_folder, (1, 1))]
    assert events[:-1] == before[:-1]
    assert events[-1]["note"] == "ü\n"
    assert json.loads(path.read_text().splitlines()[-1]) == events[-1]


def test_a_run_without_its_journal_merges_without_seconds(whole, tmp_path):
    before = merged(whole, tmp_path)
    (whole.shards_folder / "1-of-1.jsonl").unlink()
    after = merged(whole, tmp_path)
    assert before[1] == after[1]
    np.testing.assert_array_equal(before[0], after[0])
