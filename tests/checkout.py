"""The files of this checkout: its modules, and a copy that can be built."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = (
    "setup.py",
    "setup.cfg",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "fwi_refine",
    "priors",
)


def copy_sources(folder):
    """What a build needs, without what was built."""
    folder.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "_kernel*")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)
    return folder


def sources() -> dict[str, Path]:
    """Every module of the project by its name. The folder priors/ is fwi_refine.priors."""
    found = {}
    for folder, package in (
        (ROOT / "fwi_refine", "fwi_refine"),
        (ROOT / "priors", "fwi_refine.priors"),
    ):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((package, *parts))] = path
    return found
