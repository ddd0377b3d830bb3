"""A picture of each sample as soon as it is finished, which `refine --pictures` asks for."""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fwi_refine.cli.options import opened
from fwi_refine.errors import FwiRefineError, InputError, OutputExistsError, SampleError

if TYPE_CHECKING:
    from fwi_refine.io.inputs import Inputs
    from fwi_refine.runs.directory.parts import Part

RESOLUTION = 150  # dots per inch

log = logging.getLogger(__name__)


def check_folder(folder: Path) -> None:
    """Raises InputError for a folder that can neither be written to nor be made; makes none."""
    parent = folder if folder.exists() else folder.absolute().parent
    if not parent.is_dir():
        problem = "it is no directory" if folder.exists() else f"there is no directory {parent}"
    elif not os.access(parent, os.W_OK | os.X_OK):
        problem = f"{parent} may not be written to"
    else:
        return
    raise InputError(f"--pictures {folder}: cannot be made ({problem})")


def drawing(
    folder: Path, inputs: "Inputs", goes_on: bool, overwrite: bool
) -> "Callable[[Sequence[int], Part], None]":
    """A function that is told indices and results, and draws each sample that has no picture yet.

    Parameters
    ----------
    folder : Path
        Where the pictures go, as <id>.png; made if new.
    inputs : Inputs
        The samples of the run.
    goes_on : bool
        Whether the run was begun before: its pictures are kept.
    overwrite : bool
        Whether pictures that stand there are drawn anew.

    Raises
    ------
    InputError
        Without matplotlib, and where the folder cannot be made.
    OutputExistsError
        Where pictures of another run would be taken for those of this one.
    """
    plots = opened.load("plots")
    check_folder(folder)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"--pictures {folder}: cannot be made ({error.strerror})") from error

    standing = [name for p in inputs.pairs if (folder / (name := f"{p.id}.png")).exists()]
    if standing and not (goes_on or overwrite):
        raise OutputExistsError(
            f"--pictures {folder}: holds {len(standing)} of these pictures already, the first is "
            f"{standing[0]}: choose another folder, or pass --overwrite"
        )

    def draw(indices: "Sequence[int]", part: "Part") -> None:
        for k, index in enumerate(indices):
            path = folder / f"{part.rows[k].id}.png"
            try:
                if overwrite or not path.exists():
                    draw_one(k, index, part, path)
                    log.info("%s", path)
            except (OSError, FwiRefineError, MemoryError) as error:  # a picture stops no work
                reason = getattr(error, "strerror", None) or error
                log.warning("%s: not drawn (%s)", path, reason)

    def draw_one(k: int, index: int, part: "Part", path: Path) -> None:
        from fwi_refine import io
        from fwi_refine.analysis.run_view import RunView

        pair, truth = inputs.pairs[index], None
        if pair.record is not None:
            with suppress(SampleError):
                truth = inputs.records.truth(pair.record)
        deviations = part.maps.get("deviation")
        view = RunView(
            part.rows[k],
            part.maps["velocity"][k],
            inputs.survey,
            io.read_start(inputs.predictions, pair.index, inputs.survey),
            None if truth is None else truth.reshape(inputs.survey.shape),
            None if deviations is None else deviations[k],
        )
        plots.save([plots.samples([view])], path, RESOLUTION)

    return draw
