"""A look at a few samples of opened files, before a command begins; see routing/look.py."""

from collections.abc import Sequence
from typing import Any

from fwi_refine.survey import Survey


def look_at_inputs(inputs: Any, survey: Survey, force: bool, source: str = "known") -> None:
    """Looks at a few samples of opened inputs (io/inputs.py), and of every candidate.

    source: as `recognise` takes it.

    Raises
    ------
    InputError
        If they seem to be something else, unless `force` is true, which makes a warning of it.
    """
    look_at_maps_of(inputs.predictions, inputs.pairs, inputs.records, survey, force, source)
    for _, candidate, indices in inputs.candidates[1:]:
        look_at(candidate, survey, force)
        look_at_both_of(
            (candidate, indices),
            (inputs.predictions, range(inputs.predictions.count)),
            ("candidates", "predictions"),
            survey,
            force,
        )


def look_at_maps_of(
    maps: Any,
    pairs: Sequence[Any],
    records: Any,
    survey: Survey,
    force: bool,
    source: str = "known",
) -> None:
    """Looks at a few maps with their records: pairs as `io.pair` gives them. Raises InputError."""
    from fwi_refine.routing.look import look_at_pairs

    known = [pair for pair in pairs if pair.record is not None]
    look_at_pairs(
        [pair.id for pair in known],
        lambda k: maps.read(known[k].index),
        lambda k: records.read(known[k].record),
        survey,
        force,
        source=source,
        each=True,
    )


def look_at_both_of(
    one: tuple[Any, Sequence[int]],
    other: tuple[Any, Sequence[int]],
    words: tuple[str, str],
    survey: Survey,
    force: bool,
) -> None:
    """Looks at a few maps with others of the same samples: (source, indices in it) of both.

    Raises InputError.
    """
    from fwi_refine.routing.look import look_at_both

    (source, indices), (others, other_indices) = one, other
    look_at_both(
        min(len(indices), len(other_indices)),
        lambda k: source.read(indices[k]),
        lambda k: others.read(other_indices[k]),
        words,
        survey,
        force,
    )


def look_at(source: Any, survey: Survey, force: bool, records: bool = False) -> None:
    """Looks at a few maps of an opened source, or a few records. Raises InputError."""
    from fwi_refine.routing.look import look_at_some

    count = len(source.ids) if records else source.count
    look_at_some(count, source.read, survey, force, records)
