"""Builds the compiled wave kernel where there is a C compiler; the metadata is in setup.cfg.

Without a compiler the installation succeeds all the same, and the program uses its slow torch
reference, with a warning.
"""

import contextlib
import sys
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

KERNELS = "fwi_refine/wave/kernels"


class BuildKernel(build_ext):
    """Tries OpenMP first, then a kernel that runs on one core, then gives up without failing."""

    def build_extension(self, extension):
        openmp = ["-Xpreprocessor", "-fopenmp"] if sys.platform == "darwin" else ["-fopenmp"]
        link = ["-lomp"] if sys.platform == "darwin" else ["-fopenmp"]
        plain = list(extension.extra_compile_args), list(extension.extra_link_args)
        extension.extra_compile_args = plain[0] + openmp
        extension.extra_link_args = plain[1] + link
        try:
            super().build_extension(extension)
        except (CompileError, LinkError):
            print("fwi-refine: no OpenMP; trying to build the wave kernel for one core")
            extension.extra_compile_args, extension.extra_link_args = plain
            super().build_extension(extension)


def wait_for_other_builds():
    """They share the folder build/: one of two would take the other's half-written kernel.

    Returns what is to be kept until the end: the lock is free when it is closed. Some systems and
    network disks have no such locks.
    """
    file = open(__file__)  # noqa: SIM115
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
    return file


LOCK = wait_for_other_builds()
setup(
    cmdclass={"build_ext": BuildKernel},
    ext_modules=[
        Extension(
            "fwi_refine.wave._kernel",
            sources=[f"{KERNELS}/cpu/wave.c"],
            depends=[f"{KERNELS}/step.h", *glob(f"{KERNELS}/cpu/*.h")],
            # -ffp-contract=fast would be the default of GCC alone: stated, so that all agree
            extra_compile_args=["-O3", "-ffp-contract=fast"],
            extra_link_args=["-lm"],
            optional=True,
        )
    ],
)
