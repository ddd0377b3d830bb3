"""The CUDA kernels (kernels/cuda/wave.cu): compiled at run time, cached, loaded and launched.

cuda.core compiles them for the card (NVRTC) and loads them, so that no CUDA toolkit is needed;
the launch itself goes through cuda.bindings, as cuda.core neither takes a structure as a kernel's
argument nor raises its limit of shared memory. Launches go to torch's current stream.
"""

import ctypes
import functools
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fwi_refine.errors import DeviceError
from fwi_refine.survey import Survey
from fwi_refine.wave.cuda.layout import FIELDS, Layout, choose_layout
from fwi_refine.wave.identity import identity

KERNELS = Path(__file__).parents[1] / "kernels"
SOURCES = (
    *("cuda/wave.cu", "cuda/cluster.h", "cuda/blocks.h", "cuda/sweeps.h", "cuda/thread.h"),
    *("cuda/columns.h", "cuda/fields.h", "cuda/call.h", "step.h"),
)
REALS = {torch.float32: "float", torch.float64: "double"}
UNROLLED = 20  # up to so many rows of a thread are compiled one by one; where there are more,
SLIDE = 5  # so many at a time are, and the five rows in registers need not be moved
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


def defines(layout: Layout, survey: Survey, dtype: torch.dtype) -> list[tuple[str, str]]:
    """Macros that wave.cu is compiled with.

    Parameters
    ----------
    layout : Layout
        How a shot is spread over threads.
    survey : Survey
        The survey.
    dtype : torch.dtype
        float32 or float64.

    Returns
    -------
    list of tuple of str
        Names and values.
    """
    constants = layout.constants(survey)
    values = {
        "REAL": REALS[dtype],
        "FWI_BLOCKS": layout.blocks,
        "FWI_SHARED": int(layout.shared),
        "FWI_SIDE": layout.side,
        "FWI_HALO": layout.halo,
        "FWI_UNROLL": constants["strip_rows"] if constants["strip_rows"] <= UNROLLED else SLIDE,
        "FWI_RESIDENT": layout.resident,
        **{f"FWI_{name.upper()}": value for name, value in constants.items()},
    }
    return [(name, str(value)) for name, value in values.items()]


def cubin(macros: Sequence[tuple[str, str]], arch: str) -> bytes:
    """Machine code of wave.cu, from the cache or compiled; no GPU is needed for that.

    Parameters
    ----------
    macros : sequence of tuple of str
        Names and values.
    arch : str
        Of the card, such as "sm_90".

    Returns
    -------
    bytes
        The code.

    Raises
    ------
    RuntimeError
        With the compiler's log.
    """
    from cuda.bindings import nvrtc
    from cuda.core import Program as Source
    from cuda.core import ProgramOptions

    sources = [(KERNELS / name).read_text() for name in SOURCES]
    version = nvrtc.nvrtcVersion()[1:]
    key = hashlib.sha256(repr((sources, macros, arch, version)).encode()).hexdigest()

    def compiled() -> bytes:
        folder = str(KERNELS / "cuda")
        options = ProgramOptions(arch=arch, define_macro=macros, include_path=[folder])
        try:
            return bytes(Source(sources[0], "c++", options).compile("cubin").code)
        except Exception as error:
            raise RuntimeError(f"wave.cu cannot be compiled for {arch}: {error}") from error

    return cached(cache_folder() / f"{key}.cubin", compiled)


def cache_folder() -> Path:
    """Where compiled kernels are kept.

    Returns
    -------
    Path
        fwi-refine in XDG_CACHE_HOME, by default in ~/.cache.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fwi-refine"


def cached(path: Path, make: Callable[[], bytes]) -> bytes:
    """What stands in a file of the cache, or is made and kept there.

    A cache that cannot be written costs time and nothing else.

    Parameters
    ----------
    path : Path
        The file.
    make : callable
        Called where the file is missing or damaged.

    Returns
    -------
    bytes
        The content.
    """
    with suppress(OSError):
        stored = path.read_bytes()
        digest, content = stored[:32], stored[32:]
        if hashlib.sha256(content).digest() == digest:
            return content
    content = make()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(hashlib.sha256(content).digest() + content)
                file.close()
                os.replace(file.name, path)  # whole or not at all, also with two at once
            except OSError:
                os.unlink(file.name)
                raise
    return content


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
    """What a call of the driver returned after its status.

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
