"""Messages on stderr, and in a log file where one is asked for."""

import logging
import sys


class _Stderr(logging.Handler):
    """Writes above a progress bar where there is one."""

    def emit(self, record):
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def set_up(verbose, quiet, log_file):
    """verbose, quiet: how often -v and -q were given. Raises OSError if the file cannot be made."""
    level = logging.DEBUG if verbose else (logging.ERROR if quiet else logging.INFO)
    root = logging.getLogger()
    tear_down()
    stderr = _Stderr(level)
    stderr.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(stderr)
    if log_file:
        add_file(log_file, logging.DEBUG if verbose else logging.INFO)
    root.setLevel(logging.WARNING)
    logging.getLogger("fwi_refine").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(True)


def add_file(path, level=logging.INFO):
    """Messages go to this file too, after what it holds. Raises OSError if it cannot be made."""
    file = logging.FileHandler(path, encoding="utf-8")
    file.setLevel(level)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(file)


def tear_down():
    """Takes this program's handlers away again."""
    logging.captureWarnings(False)
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Stderr | logging.FileHandler):
            root.removeHandler(handler)
            handler.close()
