"""The table of weights of `blend`: found, or read from that of an earlier one."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwi_refine.cli.console import tracked
from fwi_refine.errors import InputError
from fwi_refine.files import read_json

if TYPE_CHECKING:
    from fwi_refine.analysis.ensemble import Ensemble

log = logging.getLogger(__name__)


def find_weights(
    ensemble: "Ensemble", family_of: Sequence[str | None], samples: int, rounds: int, seed: int
) -> dict[str, Any]:
    """The table of weights, as it is written.

    Parameters
    ----------
    ensemble : Ensemble
        The predictions, with true maps or records.
    family_of : sequence of str or None
        The family of each sample; None: left out.
    samples : int
        Of each family, drawn at random, with which its weights are found.
    rounds : int
        Steps of hill climbing.
    seed : int
        Of the draw.

    Raises
    ------
    InputError
        If no sample can be used.
    """
    import numpy as np

    measure = "mean absolute error, m/s" if ensemble.has_truth else "mean rms misfit"
    table: dict[str, Any] = {"members": ensemble.names, "measure": measure, "families": {}}
    rng = np.random.default_rng(seed)
    for family in tracked(sorted({name for name in family_of if name is not None}), "families"):
        of_family = [k for k, other in enumerate(family_of) if other == family]
        drawn = sorted(rng.permutation(of_family)[:samples].tolist())
        row = _climb(ensemble, drawn, rounds)
        table["families"][family] = row | {"samples": len(of_family)}
        if row["fitted_on"]:
            weights = ", ".join(f"{w:.2f}" for w in row["weights"])
            log.info("%s: weights %s; %s %.6g, best alone %.6g (%d samples)", family, weights,
                     measure, row["score"], min(row["score_alone"]), row["fitted_on"])  # fmt: skip
        else:
            log.warning("%s: none of the %d samples drawn can be used; all weights are equal",
                        family or "without family", len(drawn))  # fmt: skip
    if not any(row["fitted_on"] for row in table["families"].values()):
        raise InputError("no weights can be found: none of the samples can be used")
    return table


def _climb(ensemble: "Ensemble", drawn: Sequence[int], rounds: int) -> dict[str, Any]:
    """Weights found with the samples `drawn`; equal ones where none of them can be used."""
    from fwi_refine.analysis.blend import climb

    score, count = ensemble.score(drawn)
    if not count:
        size = len(ensemble.names)
        return {"weights": [1 / size] * size, "score": None, "score_alone": None, "fitted_on": 0}
    found = climb(score, len(ensemble.names), rounds)
    return {
        "weights": found.weights,
        "score": found.score,
        "score_alone": found.alone,
        "fitted_on": count,
    }


def read_table(path: Path, size: int, family_of: Sequence[str | None]) -> dict[str, Any]:
    """The table of weights of an earlier blend. Raises InputError if it does not fit."""
    try:
        table: dict[str, Any] = read_json(path)
        found = {
            name: [float(w) for w in row["weights"]] for name, row in table["families"].items()
        }
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
    ) as error:
        raise InputError(f"--weights {path}: no table of weights ({error!r})") from error
    for family, weights in found.items():
        if len(weights) != size or not min(weights) >= 0 or not 0 < sum(weights) < float("inf"):
            raise InputError(
                f"--weights {path}: found {weights} for {family}, expected {size} weights, none "
                "negative, one for each prediction"
            )
    absent = sorted({family for family in family_of if family is not None} - {*found})
    if absent:
        raise InputError(f"--weights {path}: has none for {absent[0]!r}, only for {sorted(found)}")
    return table
