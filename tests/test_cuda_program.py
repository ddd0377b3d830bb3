"""What `program.Program` asks the driver, noted in the place of a card that is not there."""

import contextlib
import ctypes
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fwi_refine.errors import DeviceError
from fwi_refine.survey import OPENFWI
from fwi_refine.wave.cuda import program as cuda
from fwi_refine.wave.cuda.kernel import _CudaCall
from fwi_refine.wave.cuda.layout import CLUSTER, Layout

driver = pytest.importorskip("cuda.bindings.driver", reason="the extra [gpu] is not installed")
STREAM, FUNCTION = 5, 7
SUCCESS = driver.CUresult.CUDA_SUCCESS


class Card:
    """As the driver describes it: room for `clusters` clusters; `status` of the next launch."""

    def __init__(self):
        self.clusters, self.status = 3, SUCCESS
        self.asked, self.launched, self.loaded = [], [], []

    def room(self, function, config):
        grid = config.gridDimX, config.gridDimY, config.gridDimZ
        block = config.blockDimX, config.blockDimY, config.blockDimZ
        self.asked.append((int(function), grid, block, config.sharedMemBytes))
        return SUCCESS, self.clusters

    def launch(self, function, *rest):
        *shape, memory, stream, parameters, extra = rest
        argument = ctypes.cast(parameters, ctypes.POINTER(ctypes.c_uint64))[0]
        steps = ctypes.cast(argument, ctypes.POINTER(_CudaCall))[0].n_steps
        self.launched.append((int(function), shape, memory, stream, steps, extra))
        return (self.status,)

    def load(self, program, *key):
        threading.Event().wait(0.05)  # so that others come meanwhile
        self.loaded.append(key)
        return None, driver.CUfunction(FUNCTION)


@pytest.fixture
def card(monkeypatch):
    card = Card()
    monkeypatch.setattr(driver, "cuOccupancyMaxActiveClusters", card.room)
    monkeypatch.setattr(driver, "cuLaunchKernel", card.launch)
    monkeypatch.setattr(cuda.Program, "_load", lambda *args: card.load(*args))
    monkeypatch.setattr(cuda.Program, "_current", lambda self: contextlib.nullcontext())
    stream = types.SimpleNamespace(cuda_stream=STREAM)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    return card


@pytest.fixture
def program(card):
    program = cuda.Program.__new__(cuda.Program)
    program.device = torch.device("cuda", 0)
    program._capability, program._shared_memory = (9, 0), 227 << 10
    program._functions, program._lock = {}, threading.Lock()
    return program


def test_room_for_a_cluster_is_asked_for(card, program):
    layout = program.layout("forward", OPENFWI, torch.float64)
    assert layout.blocks == CLUSTER
    memory = 2 * (39 + 4) * 310 * 8
    assert card.asked == [(FUNCTION, (8, 1, 1), (layout.threads, 1, 1), memory)]
    card.clusters = 0
    layout = program.layout("forward", OPENFWI, torch.float64)
    assert (layout.blocks, layout.shared) == (1, False)


def launch(program, kernel="forward"):
    layout = Layout(8, 160, 3, side=2, halo=2, shared=True)
    program.launch(kernel, layout, OPENFWI, torch.float32, _CudaCall(n_steps=999), 5)


def test_a_launch_has_its_structure_and_the_stream_of_its_thread(card, program):
    launch(program)
    memory = 2 * (39 + 4) * 310 * 4
    assert card.launched == [(FUNCTION, [8, 5, 1, 480, 1, 1], memory, STREAM, 999, 0)]
    card.status = driver.CUresult.CUDA_ERROR_LAUNCH_FAILED
    with pytest.raises(DeviceError, match="forward of 5 shots: CUDA_ERROR_LAUNCH_FAILED"):
        launch(program)


def test_threads_load_a_kernel_once(card, program):
    """Of two loaded ones the first would be unloaded, maybe while it runs."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda k: launch(program, ("forward", "adjoint")[k % 2]), range(8)))
    assert sorted(key[0] for key in card.loaded) == ["adjoint", "forward"]
    assert len(card.launched) == 8
