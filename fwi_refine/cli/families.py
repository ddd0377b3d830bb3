"""Which family each map of a command belongs to, where the user said so."""

from fwi_refine.errors import InputError

AUTO = "auto"  # in place of a file: told from the map and its record


def known_families(path, names, count):
    """Family of each map; by position where the maps have no ids. Raises InputError."""
    from fwi_refine import io

    table = io.read_families(path)
    if names is not None:
        absent = [name for name in names if name not in table]
        if absent:
            raise InputError(f"--families {path}: has no family for {absent[0]!r}")
        return [table[name] for name in names]
    if len(table) != count:
        raise InputError(
            f"--families {path}: found {len(table)} families for {count} maps without ids; give "
            "their ids with --ids"
        )
    return list(table.values())
