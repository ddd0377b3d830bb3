"""The command line. Each command stands in a module of its own and is imported when needed."""

import difflib
import importlib
import logging
import os
import shlex
import sys
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from fwi_refine.cli import logs
from fwi_refine.cli.signals import SIGNALS, Interrupted
from fwi_refine.errors import FwiRefineError, InputError, OutputExistsError
from fwi_refine.version import __version__

OK, FAILURE, USAGE, SAMPLES_FAILED = 0, 1, 2, 3

PROGRAM = "fwi-refine"
DEFAULT = "refine"
COMMANDS = (
    "refine",
    "start",
    "simulate",
    "classify",
    "evaluate",
    "blend",
    "submit",
    "probe",
    "info",
    "status",
    "verify",
    "merge",
    "plot",
    "report",
    "fit-priors",
    "doctor",
    "completion",
)

EPILOG = """\b
Exit codes: 0 all refined; 1 failure; 2 usage or input; 3 finished, but samples failed (they are
in the report, their start is passed through); 130, 143 or 129 stopped by SIGINT, SIGTERM or
SIGHUP.
"""


class Commands(click.Group):
    """Loads a command when it is asked for; without the name of one, `refine` is meant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"fwi_refine.cli.commands.{name.replace('-', '_')}").command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and not self._is_ours(ctx, args[0]):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Words that may stand first: a command, or an argument of `refine` without its name."""
        refine = self.get_command(ctx, DEFAULT)
        assert refine is not None  # it is one of COMMANDS
        others = refine.shell_complete(click.Context(refine, parent=ctx), incomplete)
        if not incomplete.startswith("-"):
            others = [CompletionItem(incomplete, type="file")]
        found = [*super().shell_complete(ctx, incomplete), *others]
        return [*{(item.type, item.value): item for item in found}.values()]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0].lower(), COMMANDS, cutoff=0.6)
            if not near:
                raise
            raise click.UsageError(
                f"No such command {args[0]!r}. Did you mean {' or '.join(near)}?", ctx
            ) from error

    def _is_ours(self, ctx: click.Context, first: str) -> bool:
        if first in COMMANDS or first in ("-h", "--help", "--version"):
            return True
        # What is neither a file nor looks like one is a misspelt command.
        return not (first.startswith("-") or "." in first or "/" in first or os.path.exists(first))


@click.group(
    cls=Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.version_option(__version__, prog_name=PROGRAM)
def program() -> None:
    """Refines predicted velocity maps by full-waveform inversion of their records.

    \b
    The main job:
      fwi-refine predictions.npy seismic/ --out refined.npy

    predictions.npy holds maps of the ground, (N, 70, 70) velocities in m/s, that a network
    predicted; seismic/ the N seismic records that it saw, (5, 1000, 70) each. This is short for
    "fwi-refine refine ...": see "fwi-refine refine --help" for other forms of both.

    \b
    What else a newcomer may want:
      fwi-refine doctor                               # is it well installed, and fast?
      fwi-refine evaluate refined.npy truth.npy       # how far from the truth?
      fwi-refine report refined.npy --out run.html    # all of a run on one page
    """


def run(args: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Parameters
    ----------
    args : sequence of str, optional
        What stands behind the program's name; by default as it was started.

    Returns
    -------
    int
        The exit code.
    """
    given = sys.argv[1:] if args is None else [*args]
    with logs.forgiving_stderr():
        return _run(given, last=args is None)


def _run(args: list[str], last: bool) -> int:
    """last: whether the process ends afterwards, so that the signals stay as they are."""
    SIGNALS.install()
    try:
        return program.main(args, prog_name=PROGRAM, standalone_mode=False, obj=args) or OK
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (InputError, OutputExistsError) as error:
        return _fail(error, USAGE)
    except FwiRefineError as error:
        return _fail(error, FAILURE)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}", FAILURE)
    except MemoryError:
        return _fail("out of memory: use fewer --jobs", FAILURE)
    except Interrupted as error:
        return _fail(f"stopped by {error}", error.exit_code)
    except click.Abort:
        return _fail("stopped", 130)
    finally:
        logs.tear_down()
        if not last:
            SIGNALS.restore()


def _fail(error: object, code: int) -> int:
    logging.getLogger(__name__).debug("details", exc_info=True)
    click.echo(f"fwi-refine: {error}", err=True)
    return code


def command_line() -> str:
    """The present command as it would be typed."""
    return shlex.join([PROGRAM, *(click.get_current_context().find_root().obj or ())])


def main() -> None:
    """The program: runs the command line and ends with its exit code."""
    logs.open_standard_streams()
    try:
        code = run()
        SIGNALS.ignore()
    except Interrupted as error:  # at the very end, when all is written
        code = error.exit_code
    logs.close_standard_streams()
    sys.exit(code)
