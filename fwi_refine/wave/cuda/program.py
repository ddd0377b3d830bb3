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
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch

from fwi_refine.errors import DeviceError
from fwi_refine.survey import Survey
from fwi_refine.wave.cuda.layout import FIELDS, Layout, choose_layout

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
    """Why the CUDA kernels cannot be used here; None where they can."""
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
    """The GPUs that can be used, as CUDA_VISIBLE_DEVICES names them; empty without any."""
    if problem() is not None:
        return []
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    count = torch.cuda.device_count()
    return [names[i].strip() if i < len(names) and names[i] else str(i) for i in range(count)]


def memory() -> int:
    """Bytes of memory of the smallest visible GPU; 0 without any."""
    count = torch.cuda.device_count()
    sizes = (torch.cuda.get_device_properties(i).total_memory for i in range(count))
    return min(sizes, default=0)


def defines(layout: Layout, survey: Survey, dtype: torch.dtype) -> list[tuple[str, str]]:
    """Macros that wave.cu is compiled with."""
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


def cubin(macros, arch: str) -> bytes:
    """Machine code of wave.cu for a card such as "sm_90", from the cache or compiled; no GPU is
    needed for that. Raises RuntimeError with the compiler's log."""
    from cuda.bindings import nvrtc
    from cuda.core import Program as Source
    from cuda.core import ProgramOptions

    sources = [(KERNELS / name).read_text() for name in SOURCES]
    version = nvrtc.nvrtcVersion()[1:]
    key = hashlib.sha256(repr((sources, macros, arch, version)).encode()).hexdigest()

    def compiled():
        folder = str(KERNELS / "cuda")
        options = ProgramOptions(arch=arch, define_macro=macros, include_path=[folder])
        try:
            return bytes(Source(sources[0], "c++", options).compile("cubin").code)
        except Exception as error:
            raise RuntimeError(f"wave.cu cannot be compiled for {arch}: {error}") from error

    return cached(cache_folder() / f"{key}.cubin", compiled)


def cache_folder() -> Path:
    """Where compiled kernels are kept: XDG_CACHE_HOME, by default ~/.cache, then fwi-refine."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fwi-refine"


def cached(path: Path, make) -> bytes:
    """What stands in a file of the cache; where it is missing or damaged, make(), which is kept.

    A cache that cannot be written costs time and nothing else.
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
    """The one Program of a device such as torch.device("cuda", 1), with what it has loaded."""
    return Program(device)


class Program:
    """The kernels on one GPU, as `kernel.BlockKernel` launches them.

    device: such as "cuda" or "cuda:1". Raises RuntimeError, saying why, where there is none.
    """

    def __init__(self, device="cuda"):
        reason = problem()
        if reason is not None:
            raise RuntimeError(f"the CUDA kernels cannot be used: {reason}")
        device = torch.device(device)
        index = torch.cuda.current_device() if device.index is None else device.index
        if index >= torch.cuda.device_count():
            raise RuntimeError(
                f"device cuda:{index}: expected one of the {torch.cuda.device_count()} GPUs"
            )
        self.device = torch.device("cuda", index)
        properties = torch.cuda.get_device_properties(self.device)
        self._capability = (properties.major, properties.minor)
        self._shared_memory = properties.shared_memory_per_block_optin
        self._arch = f"sm_{properties.major}{properties.minor}"
        self._functions, self._lock = {}, threading.Lock()
        self.name = f"cuda {properties.name}"

    def layout(self, kernel, survey, dtype) -> Layout:
        """The layout of a kernel for a survey."""

        def has_room(layout):
            return self.room(kernel, layout, survey, dtype) > 0

        card = self._capability, self._shared_memory
        return choose_layout(survey, FIELDS[kernel], dtype.itemsize, *card, has_room)

    def launch(self, kernel, layout, survey, dtype, call, tasks):
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

    def release(self):
        """Gives memory that torch keeps for later back to the card."""
        torch.cuda.empty_cache()

    def room(self, kernel, layout, survey, dtype) -> int:
        """How many clusters the device, which may be a part of a card, can hold at a time."""
        from cuda.bindings import driver

        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = layout.blocks, 1, 1
        config.blockDimX, config.blockDimY, config.blockDimZ = layout.threads, 1, 1
        with self._current():
            function, config.sharedMemBytes = self._function(kernel, layout, survey, dtype)
            found = driver.cuOccupancyMaxActiveClusters(function, config)
        (count,) = check(found, f"room for a cluster of {layout.blocks} blocks")
        return count

    def _function(self, kernel, layout, survey, dtype):
        """The loaded kernel, which stays loaded as long as this object, and the bytes of shared
        memory that a block of it takes."""
        memory = layout.memory(survey.padded_shape, FIELDS[kernel], dtype.itemsize)
        macros = tuple(defines(layout, survey, dtype))
        key = kernel, macros, memory
        with self._lock:  # of two threads that load it, one would unload what the other runs
            if key not in self._functions:
                self._functions[key] = self._load(*key)
        return self._functions[key][1], memory

    def _load(self, kernel, macros, memory):
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
    def _current(self):
        """This thread in torch's context of the device, as a thread that has not used the GPU is
        in none; afterwards it has the device that it had before."""
        from cuda.core import Device

        with torch.cuda.device(self.device):
            Device(self.device.index).set_current()
            yield


def check(result, what):
    """What a call of the driver returned after its status. Raises DeviceError if it failed, or
    torch.OutOfMemoryError."""
    status, *values = result
    if int(status):
        kind = torch.OutOfMemoryError if status.name.endswith("OUT_OF_MEMORY") else DeviceError
        raise kind(f"{what}: {status.name}")
    return values
