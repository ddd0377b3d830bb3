"""The treatment of each family: one file each, which is all that a practitioner edits.

A file defines FAMILY, a `FamilyDefinition`: its name, the recipe of each method, the test that
tells its samples, and where to look next. `NAMES` is the registry: a new family is a file here and
its name below; `register` adds one while a program runs. What a recipe is, and what the fields of
its stages say: ../recipe.py.

The main method is Gauss-Newton (Levenberg-Marquardt) with the full Jacobian and steps straight in
squared slowness; "matrix-free" are its steps by conjugate gradients, for maps whose Jacobian is
too large. "lbfgs" is the method of the 2nd place of the Yale/UNC-CH competition (J. Cottaar,
2025): float64, L-BFGS with all pairs kept, vmin without a prior. It differs from what was published
in this: the closing Gauss-Newton step of Style A is solved by conjugate gradients, not from 1073
stored columns of the Jacobian; the Gaussian processes are centred on 3000 m/s; maps outside the
survey's velocity bounds are not visited; and a map is rounded only if its record still fits.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fwi_refine.inversion.families.definition import FamilyDefinition
    from fwi_refine.routing import Criterion

# in the order in which the tests are asked
NAMES = ("flat-vel", "style-a", "style-b", "blended", "layered", "general")
METHODS = ("auto", "gauss-newton", "matrix-free", "preconditioned-lbfgs", "lbfgs")
PRIORS = ("auto", "gp", "tv", "learned")

_registered: "dict[str, FamilyDefinition]" = {}


def names() -> tuple[str, ...]:
    """The names of all families, of this folder and registered."""
    return (*NAMES, *(name for name in _registered if name not in NAMES))


def register(family: "FamilyDefinition") -> None:
    """Adds a family, or takes the place of the one of that name, in this process.

    Parameters
    ----------
    family
        Its name is then one that `refine_sample` takes.
    """
    _registered[family.name] = family


def find_family(name: str) -> "FamilyDefinition":
    """The definition of a family, loaded when it is first asked for.

    Raises
    ------
    ValueError
        For a name that is not in `names()`.
    """
    if name in _registered:
        return _registered[name]
    if name not in NAMES:
        raise ValueError(f"family {name!r}: expected one of {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    found: FamilyDefinition = module.FAMILY
    return found


def criteria() -> "dict[str, Criterion]":
    """The test of each family that has one, in the order in which they are asked."""
    tests = {name: find_family(name).criterion for name in names()}
    return {name: test for name, test in tests.items() if test is not None}


def inferred() -> tuple[str, ...]:
    """The families that samples are told to be of: by a test, or "layered" where none is passed."""
    tests = criteria()
    return tuple(name for name in names() if name in tests or name == "layered")
