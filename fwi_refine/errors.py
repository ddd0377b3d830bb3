"""The errors that this program raises on purpose, so that a caller can tell them from defects."""


class FwiRefineError(Exception):
    """Base of every error raised on purpose."""


class InputError(FwiRefineError, ValueError):
    """The input as a whole cannot be used: nothing is written (exit code 2)."""


class SampleError(FwiRefineError, ValueError):
    """One sample cannot be used: it fails alone, its neighbours are not touched (exit code 3)."""


class OutputExistsError(FwiRefineError):
    """An output stands already and overwriting was not asked for (exit code 2)."""


class WorkerError(FwiRefineError):
    """A worker process died, for instance because memory ran out (exit code 1)."""
