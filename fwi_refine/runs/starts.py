"""Maps to start from for many records, on any executor."""

from fwi_refine.errors import SampleError, WorkerError
from fwi_refine.inversion import initial_model
from fwi_refine.runs import gpu_streams


def each_made(executor, make, tasks):
    """((number, record), map or the error that says why there is none) of each record of the tasks,
    which are lists; a record whose process dies costs no other its map."""
    for task, found in executor.map(make, tasks):
        if not isinstance(found, WorkerError):
            yield from zip(task, found, strict=True)
        elif len(task) == 1:
            yield task[0], found
        else:
            yield from each_made(executor, make, [[one] for one in task])


def make_starts(task, per_job, **how):
    """The map of each record of a task, or the SampleError that says why there is none."""

    def make(numbered):
        _, record = numbered
        try:
            with gpu_streams.one_thread():
                return initial_model.start_from_record(record.read(0), **how)
        except SampleError as error:
            return error
        except Exception as error:
            if trouble := gpu_streams.trouble(error):
                raise trouble from None
            # a defect that one record brings to light must not cost the others their maps
            return SampleError(f"{type(error).__name__}: {error}")

    return gpu_streams.each(make, task, per_job, how["device"])
