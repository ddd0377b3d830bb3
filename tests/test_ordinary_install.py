"""An ordinary install, without extras, can import every module but those that draw."""

import contextlib
import importlib.metadata
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

from checkout import sources
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
# They need matplotlib, of the extra [plot]; commands import them late and name the extra.
DRAWING = ("fwi_refine.analysis.plots", "fwi_refine.analysis.html_report")
# Refuses the packages named by its arguments, then imports the modules named on its input.
PROGRAM = """
import importlib, sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
REFUSED = set(sys.argv[1:])
sys.meta_path.insert(0, Refused())
for name in sys.stdin.read().split():
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name, error, sep=": ")
"""


def ordinary_distributions() -> set[str]:
    """Names of what `pip install fwi-refine` installs, and all that this needs in turn."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    found, waiting = set(), config["options"]["install_requires"].strip().splitlines()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # of other systems
            waiting += importlib.metadata.requires(name) or []
    return found


def other_packages() -> set[str]:
    """Import names of all that is installed here and that an ordinary install lacks."""
    ordinary = ordinary_distributions() | {"fwi-refine"}
    return {
        package
        for package, owners in importlib.metadata.packages_distributions().items()
        if re.fullmatch(r"\w+", package) and not ordinary & {*map(canonicalize_name, owners)}
    }


def failed_imports(modules, refused) -> list[str]:
    """What a new interpreter says to the imports of modules, with packages that it refuses."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *refused],
        input="\n".join(modules),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_folder_is_installed():
    """setup.cfg lists the packages: a folder that it lacks is missing from an installed copy."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    folders = {name.removesuffix(".__init__") for name in sources() if name.endswith(".__init__")}
    assert {*listed} == folders


def test_every_module_is_imported_without_extras():
    modules = [name.removesuffix(".__init__") for name in sources()]
    assert len(modules) > 100
    refused = other_packages()
    assert {"matplotlib", "skimage", "distributed", "pytest"} <= refused
    assert not {"numpy", "torch", "scipy", "click"} & refused
    assert [line for line in failed_imports(modules, refused) if not line.startswith(DRAWING)] == []


def test_a_missing_requirement_is_noticed():
    (line,) = failed_imports(["fwi_refine.errors", "fwi_refine.survey.toml"], ["tomli_w"])
    assert line == "fwi_refine.survey.toml: No module named 'tomli_w'"
