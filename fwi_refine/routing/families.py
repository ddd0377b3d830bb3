"""The groups of OpenFWI's families that are refined in different ways."""

import warnings
from enum import StrEnum


class Family(StrEnum):
    """The five groups of families that are refined in different ways."""

    FLAT_VEL = "flat-vel"
    STYLE_A = "style-a"
    STYLE_B = "style-b"
    BLENDED = "blended"
    LAYERED = "layered"


OPENFWI_FAMILIES = {
    "FlatVel_A": Family.FLAT_VEL,
    "FlatVel_B": Family.FLAT_VEL,
    "CurveVel_A": Family.LAYERED,
    "CurveVel_B": Family.LAYERED,
    "FlatFault_A": Family.BLENDED,
    "FlatFault_B": Family.LAYERED,
    "CurveFault_A": Family.BLENDED,
    "CurveFault_B": Family.LAYERED,
    "Style_A": Family.STYLE_A,
    "Style_B": Family.STYLE_B,
}


_FORMER = {"twovelocity": Family.BLENDED}  # names that are read for one more release


def plain(name: str) -> str:
    """A family's name without its case and signs: OpenFWI's own are written in several ways."""
    return "".join(c for c in name.lower() if c.isalnum())


def route_of(name: str) -> Family | None:
    """The route of a family of OpenFWI or of a route's own name; None for another name."""
    routes = {plain(own): route for own, route in OPENFWI_FAMILIES.items()}
    routes |= {plain(route): route for route in Family}
    former = _FORMER.get(plain(name))
    if former:
        warnings.warn(f"family {name}: its name is {former}", FutureWarning, stacklevel=2)
    return former or routes.get(plain(name))
