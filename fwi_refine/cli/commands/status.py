"""`fwi-refine status`: how far is a run?"""

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fwi_refine.cli import OK, console, options

if TYPE_CHECKING:
    from fwi_refine.runs import RunDirectory, RunState

LOOK = 1.0  # s between two looks at a run that is watched

log = logging.getLogger(__name__)


@options.command("status")
@options.run_argument
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@click.option("--watch", is_flag=True, help="Show it until the run is done, or Ctrl-C.")
@options.logging_options
def command(
    run_dir: Path,
    as_json: bool,
    watch: bool,
) -> int:
    """Say how far the run RUN is, and how long it will take.

    \b
    Examples:
      fwi-refine status run
      fwi-refine status run --watch

    RUN is the directory that `refine` was given as --run-dir. Says also who works on it, and with
    --watch how far each sample is, also where the run goes on on another machine. Takes a moment,
    also while the run goes on, and changes nothing. See verify for whether what it holds is sound.
    """
    from fwi_refine import runs

    if watch and as_json:
        raise click.UsageError("--watch shows lines for people: leave out --json")
    run = runs.RunDirectory(run_dir)
    if watch:
        _watch(run)
    state = runs.read_state(run)
    if as_json:
        click.echo(json.dumps(asdict(state) | {"seconds_left": state.seconds_left}, indent=2))
    else:
        _print(state)
    return OK


def _watch(run: "RunDirectory") -> None:
    """Shows how far a run is until all its samples are done."""
    from fwi_refine import runs

    state = runs.read_state(run)

    def view() -> console.View:
        idle = state.done < state.samples and not any(s["running"] for s in state.shards)
        where = "nobody works on it" if idle else ""
        return console.View(
            state.samples, state.done, state.running, state.rate, state.seconds_left, where
        )

    log.info("%s", console.text(view()))
    with console.shown(view, log.info):
        while state.done < state.samples:
            time.sleep(LOOK)
            state = runs.read_state(run)


def _print(state: "RunState") -> None:
    """The state of a run as text."""
    from fwi_refine.cli.plan import describe_duration

    click.echo(f"samples   {state.done} of {state.samples} done, in {state.parts} of "
               f"{state.chunks} parts")  # fmt: skip
    for title, counts in (("status", state.status), ("families", state.families)):
        if counts:
            text = ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))
            click.echo(f"{title:9} {text}")
    if state.rate:
        click.echo(f"rate      {3600 * state.rate:.4g} samples an hour")
    if state.seconds_left and state.done < state.samples:
        click.echo(f"left      about {describe_duration(state.seconds_left)}")
    for sample in state.running:
        click.echo(f"running   {console.describe(sample)}")
    for shard in state.shards:
        doing = "running" if shard["running"] else "not running"
        who = f"process {shard['pid']} on {shard['host']}"
        click.echo(f"shard     {shard['shard']}: {shard['done']} of {shard['chunks']} parts, "
                   f"{doing}, last {who}")  # fmt: skip
