"""The moving part of stderr: progress bars and the lines of running samples."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from fwi_refine.runs.running import Running

Item = TypeVar("Item")

ROOMY = 100  # columns of a terminal, from which on numbers are named
LONGEST_ID, GAP = 24, 2  # characters of an id, and between two columns
BAR = (8, 30)  # columns of the bar: least, most
SHOWN = 12  # running samples that have a line
REFRESH = 4  # times a second on a terminal
PLAIN = 60.0  # s between two lines where stderr is no terminal


@dataclass(frozen=True)
class View:
    """The view of a run.

    Attributes
    ----------
    samples, done : int
        Of the run, and those that are finished.
    running : sequence of Running
        Those that are being refined.
    rate : float or None
        Samples a second.
    seconds_left : float or None
        For the rest.
    outcome : str
        What became of the finished ones.
    """

    samples: int
    done: int
    running: "Sequence[Running]" = ()
    rate: float | None = None
    seconds_left: float | None = None
    outcome: str = ""


_drawing: "list[Console]" = []  # the screen that lines move on at the moment, if any


def write(line: str) -> None:
    """Writes a line to stderr, above what moves there; it is not wrapped, so that a command in it
    can be copied."""
    if _drawing:
        _drawing[-1].print(line, soft_wrap=True)
    else:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


@contextlib.contextmanager
def _drawn_on(screen: "Console") -> Iterator[None]:
    _drawing.append(screen)
    try:
        yield
    finally:
        _drawing.remove(screen)


def console() -> "Console":
    """stderr as the library of progress bars sees it."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, markup=False, emoji=False)


def moves(console: "Console") -> bool:
    """Whether lines can be drawn anew there: a terminal, and none that only takes text."""
    return console.is_terminal and not console.is_dumb_terminal


@contextlib.contextmanager
def bar(total: int, unit: str, wanted: bool = True) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, and nothing elsewhere.

    Parameters
    ----------
    total : int
        How many there are.
    unit : str
        What they are, in the plural.
    wanted : bool
        Whether it is shown at all.

    Yields
    ------
    callable
        Told how many more are done.
    """
    from rich import progress

    columns = (
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left", markup=False),
        progress.TimeRemainingColumn(),
    )
    screen = console()
    shown = wanted and moves(screen)
    with progress.Progress(*columns, console=screen, disable=not shown, transient=True) as bars:
        task = bars.add_task(unit, total=total)
        with _drawn_on(screen) if shown else contextlib.nullcontext():
            yield lambda count: bars.advance(task, count)


def tracked(items: Sequence[Item], unit: str) -> Iterator[Item]:
    """Some items, with a progress bar; unit: what they are, in the plural."""
    with bar(len(items), unit) as advance:
        for item in items:
            yield item
            advance(1)


@contextlib.contextmanager
def shown(
    view: Callable[[], View], say: Callable[[str], object], every: float = PLAIN
) -> Iterator[None]:
    """Shows a view as long as the block lasts.

    Parameters
    ----------
    view : callable
        Gives the present state.
    say : callable
        Takes a line of text, where stderr is no terminal.
    every : float
        Seconds between two such lines.
    """
    screen = console()
    if moves(screen):
        from rich.live import Live

        with (
            Live(
                console=screen,
                get_renderable=lambda: table(view(), screen.width),
                refresh_per_second=REFRESH,
                transient=True,
                redirect_stdout=False,
            ),
            _drawn_on(screen),
        ):
            yield
        return
    ended = threading.Event()

    def speak() -> None:
        while not ended.wait(every):
            say(text(view()))

    threading.Thread(target=speak, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def table(view: View, width: int) -> "RenderableType":
    """A view on a terminal of so many columns: a line for each running sample, then the whole."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    lines = [Text(line) for line in _lines(view.running[:SHOWN], width)]
    more = len(view.running) - SHOWN
    said = next((text for text in _shorter(view) if len(text) <= width - BAR[0] - GAP), "")
    room = min(BAR[1], width - GAP - len(said))
    whole = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
    bar = ProgressBar(total=view.samples, completed=view.done, width=room)
    whole.add_row(bar, Text(said))
    return Group(*lines, *([Text(f"and {more} more")] if more > 0 else []), whole)


def _lines(running: "Sequence[Running]", width: int) -> list[str]:
    """A line for each sample, in columns; words are cut to the width, numbers are not."""
    now = time.time()
    word = "misfit " if width >= ROOMY else ""
    numbers = [
        (clock(now - state.started), word + _misfits(state.first, state.now, state.noise))
        for state in running
    ]
    clocks = max((len(passed) for passed, _ in numbers), default=0)
    room = width - clocks - max((len(misfits) for _, misfits in numbers), default=0) - 3 * GAP
    ids = min(max((len(state.id) for state in running), default=0), LONGEST_ID, max(8, room // 3))
    stages = min(max((len(_stage(state)) for state in running), default=0), max(0, room - ids))
    return [
        (" " * GAP).join(
            (_cut(state.id, ids), passed.rjust(clocks), _end(_stage(state), stages), misfits)
        )
        for state, (passed, misfits) in zip(running, numbers, strict=True)
    ]


def _cut(text: str, width: int) -> str:
    """Text of exactly so many characters."""
    short = text if len(text) <= width else text[: max(0, width - 3)] + "..."[:width]
    return short.ljust(width)


def _end(text: str, width: int) -> str:
    """The end of a text, of exactly so many characters: of a stage, what changes stands there."""
    if len(text) > width:
        text = text.replace(" of at most ", "/").replace(" of ", "/")
    short = text if len(text) <= width else "..."[:width] + text[len(text) - max(0, width - 3) :]
    return short.ljust(width)


def text(view: View) -> str:
    """A view as one line."""
    running = [describe(state) for state in view.running[:SHOWN]]
    more = len(view.running) - SHOWN
    return "; ".join([_whole(view), *running, *([f"and {more} more"] if more > 0 else [])])


def describe(state: "Running") -> str:
    """How far a sample is."""
    passed = clock(time.time() - state.started)
    misfits = _misfits(state.first, state.now, state.noise)
    return f"{state.id} {passed} {_stage(state)}, misfit {misfits}"


def _stage(state: "Running") -> str:
    return f"{state.stage}, step {state.step}" if state.stage else "reading"


def _misfits(first: float | None, now: float | None, noise: float | None) -> str:
    values = ("?" if value is None else f"{value:.1e}" for value in (first, now, noise))
    return " -> ".join(values)


def _whole(view: View) -> str:
    return next(_shorter(view))


def _shorter(view: View) -> Iterator[str]:
    """What is said of the whole: all, and then with one part less each time, from the end."""
    parts = [f"{view.done} of {view.samples} samples"]
    if view.rate:
        hourly = 3600 * view.rate
        parts.append(f"{hourly:{'.0f' if hourly >= 100 else '.3g'}} an hour")
    if view.seconds_left is not None:
        parts.append(f"{clock(view.seconds_left)} left")
    if view.outcome:
        parts.append(view.outcome)
    for count in range(len(parts), 0, -1):
        yield ", ".join(parts[:count])


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
