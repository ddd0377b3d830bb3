"""The data flows one way: a folder imports those below it, and no other."""

import ast
import sys
from pathlib import Path

import pytest
from checkout import sources

ROOT = Path(__file__).parents[1]

# Folders and modules of the package, from the bottom to the top. What stands in one layer may not
# import each other. A new folder needs a place here.
LAYERS = (
    {"version", "errors", "lazy"},
    {"machine_faults", "limits", "precision"},
    {"files"},
    {"survey"},
    {"priors", "optimise", "wave", "io"},
    {"objective"},
    {"routing", "synthetic"},
    {"inversion"},
    {"runs"},
    {"analysis"},
    {"api"},
    {"cli"},
    {"__main__"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
DOORS = {"wave"}  # folders of which others import what the folder itself names, and no module

# What may be imported by the packages that know no physics, besides the standard library.
PURE = {
    "optimise": {"numpy", "torch", "fwi_refine.optimise", "fwi_refine.precision"},
    "priors": {"numpy", "scipy", "torch", "sklearn", "fwi_refine.priors"},
}


def imports(module: str, source: str) -> set[str]:
    """Absolute names of all that a module imports, wherever in it the statement stands."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # Each leading dot goes one package up; `module` ends in its file's name, or __init__.
            base = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            # `from fwi_refine import wave` names a module, `from fwi_refine.wave import x` may not.
            found |= (
                {f"{base}.{alias.name}" for alias in node.names} if base == "fwi_refine" else {base}
            )
    return found


def complaints(module: str, source: str) -> list[str]:
    """What is wrong with the imports of a module."""
    own = module.split(".")[1]
    if own not in LEVEL:
        return [f"{module} has no layer: give {own!r} its place in LAYERS"]
    found = []
    for name in sorted(imports(module, source)):
        top, _, rest = name.partition(".")
        if top == "fwi_refine":
            other = rest.partition(".")[0]
            if other != own and LEVEL.get(other, len(LAYERS)) >= LEVEL[own]:
                found.append(f"{module} imports {name}, which is not below it or has no layer")
            elif other != own and other in DOORS and "." in rest:
                found.append(f"{module} imports {name}: use what fwi_refine.{other} names")
        if own in PURE and top not in sys.stdlib_module_names:
            allowed = PURE[own]
            if top not in allowed and ".".join(name.split(".")[:2]) not in allowed:
                found.append(f"{module} imports {name}; {own}/ may only import {sorted(allowed)}")
    return found


MODULES = {name: path for name, path in sources().items() if name != "fwi_refine.__init__"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    assert complaints(module, MODULES[module].read_text()) == []


def test_a_stranger_finds_the_way():
    """Few modules stand beside the folders, and every folder says what it holds."""
    beside = {path.name for path in (ROOT / "fwi_refine").glob("*.py")} - {"__main__.py"}
    assert len(beside) <= 8
    for folder in {path.parent for path in MODULES.values()}:
        text = (folder / "__init__.py").read_text()
        assert ast.get_docstring(ast.parse(text)), folder


def test_the_package_itself_is_found():
    assert {
        "fwi_refine.survey.toml",
        "fwi_refine.optimise.lbfgs",
        "fwi_refine.priors.total_variation",
    } <= set(MODULES)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fwi_refine.survey.toml", "from fwi_refine.wave import Simulator"),
        ("fwi_refine.survey.toml", "from fwi_refine import wave"),
        ("fwi_refine.survey.toml", "import fwi_refine.wave.cpu"),
        ("fwi_refine.survey.__init__", "from ..wave import Simulator"),
        ("fwi_refine.wave.__init__", "from ..objective import Objective"),
        ("fwi_refine.wave.cpu", "def f():\n    from fwi_refine.inversion import refine_sample"),
        ("fwi_refine.wave.cpu", "from fwi_refine.io import Sample"),
        ("fwi_refine.objective.misfit", "from fwi_refine.wave.simulator import Simulator"),
        ("fwi_refine.inversion.recipe", "from fwi_refine.cli.commands.refine import command"),
        ("fwi_refine.inversion.recipe", "from fwi_refine import __version__"),
        ("fwi_refine.runs.batch", "from fwi_refine.analysis import metrics"),
        ("fwi_refine.analysis.metrics", "from fwi_refine.api import refine"),
        ("fwi_refine.optimise.lbfgs", "from fwi_refine.survey import OPENFWI"),
        ("fwi_refine.optimise.lbfgs", "import scipy.optimize"),
        ("fwi_refine.priors.total_variation", "import h5py"),
        ("fwi_refine.unheard_of", ""),
    ],
)
def test_a_backward_import_is_noticed(module, source):
    assert len(complaints(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "fwi_refine.cli.commands.refine",
            "from fwi_refine.survey import OPENFWI\nimport click, json",
        ),
        ("fwi_refine.wave.simulator", "from .cpu import load\nfrom . import reference"),
        ("fwi_refine.wave.simulator", "from fwi_refine.wave.cuda import program"),
        ("fwi_refine.optimise.__init__", "from .lbfgs import lbfgs\nimport math, torch"),
        (
            "fwi_refine.priors.__init__",
            "import tomllib\nfrom sklearn.gaussian_process import kernels",
        ),
        ("fwi_refine.priors.total_variation", "from fwi_refine.priors.base import Prior"),
    ],
)
def test_a_forward_import_is_accepted(module, source):
    assert complaints(module, source) == []
