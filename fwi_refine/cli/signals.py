"""SIGINT, SIGTERM and SIGHUP as an exception that no handler of errors swallows."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Interrupted(BaseException):
    """The program was told to stop. Not an Exception: what survives errors must not survive it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Signals:
    """Turns these signals into `Interrupted`; within `shielded` they wait until its end."""

    def __init__(self) -> None:
        self._depth = 0
        self._pending: int | None = None
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        """Listens; not to a hangup that is ignored already, as nohup has it."""
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
                    self._previous[signum] = signal.signal(signum, self._handle)

    def restore(self) -> None:
        """Ends listening."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._depth:
            self._pending = signum
        else:
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
            raise Interrupted(pending)


SIGNALS = Signals()
