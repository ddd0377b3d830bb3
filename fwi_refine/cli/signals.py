"""SIGINT and SIGTERM as an exception that no handler of errors swallows."""

import contextlib
import signal
import threading


class Interrupted(BaseException):
    """The program was told to stop. Not an Exception: what survives errors must not survive it."""

    def __init__(self, signum):
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Signals:
    """Turns both signals into `Interrupted`; within `shielded` they wait until its end."""

    def __init__(self):
        self._depth = 0
        self._pending = None
        self._previous = {}

    def install(self):
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._handle)

    def restore(self):
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    def _handle(self, signum, frame):
        if self._depth:
            self._pending = signum
        else:
            raise Interrupted(signum)

    @contextlib.contextmanager
    def shielded(self, final=False):
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
