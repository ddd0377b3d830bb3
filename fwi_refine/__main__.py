"""The program: `fwi-refine`, or `python -m fwi_refine`."""

import signal


def main() -> None:
    """Runs the command line; Ctrl-C while it is still loaded ends the process without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from fwi_refine.cli import main as program

    program()


if __name__ == "__main__":
    main()
