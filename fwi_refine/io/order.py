"""The order of files: that of their numbers, where their names have numbers."""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fwi_refine.errors import InputError

_NUMBER = re.compile("([0-9]+)")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """Names in order. doubt: why another order may be meant, None where there is none."""

    names: list[str]
    doubt: str | None = None

    def decided(self, what: str) -> None:
        """Raises InputError if nothing decides on the order of the samples of `what`."""
        if self.doubt is not None:
            raise InputError(f"{what}: {self.doubt}; give the ids in their order with --ids")

    def logged(self, folder: object) -> "Order":
        """This order; said where the files of a folder are not in the order of their text."""
        if self.names != sorted(self.names):
            few = [*self.names[:2], *["..."] * (len(self.names) > 3), *self.names[2:][-1:]]
            log.info("%s: %d files in the order of their numbers: %s",
                     folder, len(self.names), ", ".join(few))  # fmt: skip
        return self


def in_order(names: Iterable[str]) -> Order:
    """Names of files in the order that is meant.

    Parameters
    ----------
    names : iterable of str
        In any order, each once.

    Returns
    -------
    Order
        Natural order (data2 before data10) where all names have the same text around their
        numbers. Text order where both agree, and where all names have the same length: digits of
        hashes are no numbers. Else text order, in doubt.
    """
    by_text = sorted(names)
    natural = sorted(by_text, key=_natural)
    if natural == by_text:
        return Order(by_text)
    if len({_NUMBER.sub("0", name) for name in by_text}) == 1:
        return Order(natural)
    if len({len(name) for name in by_text}) == 1:
        return Order(by_text)
    return Order(by_text, _doubt(by_text, natural))


def check_listed(ids: Sequence[str], what: str) -> None:
    """Raises InputError for ids in text order whose numbers have another: data1, data10, data2.

    Whoever listed files by their names has them so, and nothing says that maps without ids are in
    that order.
    """
    order = in_order(ids)
    by_text = sorted(ids)
    if list(ids) == by_text and (order.doubt is not None or order.names != by_text):
        raise InputError(f"{what}: {_doubt(by_text, sorted(by_text, key=_natural))}")


def _doubt(by_text: Sequence[str], natural: Sequence[str]) -> str:
    k = next(k for k, (a, b) in enumerate(zip(by_text, natural, strict=True)) if a != b)
    return (
        f"number {k + 1} of the names is {by_text[k]!r} in text order and {natural[k]!r} in the "
        "order of the numbers, and nothing decides which is meant"
    )


def _natural(name: str) -> tuple[object, ...]:
    """A key: text and numbers in turn, so that one place always has one kind; then the whole."""
    parts = _NUMBER.split(name)
    return (tuple(int(p) if k % 2 else p for k, p in enumerate(parts)), name)
