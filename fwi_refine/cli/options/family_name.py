"""The name of a family, as options take it."""

import difflib

import click
from click.shell_completion import CompletionItem

from fwi_refine.inversion import families

FAMILIES = families.NAMES


class FamilyName(click.ParamType):  # type: ignore[type-arg]  # not generic in older click
    """A route, or one of OpenFWI's families, which stands for the route that it takes."""

    name = "family"

    def __init__(self, *others: str) -> None:
        self.choices = (*others, *FAMILIES)

    def convert(
        self, value: str, parameter: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        if value in self.choices:
            return value
        from fwi_refine.routing.families import OPENFWI_FAMILIES, plain, route_of

        own = {plain(name): name for name in self.choices}
        found = own.get(plain(value)) or route_of(value)
        if found:
            return str(found)
        known = (*self.choices, *OPENFWI_FAMILIES)
        near = difflib.get_close_matches(plain(value), map(plain, known), n=1, cutoff=0.6)
        hint = f" Did you mean {next(n for n in known if plain(n) == near[0])}?" if near else ""
        names = ", ".join(map(repr, known))
        self.fail(f"{value!r} is not one of {names}.{hint}", parameter, ctx)

    def shell_complete(
        self, ctx: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found = [name for name in self.choices if name.startswith(incomplete)]
        return [CompletionItem(name) for name in found]
