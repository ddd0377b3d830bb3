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
    """Worker processes die, or are not the ones that were expected (exit code 1)."""


class DeviceError(WorkerError, RuntimeError):
    """A GPU fails, or has too little memory for one sample: no process should go on with it."""


class PartError(FwiRefineError):
    """A stored part of a run is damaged or does not belong to it (exit code 1)."""


class RunError(FwiRefineError):
    """A run is in use by another process, or is not in the state that was asked for (code 1)."""


class MachineError(FwiRefineError):
    """The machine fails: a disk, a mount, memory. It says nothing of a sample (exit code 1)."""


class DamagedPartError(PartError):
    """The bytes of a part do not have the digest that its name gives."""
