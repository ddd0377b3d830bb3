"""`fwi-refine info`: what is this file?"""

import json
from pathlib import Path

import click

from fwi_refine.cli import OK, options
from fwi_refine.cli.options.files import load_survey


@options.command("info")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=options.PATH)
@options.survey
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@options.logging_options
def command(files: tuple[Path, ...], survey_file: Path | None, as_json: bool) -> int:
    """Say what a file or directory is.

    \b
    Examples:
      fwi-refine info predictions.npy
      fwi-refine info seismic/ train_samples/FlatVel_A

    Shape, type, range, units, sampling, family and survey of maps, records and training sets, as
    far as they can be told; also runs, surveys and tables. A few samples are read, nothing is
    changed.
    """
    from fwi_refine.analysis.describe import describe_file

    survey = load_survey(survey_file)
    found = {str(path): describe_file(path, survey) for path in files}
    if as_json:
        click.echo(json.dumps({path: dict(facts) for path, facts in found.items()}, indent=2))
        return OK
    for number, (path, facts) in enumerate(found.items()):
        click.echo(("\n" if number else "") + path)
        width = max(len(name) for name, _ in facts)
        for name, text in facts:
            click.echo(f"  {name:{width}}  {text}")
    return OK
