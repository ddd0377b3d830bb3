"""Simulations in forked processes, whose parent may have simulated with several threads."""

import os
import subprocess
import sys

import pytest
from wave_cases import NATIVE

pytestmark = [
    NATIVE,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here"),
    pytest.mark.process,
]

HEAD = """
import os, threading, torch
from fwi_refine.survey import Survey
from fwi_refine.wave import Simulator, WaveSimulator
torch.set_num_threads(2)
survey = Survey(shape=(12, 12), n_steps=100, absorbing_cells=20, sources=((1, 0), (1, 6), (1, 11)),
                receivers=((1, 3),), velocity_bounds=(1000.0, 5000.0))
v = torch.full((2, 12, 12), 2000.0)
"""
LOADER = """
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, k):
        return WaveSimulator(survey)(v[:1] + 10 * k)[0]
expected = [Data()[k] for k in range(4)] if PARENT_FIRST else []
loader = torch.utils.data.DataLoader(Data(), num_workers=2, batch_size=None,
                                     multiprocessing_context="fork")
found = list(loader)
assert len(found) == 4
assert all(torch.equal(a, b) for a, b in zip(found, expected))
"""
# a fork while another thread of the parent simulates, with the kernel's lock in its hands
LOCKED = """
simulator = Simulator(survey, torch.float32, threads=2)
expected = simulator.forward(v)
with simulator._kernel._lock:
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(simulator.forward(v), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
assert torch.equal(simulator.forward(v), expected)
"""
# the parent's kernel has gone before the fork, the threads that it made have not
GONE = """
def simulated():
    return Simulator(survey, torch.float32, threads=2).forward(v)
expected = simulated()
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(simulated(), expected) else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def run(script):
    """Runs it in a process of its own, whose children are ended with it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + script],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    try:
        _, errors = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        pytest.fail("hangs")
    assert process.returncode == 0, errors


@pytest.mark.parametrize("parent_first", [True, False])
def test_a_forked_data_loader(parent_first):
    run(LOADER.replace("PARENT_FIRST", str(parent_first)))


def test_a_fork_while_another_thread_simulates():
    run(LOCKED)


def test_a_fork_after_the_kernel_has_gone():
    run(GONE)
