"""The files of a run that is looked at: where they stand, and how they are opened."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fwi_refine.errors import InputError
from fwi_refine.io.convert import Conversion
from fwi_refine.io.inputs import open_converted_predictions, open_true_maps
from fwi_refine.io.predictions import Predictions
from fwi_refine.runs.directory import RunDirectory
from fwi_refine.survey import Survey

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """Where the rest stands; None: not given.

    Attributes
    ----------
    report : Path or None
        Report of refine, CSV.
    start, truth, deviation : Path or None
        Maps, in any of the forms of predictions.
    records : Path or None
        Records of the samples.
    ids : Path or None
        Ids of the samples, one a line.
    """

    report: Path | None = None
    start: Path | None = None
    records: Path | None = None
    truth: Path | None = None
    deviation: Path | None = None
    ids: Path | None = None


def _open_deviation(path: Path, survey: Survey, conversion: Conversion) -> Predictions:
    """Expected errors, which are stored as refine wrote them."""
    return open_converted_predictions(path, survey)


# how the maps beside a run are opened
OPEN = {
    "start": open_converted_predictions,
    "truth": open_true_maps,
    "deviation": _open_deviation,
}


def survey_of(run: RunDirectory) -> Survey:
    """The survey of a run, from its table. Raises InputError where it is none."""

    def tuples(value: Any) -> Any:
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    try:
        return Survey(**{name: tuples(value) for name, value in run.config["survey"].items()})
    except (TypeError, ValueError) as error:
        raise InputError(f"{run.path}: damaged: its survey cannot be used ({error})") from error


def inputs_of(config: dict[str, Any]) -> dict[str, Path]:
    """Where the inputs of a run stood when it was begun, those that are still there."""
    found = {}
    for name, key in (("start", "predictions"), ("records", "records")):
        path = Path(config["inputs"][key]["path"])
        if path.exists():
            found[name] = path
        else:
            log.warning("%s: the %s of the run are no longer there, and are left out", path, key)
    return found
