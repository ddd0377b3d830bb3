"""The GPUs, and the CUDA kernels (compiler.py) loaded and launched on one of them.

cuda.core loads them; the launch itself goes through cuda.bindings, as cuda.core neither takes a
structure as a kernel's argument nor raises its limit of shared memory. Launches go to torch's
current stream.
"""

import ctypes
import functools
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from fwi_refine.errors import DeviceError
from fwi_refine.survey import Survey
from fwi_refine.wave.cuda.compiler import cubin, defines
from fwi_refine.wave.cuda.layout import FIELDS, Layout, choose_layout
from fwi_refine.wave.identity import identity

EXTRA = 'pip install "fwi-refine[gpu]"'


def problem() -> str | None:
    """Say why the CUDA kernels cannot be used here.

    Returns
    -------
    str or None
        None where they can.
    """
    if not torch.cuda.is_available():
        built = "finds no GPU" if torch.version.cuda else "was installed without CUDA"
        return f"torch {torch.__version__} {built}"
    try:
        import cuda.bindings.driver  # noqa: F401
        from cuda.bindings import nvrtc
        from cuda.core import Device, ObjectCode, Program, ProgramOptions  # noqa: F401
    except ImportError as error:
        return f"the extra for GPUs is missing or not complete ({error}): {EXTRA}"
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:  # torch for CUDA brings it along
        return f"CUDA's compiler is missing ({error}): pip install nvidia-cuda-nvrtc"
    return None


def devices() -> list[str]:
    """The GPUs that torch can use, by its own operations where the CUDA kernels cannot be.

    Returns
    -------
    list of str
        As CUDA_VISIBLE_DEVICES names them; empty without any.
    """
    if not torch.cuda.is_available():
        return []
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    count = torch.cuda.device_count()
    return [names[i].strip() if i < len(names) and names[i] else str(i) for i in range(count)]


def memory() -> int:
    """Memory of the smallest visible GPU.

    Returns
    -------
    int
        Bytes; 0 without any GPU.
    """
    count = torch.cuda.device_count()
    sizes = (torch.cuda.get_device_properties(i).total_memory for i in range(count))
    return min(sizes, default=0)


def existing(device: torch.device) -> torch.device:
    """A GPU with its number.

    Parameters
    ----------
    device : torch.device
        Such as torch.device("cuda") for the current one.

    Returns
    -------
    torch.device
        With an index.

    Raises
    ------
    RuntimeError
        For one that is not there, saying why.
    """
    if not torch.cuda.is_available():
        raise RuntimeError(f"the CUDA kernels cannot be used: {problem()}")
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise RuntimeError(
            f"device cuda:{index}: expected one of the {torch.cuda.device_count()} GPUs"
        )
    return torch.device("cuda", index)


@functools.cache
def program(device: torch.device) -> "Program":
    """The one Program of a device, with what it has loaded.

    Parameters
    ----------
    device : torch.device
        Such as torch.device("cuda", 1).

    Returns
    -------
    Program
        The same each time.
    """
    return Program(device)


class Program:
    """The kernels on one GPU, as `kernel.BlockKernel` launches them.

    Parameters
    ----------
    device : str or torch.device
        Such as "cuda" or "cuda:1".

    Raises
    ------
    RuntimeError
        Where it cannot be used, saying why.
    """

    def __init__(self, device: str | torch.device = "cuda"):
        reason = problem()
        if torch.device(device).type != "cuda":
            reason = f"they are for NVIDIA's GPUs, not for {device}"
        if reason is not None:
            raise RuntimeError(f"the CUDA kernels cannot be used: {reason}")
        self.device = existing(torch.device(device))
        properties = torch.cuda.get_device_properties(self.device)
        self._capability = (properties.major, properties.minor)
        # torch has it, its types do not
        self._shared_memory: int = properties.shared_memory_per_block_optin  # type: ignore[attr-defined]
        self._arch = f"sm_{properties.major}{properties.minor}"
        # (kernel, macros, memory) -> (what keeps it loaded, its handle)
        self._functions: dict[tuple[str, tuple[tuple[str, str], ...], int], tuple[Any, Any]] = {}
        self._lock = threading.Lock()
        self.name = f"cuda {properties.name}"
        self.identity = identity("cuda", self.device)

    def layout(self, kernel: str, survey: Survey, dtype: torch.dtype) -> Layout:
        """The layout of a kernel for a survey."""

        def has_room(layout: Layout) -> bool:
            return self.room(kernel, layout, survey, dtype) > 0

        card = self._capability, self._shared_memory
        return choose_layout(survey, FIELDS[kernel], dtype.itemsize, *card, has_room)

    def launch(
        self,
        kernel: str,
        layout: Layout,
        survey: Survey,
        dtype: torch.dtype,
        call: ctypes.Structure,
        tasks: int,
    ) -> None:
        """Starts a kernel on torch's current stream. Raises DeviceError if CUDA refuses."""
        from cuda.bindings import driver

        arguments = np.array([ctypes.addressof(call)], dtype=np.uint64)  # copied by the launch
        grid, block = (layout.blocks, tasks, 1), (layout.threads, 1, 1)
        with self._current():
            function, memory = self._function(kernel, layout, survey, dtype)
            stream = torch.cuda.current_stream(self.device).cuda_stream
            check(
                driver.cuLaunchKernel(
                    function, *grid, *block, memory, stream, arguments.ctypes.data, 0
                ),
                f"{kernel} of {tasks} shots",
            )

    def release(self) -> None:
        """Gives memory that torch keeps for later back to the card."""
        torch.cuda.empty_cache()

    def room(self, kernel: str, layout: Layout, survey: Survey, dtype: torch.dtype) -> int:
        """How many clusters the device, which may be a part of a card, can hold at a time."""
        from cuda.bindings import driver

        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = layout.blocks, 1, 1
        config.blockDimX, config.blockDimY, config.blockDimZ = layout.threads, 1, 1
        with self._current():
            function, config.sharedMemBytes = self._function(kernel, layout, survey, dtype)
            found = driver.cuOccupancyMaxActiveClusters(function, config)
        (count,) = check(found, f"room for a cluster of {layout.blocks} blocks")
        return int(count)

    def _function(
        self, kernel: str, layout: Layout, survey: Survey, dtype: torch.dtype
    ) -> tuple[Any, int]:
        """The loaded kernel, which stays loaded as long as this object, and the bytes of shared
        memory that a block of it takes."""
        memory = layout.memory(survey.padded_shape, FIELDS[kernel], dtype.itemsize)
        macros = tuple(defines(layout, survey, dtype))
        key = kernel, macros, memory
        with self._lock:  # of two threads that load it, one would unload what the other runs
            if key not in self._functions:
                self._functions[key] = self._load(*key)
        return self._functions[key][1], memory

    def _load(
        self, kernel: str, macros: tuple[tuple[str, str], ...], memory: int
    ) -> tuple[Any, Any]:
        from cuda.bindings import driver
        from cuda.core import ObjectCode

        code = cubin(list(macros), self._arch)
        loaded = ObjectCode.from_cubin(code).get_kernel(kernel)
        handle = driver.CUkernel(int(loaded.handle))
        (device,) = check(driver.cuDeviceGet(self.device.index), "cuDeviceGet")
        limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        check(
            driver.cuKernelSetAttribute(limit, memory, handle, device),
            f"{memory} bytes of shared memory",
        )
        return loaded, driver.CUfunction(int(handle))

    @contextmanager
    def _current(self) -> Iterator[None]:
        """This thread in torch's context of the device, as a thread that has not used the GPU is
        in none; afterwards it has the device that it had before."""
        from cuda.core import Device

        with torch.cuda.device(self.device):
            Device(self.device.index).set_current()
            yield


def check(result: Sequence[Any], what: str) -> list[Any]:
    """The values that a call of the driver returned after its status.

    Parameters
    ----------
    result : sequence
        Status and values.
    what : str
        Names the call in a message.

    Returns
    -------
    list
        The values.

    Raises
    ------
    DeviceError
        If it failed.
    torch.OutOfMemoryError
        If memory ran out.
    """
    status, *values = result
    if int(status):
        kind = torch.OutOfMemoryError if status.name.endswith("OUT_OF_MEMORY") else DeviceError
        raise kind(f"{what}: {status.name}")
    return values
