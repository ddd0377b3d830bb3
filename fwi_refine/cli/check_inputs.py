"""A check of a few samples of opened files before a command; see routing/checks/inputs.py."""

from collections.abc import Sequence
from typing import Any

from fwi_refine.survey import Survey


def check_inputs(inputs: Any, survey: Survey, force: bool, source: str = "known") -> None:
    """Checks a few samples of opened inputs (io/inputs.py), and of every candidate.

    source: as `recognise` takes it.

    Raises
    ------
    InputError
        If they seem to be something else, unless `force` is true, which makes a warning of it.
    """
    check_maps_of(inputs.predictions, inputs.pairs, inputs.records, survey, force, source)
    for _, candidate, indices in inputs.candidates[1:]:
        check_source(candidate, survey, force)
        check_both_of(
            (candidate, indices),
            (inputs.predictions, range(inputs.predictions.count)),
            ("candidates", "predictions"),
            survey,
            force,
        )


def check_maps_of(
    maps: Any,
    pairs: Sequence[Any],
    records: Any,
    survey: Survey,
    force: bool,
    source: str = "known",
) -> None:
    """Checks a few maps with their records: pairs as `io.pair` gives them. Raises InputError."""
    from fwi_refine.routing.checks.inputs import check_pairs

    known = [pair for pair in pairs if pair.record is not None]
    check_pairs(
        [pair.id for pair in known],
        lambda k: maps.read(known[k].index),
        lambda k: records.read(known[k].record),
        survey,
        force,
        source=source,
    )


def check_both_of(
    one: tuple[Any, Sequence[int]],
    other: tuple[Any, Sequence[int]],
    words: tuple[str, str],
    survey: Survey,
    force: bool,
) -> None:
    """Checks a few maps with others of the same samples: (source, indices in it) of both.

    Raises InputError.
    """
    from fwi_refine.routing.checks.inputs import check_both

    (source, indices), (others, other_indices) = one, other
    check_both(
        min(len(indices), len(other_indices)),
        lambda k: source.read(indices[k]),
        lambda k: others.read(other_indices[k]),
        words,
        survey,
        force,
    )


def check_source(source: Any, survey: Survey, force: bool, records: bool = False) -> None:
    """Checks a few maps of an opened source, or a few records. Raises InputError."""
    from fwi_refine.routing.checks.inputs import check_some

    count = len(source.ids) if records else source.count
    check_some(count, source.read, survey, force, records)
