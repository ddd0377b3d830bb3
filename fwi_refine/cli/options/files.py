"""The survey and the priors that a command was given as files, and parts that hold nothing."""

from fwi_refine.errors import InputError
from fwi_refine.survey import OPENFWI, Survey, read_survey


def load_survey(path) -> Survey:
    """The survey of a file, or OpenFWI's. Raises InputError."""
    return OPENFWI if path is None else read_survey(path)


def load_priors(path):
    """The built-in priors, or those of a file. Raises InputError if it is none."""
    from fwi_refine.priors import load

    try:
        return load(path)
    except (OSError, ValueError) as error:
        raise InputError(f"--priors {path}: {error}") from error


def need_some(items, shard, what):
    """Raises InputError where a part of the samples holds none; what: they are called."""
    if not items:
        i, n = shard
        raise InputError(f"--shard {i}/{n}: no {what} in this part")
