"""Resources of a run: processes, threads, devices."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from fwi_refine.cli import options
from fwi_refine.limits import MAX_AT_A_TIME, MAX_THREADS, check_jobs, cores

if TYPE_CHECKING:
    from fwi_refine.runs.executors import Executor

# bytes of a GPU's memory for a sample: 6e9 (tests/test_device_memory.py), and what libraries take
MEMORY = 7 * 10**9
# The five shots of a sample are 40 thread blocks in float64, one to a multiprocessor: three samples
# fill 132 of them, and the fourth is for the times when one waits for the CPU (docs/gpu.md).
PER_GPU = 4
CHUNK = 4  # samples of a task for each one at a time, so that the last ones rarely wait for one


@dataclass(frozen=True)
class Resources:
    """Processes, threads and devices."""

    jobs: int | None  # None: one, or one for each GPU; 0: one for each core
    per_job: int | None  # None: one, on a GPU as many as memory allows
    threads: int | None  # None: as there are cores for each job
    dask: str | None
    device: str
    kernel: str = "auto"

    @property
    def gpus(self) -> list[str]:
        """As CUDA_VISIBLE_DEVICES names them. A job sees one; more jobs than GPUs share them."""
        return options.gpus(self.device)

    @property
    def kind(self) -> str:
        """Torch's name of a job's device. Raises InputError where --kernel does not run."""
        kind = "cuda" if self.gpus else "cpu"
        options.check_kernel(self.kernel, kind)
        return kind

    def for_samples(self, count: int) -> "Resources":
        """These, with the numbers of jobs, samples and threads that `count` samples get.

        Raises InputError for more jobs than the cores can serve.
        """
        if self.jobs is not None:
            check_jobs(self.jobs, "--jobs", least=0)
        jobs = (len(self.gpus) or 1) if self.jobs is None else (self.jobs or cores())
        jobs = max(1, min(jobs, count))
        threads = self.threads or (1 if self.dask else max(1, cores() // jobs))
        per_job = min(self.per_job or self._fitting(jobs), -(-count // jobs))
        return replace(self, jobs=jobs, threads=threads, per_job=per_job)

    def _fitting(self, jobs: int) -> int:
        if not self.gpus:
            return 1
        from fwi_refine.wave import gpu_memory

        sharing = -(-jobs // len(self.gpus))
        return max(1, min(PER_GPU, gpu_memory() // MEMORY) // sharing)

    def chunk_size(self, count: int) -> int:
        """Samples of a task, out of `count`; one, where a job works on one at a time."""
        if self.per_job == 1:
            return 1
        assert self.jobs  # see `for_samples`
        assert self.per_job
        return min(CHUNK * self.per_job, -(-count // self.jobs))

    @contextlib.contextmanager
    def executor(self) -> "Iterator[Executor]":
        """The executor of the samples; see runs/executors.py.

        Also one job is a process of its own: the run survives a sample that ends its process.
        """
        from fwi_refine.runs import executors

        if self.dask:
            with contextlib.closing(executors.Dask(self.dask)) as executor:
                yield executor
        else:
            assert self.jobs  # see `for_samples`
            assert self.threads
            yield executors.Processes(self.jobs, self.threads, self.gpus)

    def check(self) -> None:
        """Raises InputError where no scheduler or worker answers; starts nothing here."""
        if self.dask:
            with self.executor():
                pass

    def __str__(self) -> str:
        where = f"workers of {self.dask}" if self.dask else _count(self.jobs or 1, "job")
        if self.gpus:
            where += f" on {_count(len(self.gpus), 'GPU')}"
        if self.per_job and self.per_job > 1:
            where += f", {self.per_job} samples at a time each"
        return f"{where}, {_count(self.threads or 1, 'thread')} each"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


resources = options.grouped(
    Resources,
    "resources",
    "Where, and how many at a time",
    options.device,
    options.kernel,
    click.option(
        "--jobs",
        type=click.IntRange(min=0),
        metavar="N",
        help="Processes, of up to 6 GB; 0: one for each core. Default: 1, or one for each GPU.",
    ),
    click.option(
        "--per-job",
        type=click.IntRange(1, MAX_AT_A_TIME),
        metavar="N",
        help="Samples at a time in each process; they share its GPU and take some 6 GB of its "
        "memory each. Default: on GPUs up to 4, as memory allows; else 1.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1, MAX_THREADS),
        metavar="N",
        help="Threads of each job. Default: the cores divided by --jobs; with --dask, 1.",
    ),
    click.option(
        "--dask",
        metavar="ADDRESS",
        help="Use the workers of the Dask scheduler at ADDRESS, such as tcp://host:8786.",
    ),
)
