"""`fwi-refine status`: how far is a run?"""

import json
from dataclasses import asdict
from pathlib import Path

import click

from fwi_refine.cli import OK, options


@options.command("status")
@options.run_argument
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@options.logging_options
def command(
    run_dir: Path,
    as_json: bool,
) -> int:
    """Say how far the run RUN is, and how long it will take.

    \b
    Example:
      fwi-refine status run

    RUN is the directory that `refine` was given as --run-dir. Says also who works on it.
    Takes a moment, also while the run goes on, and changes nothing. See verify for whether what
    it holds is sound.
    """
    from fwi_refine import runs
    from fwi_refine.cli.plan import describe_duration

    state = runs.look(runs.RunDirectory(run_dir))
    if as_json:
        click.echo(json.dumps(asdict(state) | {"seconds_left": state.seconds_left}, indent=2))
        return OK
    click.echo(f"samples   {state.done} of {state.samples} done, in {state.parts} of "
               f"{state.chunks} parts")  # fmt: skip
    for title, counts in (("status", state.status), ("families", state.families)):
        if counts:
            text = ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))
            click.echo(f"{title:9} {text}")
    if state.rate:
        left = describe_duration(state.seconds_left)
        click.echo(f"rate      {3600 * state.rate:.4g} samples an hour, about {left} left")
    for shard in state.shards:
        doing = "running" if shard["running"] else "not running"
        who = f"process {shard['pid']} on {shard['host']}"
        click.echo(f"shard     {shard['shard']}: {shard['done']} of {shard['chunks']} parts, "
                   f"{doing}, last {who}")  # fmt: skip
    return OK
