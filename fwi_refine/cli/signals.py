"""SIGINT, SIGTERM and SIGHUP as an exception that no handler of errors swallows.

The first one stops the program, which then keeps what is finished. Those that follow are ignored,
as an exception in the middle of that would undo it, unless it takes so long that it hangs.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNUMS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 10.0  # s that stopping may take, before another signal ends the process at once


class Interrupted(BaseException):
    """The program was told to stop. Not an Exception: what survives errors must not survive it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Signals:
    """Turns the first of these signals into `Interrupted`; within `shielded` it waits until its
    end."""

    def __init__(self) -> None:
        self._depth = 0
        self._pending: int | None = None
        self._stopped: float | None = None  # when
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        """Listens; not to a hangup that is ignored already, as nohup has it."""
        self._stopped = None
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNUMS:
                if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
                    self._previous[signum] = signal.signal(signum, self._handle)

    def restore(self) -> None:
        """Ends listening."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    def ignore(self) -> None:
        """Nothing is left to be stopped: the process ends with its exit code."""
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNUMS:
                signal.signal(signum, signal.SIG_IGN)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._stopped is not None:
            if time.monotonic() - self._stopped > PATIENCE:
                os._exit(128 + signum)
        elif self._depth:
            self._pending = signum
        else:
            self._stop(signum)

    def _stop(self, signum: int) -> None:
        self._stopped = time.monotonic()
        raise Interrupted(signum)

    @contextlib.contextmanager
    def shielded(self, final: bool = False) -> Iterator[None]:
        """Nothing interrupts the block. final: nor is it interrupted at its end."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            pending, self._pending = self._pending, None
        if pending is not None and not final:
            self._stop(pending)


SIGNALS = Signals()
