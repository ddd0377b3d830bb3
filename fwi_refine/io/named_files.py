"""Files that an input names, or that are read because they stand beside it.

They are inputs as well, though no option names them: a wavelet, the weights of a denoiser, the true
maps beside records, the inputs of a run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fwi_refine.files import read_toml
from fwi_refine.io.record_sources import truth_paths


def files_named_by(path: Path) -> list[Path]:
    """What is read with an input.

    Parameters
    ----------
    path : Path
        A file or folder that a command was given; what cannot be read names nothing.

    Returns
    -------
    list of Path
        Files and folders, of which some may not exist.
    """
    try:
        if path.suffix == ".toml":
            return [*_of_table(read_toml(path), path.resolve().parent)]
        if (path / "run.toml").is_file():
            return [*_of_run(read_toml(path / "run.toml"))]
        if path.is_dir():
            return [path.parent / "model"] if path.name == "data" else []
        return truth_paths(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def _of_table(table: dict[str, Any], folder: Path) -> Iterator[Path]:
    """The wavelet of a survey, and the denoiser of priors."""
    for section, key in (("wavelet", "file"), ("style_b_learned", "weights")):
        name = table.get(section, {}).get(key)
        if isinstance(name, str) and name:
            yield folder / name


def _of_run(table: dict[str, Any]) -> Iterator[Path]:
    """The inputs that a run was begun with."""
    inputs = table["inputs"]
    for one in (inputs["predictions"], inputs["records"], *inputs["candidates"]):
        yield Path(one["path"])
