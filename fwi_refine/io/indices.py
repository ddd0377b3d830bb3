"""Where the samples of a run stand in a file that may hold more of them, or name none."""

from fwi_refine.errors import InputError


def find_indices(ids, own, count, orders, what) -> list[int | None]:
    """Index of each sample in a file, None where it is not in there.

    ids: of the samples; own: ids in the file, or None; count: how many samples the file holds;
    orders: lists of ids, best first, whose order the file may have. Only a list as long as the
    file that knows one of the samples is believed. Raises InputError, naming `what`, where there
    is none.
    """
    for order in (own, *orders):
        if order is not None and len(order) == count:
            known = {name: k for k, name in enumerate(order)}
            found = [known.get(name) for name in ids]
            if any(index is not None for index in found):
                return found
    raise InputError(
        f"{what}: found {count} samples that none of the {len(ids)} ids of the run belongs to, the "
        f"first of them {ids[0]!r}; expected the same ids, or as many samples (see --ids)"
    )


def is_part_of(ids, order) -> bool:
    """Whether the ids stand in a list one after another, as --limit and --shard take them."""
    known = {name: k for k, name in enumerate(order)}
    first = known.get(ids[0])
    return first is not None and list(ids) == list(order[first : first + len(ids)])
