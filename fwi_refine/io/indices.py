"""Where the samples of a run stand in a file that may hold more of them, or name none."""

from collections.abc import Iterable, Sequence

from fwi_refine.errors import InputError


def find_indices(
    ids: Sequence[str],
    own: Sequence[str] | None,
    count: int,
    orders: Iterable[Sequence[str] | None],
    what: str,
) -> list[int | None]:
    """Index of each sample in a file, None where it is not in there.

    Only a list of ids as long as the file that knows one of the samples is believed.

    Parameters
    ----------
    ids : sequence of str
        Of the samples.
    own : sequence of str or None
        Ids in the file.
    count : int
        How many samples the file holds.
    orders : iterable of sequences of str
        Lists of ids, best first, whose order the file may have.
    what : str
        What the file is, for the message.

    Raises
    ------
    InputError
        Where there is no list to be believed.
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


def is_part_of(ids: Sequence[str], order: Sequence[str]) -> bool:
    """Whether the ids stand in a list one after another, as --limit and --shard take them."""
    known = {name: k for k, name in enumerate(order)}
    first = known.get(ids[0])
    return first is not None and list(ids) == list(order[first : first + len(ids)])
