"""Where long computations ask whether to go on: before each simulation, between the batches of a
Jacobian, and between the parts of its products."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Ask = Callable[[], object]  # raises what ends the computation

_ask: ContextVar[Ask | None] = ContextVar("ask", default=None)


@contextmanager
def asking(ask: Ask) -> Iterator[None]:
    """Within it, computations of this thread call `ask`, and its exception ends them."""
    token = _ask.set(ask)
    try:
        yield
    finally:
        _ask.reset(token)


def asker() -> Ask:
    """What this thread asks, for threads that work for it."""
    return _ask.get() or _go_on


def may_go_on() -> None:
    """Asks whether to go on; raises what ends the computation."""
    asker()()


def _go_on() -> None:
    """Nobody minds."""
