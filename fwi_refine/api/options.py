"""Options of the Python interface: families, devices, and arrays that look like something else."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_refine import routing
from fwi_refine.errors import InputError, SampleError
from fwi_refine.inversion import families
from fwi_refine.priors import Priors
from fwi_refine.priors import load as load_priors
from fwi_refine.routing.checks.inputs import ADVICE_FOR_ARRAYS, check_pairs
from fwi_refine.survey import Survey
from fwi_refine.survey.validate import to_numpy
from fwi_refine.wave import devices, gpu_problem


def check_choice(name: str, choice: str, choices: Sequence[str]) -> None:
    """Check an option that is one of a few words.

    Parameters
    ----------
    name : str
        Of the option.
    choice : str
        Its value.
    choices : sequence of str
        All values that it may have.

    Raises
    ------
    InputError
        For another one.
    """
    if not isinstance(choice, str) or choice not in choices:
        raise InputError(f"{name} {choice!r}: expected one of {', '.join(choices)}")


def check_priors(priors: Priors | None) -> Priors:
    """Those that were given, else OpenFWI's. Raises InputError for what are none."""
    if priors is None:
        return load_priors()
    if not isinstance(priors, Priors):
        raise InputError(f"priors {priors!r}: expected Priors; load_priors reads a TOML file")
    return priors


def families_of(family: str | Sequence[str], count: int, survey: Survey) -> str | tuple[str, ...]:
    """The families of some samples.

    Parameters
    ----------
    family : str or sequence of str
        As `refine` takes it.
    count : int
        Of the samples.
    survey : Survey
        Its families may be told from the samples, or not.

    Returns
    -------
    str or tuple of str
        A name for all samples, or one for each.

    Raises
    ------
    InputError
        For a name that is none, another number of names, and "auto" where families cannot be told.
    """
    known = ("auto", *families.names())
    if not isinstance(family, Iterable) or getattr(family, "ndim", 1) != 1:
        raise InputError(f"family {family!r}: expected a name, or a list of names")
    names = [family] if isinstance(family, str) else [*family]
    if "auto" in names and not routing.can_classify(survey):
        raise InputError(f"family 'auto': {routing.NO_FAMILY}")
    routes = []
    for name in names:
        route = name if name in known else routing.route_of(str(name))
        if route is None:
            expected = ", ".join((*known, *routing.OPENFWI_FAMILIES))
            raise InputError(f"family {name!r}: expected one of {expected}")
        routes.append(str(route))
    if isinstance(family, str):
        return routes[0]
    if len(names) != count:
        raise InputError(f"found {count} predictions and {len(names)} families")
    return tuple(routes)


def gpus_meant(device: str | torch.device) -> list[str]:
    """The GPUs that a device stands for.

    Parameters
    ----------
    device : str or torch.device
        "auto", "cpu", "cuda" or "cuda:<number>".

    Returns
    -------
    list of str
        As CUDA_VISIBLE_DEVICES names them; empty for the CPU.

    Raises
    ------
    InputError
        For another name, and for a GPU that is not there.
    """
    device = str(device)
    if not re.fullmatch("auto|cpu|cuda(:[0-9]{1,4})?", device):
        raise InputError(f"device {device!r}: expected auto, cpu, cuda or cuda:<number>")
    if device == "cpu":
        return []
    found, number = devices(), device.partition(":")[2]
    if not found and device != "auto":
        raise InputError(f"device {device!r}: {gpu_problem()}")
    if number and int(number) >= len(found):
        raise InputError(f"device {device!r}: there are {len(found)} GPUs, numbered from 0")
    return [found[int(number)]] if number else found


def torch_device(device: str | torch.device, gpus: Sequence[str]) -> str:
    """Torch's name of the device; of several GPUs the first."""
    if str(device) == "auto":
        return "cuda" if gpus else "cpu"
    return str(device)


def check_arrays(maps: np.ndarray, records: Any, survey: Survey, source: str = "known") -> None:
    """Check a few samples of arrays.

    Parameters
    ----------
    maps : ndarray, shape (N, nz, nx)
        What is taken for m/s.
    records : sequence
        Gives record k as `records[k]`.
    survey : Survey
        Of maps and records.
    source : str
        As `refine` takes it.

    Raises
    ------
    InputError
        Where they seem to be in other units, or in another order.
    """

    def record(k: int) -> NDArray[Any]:
        try:
            return to_numpy(records[k])
        except Exception as error:  # `records` may be anything, and a bad one fails alone
            raise SampleError(str(error)) from error

    ids = [str(k) for k in range(len(maps))]
    check_pairs(
        ids, lambda k: maps[k], record, survey, advice=ADVICE_FOR_ARRAYS, source=source, each=True
    )
