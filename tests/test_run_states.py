"""Whatever happens to a run directory, in any order: it is continued to the same result."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from run_cases import expected_maps, merged, prepare, refine_all, trivial, write_inputs

from fwi_refine.errors import PartError, RunError
from fwi_refine.runs.directory import RunDirectory, check_parts, merge, read_state

NAMES = ["a", "bad", "b", "c", "d", "e", "f", "g", "h"]
CHUNK_SIZE = 2
CHUNKS = 5


class Crash(BaseException):
    """Ends a process of the test as a signal would: nothing in the program handles it."""


class Runs(RuleBasedStateMachine):
    """A run directory, and what must be in it: the chunks that are sound and those that are not."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.case = write_inputs(self.folder, NAMES)
        self.run = prepare(self.case, self.folder / "run", CHUNK_SIZE)
        self.sound, self.damaged = set(), set()

    def teardown(self):
        shutil.rmtree(self.folder)

    @rule(shard=st.sampled_from([(1, 1), (1, 2), (2, 2), (3, 7)]), data=st.data())
    def work(self, shard, data):
        """Works on a shard, to its end or until the process ends after or while storing a part."""
        chunks = set(self.run.chunks(shard))
        todo = sorted(chunks - self.sound)
        stop = data.draw(st.integers(0, len(todo)))
        torn = data.draw(st.booleans())
        calls, added = [], []

        def refine(sample, settings, watch=None):
            calls.append(sample.id)
            if stop < len(todo) and sample.id == NAMES[todo[stop] * CHUNK_SIZE]:
                if torn:
                    place = self.run.parts_folder / f".part-{todo[stop]:06d}.99.tmp"
                    place.write_bytes(b"torn")
                raise Crash
            return trivial(sample, settings)

        try:
            refine_all(self.case, self.run, None, shard, refine, added=added.extend)
        except Crash:
            todo = todo[:stop]
        assert [row.id for row in added] == [
            name for n in todo for name in NAMES[n * CHUNK_SIZE : (n + 1) * CHUNK_SIZE]
        ]
        self.sound |= set(todo)
        self.damaged -= chunks

    @rule()
    def open_again(self):
        self.run = RunDirectory(self.folder / "run")

    @precondition(lambda self: self.sound)
    @rule(data=st.data())
    def corrupt(self, data):
        number = data.draw(st.sampled_from(sorted(self.sound)))
        (path,) = self.run.parts()[number]
        kind = data.draw(st.sampled_from(["flip", "cut", "remove", "swap"]))
        size = path.stat().st_size
        place = data.draw(st.integers(0, size - 1))
        if kind == "flip":
            content = bytearray(path.read_bytes())
            content[place] ^= 1 << data.draw(st.integers(0, 7))
            path.write_bytes(content)
        elif kind == "cut":
            os.truncate(path, place)
        elif kind == "remove":
            path.unlink()
        else:
            other = data.draw(st.integers(0, CHUNKS - 1).filter(lambda n: n != number))
            if other in self.run.parts():
                return
            path.rename(str(path).replace(f"-{number:06d}-", f"-{other:06d}-"))
            self.damaged.add(other)
        self.sound.remove(number)
        if kind in ("flip", "cut"):
            self.damaged.add(number)

    @rule()
    def put_together(self):
        if len(self.sound) == CHUNKS:
            maps, report = merged(self.run, self.folder)
            np.testing.assert_array_equal(maps, expected_maps(self.case))
            assert [line[0] for line in report[1:]] == NAMES
            return
        out = self.folder / "never.npy"
        with pytest.raises((RunError, PartError)):
            merge([self.run], out, out.with_suffix(".csv"))
        assert not out.exists()

    @invariant()
    def what_is_sound_and_what_is_not_is_known(self):
        found = dict(check_parts(self.run))
        assert {number for number, problem in found.items() if problem is None} == self.sound
        assert {number for number, problem in found.items() if problem} == self.damaged
        assert read_state(self.run).parts == len(self.sound | self.damaged)


Runs.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestRuns = Runs.TestCase


@pytest.mark.slow
class TestManyRuns(Runs.TestCase):
    """The same with more examples."""

    settings = settings(Runs.TestCase.settings, max_examples=50)
