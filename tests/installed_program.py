"""An installed program, run in a folder through its command line and its public names."""

import csv
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress

from process_cases import wait_for

PYTHON = os.environ.get("FWI_REFINE_PYTHON", sys.executable)
PROGRAM = [PYTHON, "-c", "from fwi_refine.cli import main; main()"]
# What scripts begin with: a survey that every version can make.
HEAD = """
import numpy as np, os, signal, torch
from dataclasses import replace
from fwi_refine import OPENFWI, InputError, RecordMisfit, WaveSimulator, simulate
torch.set_num_threads(2)
survey = replace(OPENFWI, shape=(20, 25), absorbing_cells=25, velocity_bounds=(1400.0, 5000.0),
                 n_steps=400, file_rows=400, sources=((1, 2), (1, 20)),
                 receivers=tuple((1, c) for c in range(25)))
"""


class Here:
    """A folder with the inputs of 12 samples, and the program that runs in it."""

    def __init__(self, folder):
        self.folder = folder

    def start(self, arguments, **more):
        more = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True} | more
        return subprocess.Popen(
            [str(a) for a in arguments], cwd=self.folder, start_new_session=True, **more
        )

    def run(self, *arguments, program=PROGRAM, timeout=900, **more):
        """Runs the program to its end, at the latest after `timeout` s; its code and messages."""
        process = self.start([*program, *arguments], **more)
        try:
            out, error = process.communicate(timeout=timeout)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert "Traceback" not in (error or ""), error
        return subprocess.CompletedProcess(arguments, process.returncode, out, error)

    def script(self, text, timeout=300):
        """Runs Python behind HEAD; fails where it does."""
        done = self.run(program=[PYTHON, "-c", HEAD + text], timeout=timeout)
        assert done.returncode == 0, done.stderr

    @contextmanager
    def running(self, *arguments):
        process = self.start([*PROGRAM, *arguments])
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def rows(self, name):
        with open(self.folder / name, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def parts(self, run="run"):
        with suppress(FileNotFoundError):
            return sorted(n for n in os.listdir(self.folder / run / "parts") if n[0] == "p")
        return []

    def wait_for_parts(self, process, count, run="run"):
        ended = wait_for(lambda: len(self.parts(run)) >= count or process.poll() is not None, 600)
        assert ended
        assert process.poll() is None, "it ended before the fault"
