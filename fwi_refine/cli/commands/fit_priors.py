"""`fwi-refine fit-priors`: hyper-parameters and routing thresholds from labelled maps."""

from pathlib import Path

import click

from fwi_refine.cli import options


@options.command("fit-priors")
@click.argument("train", type=options.Input(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    required=True,
    type=options.OUTPUT,
    help="TOML file to write; refining reads it with --priors.",
)
@click.option(
    "--predictions",
    type=options.Input(exists=True, file_okay=False, path_type=Path),
    help="Predicted maps in the same layout as TRAIN: fit the routing thresholds to them.",
)
@click.option(
    "--priors",
    "base",
    type=options.Input(exists=True, dir_okay=False, path_type=Path),
    help="Where numbers come from that are not fitted; default: the program's own.",
)
@click.option(
    "--denoiser",
    type=options.OUTPUT,
    metavar="FILE.npz",
    help="Also train a denoiser on the maps of Style B, for --prior learned; its weights.",
)
@click.option(
    "--steps",
    default=5000,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Batches of 8 maps that it is trained on: half a second each on a core.",
)
@click.option(
    "--limit",
    default=500,
    show_default=True,
    type=click.IntRange(min=2),
    metavar="N",
    help="Maps to use of each family, taken evenly over its files.",
)
@click.option("--force", is_flag=True, help="Go on where the maps look like other units.")
@click.option("--overwrite", is_flag=True, help="Replace --out if it exists.")
@options.logging_options
def command(
    train: Path,
    out: Path,
    predictions: Path | None,
    base: Path | None,
    denoiser: Path | None,
    steps: int,
    limit: int,
    force: bool,
    overwrite: bool,
) -> None:
    """Fit priors and routing thresholds to labelled maps.

    \b
    Examples:
      fwi-refine fit-priors train --out priors.toml
      fwi-refine refine predictions.npy seismic/ --out refined.npy --priors priors.toml

    For data other than that of OpenFWI, whose numbers are built in.

    TRAIN is laid out as the released training data: a folder for each family (Style_A, Style_B,
    FlatVel_A, CurveFault_B, ...) with model*.npy or vel*.npy of shape (n, 70, 70) or
    (n, 1, 70, 70) in m/s, in the folder itself or below it. A file TRAIN/Style_A.npy does as well,
    and so does a folder that scripts/make_samples.py wrote: truth.npy and families.csv are read,
    for --predictions predictions.npy. Fewer than 30 maps of a family are cautioned of.

    The Gaussian processes of Style A and Style B are fitted by maximum likelihood to the maps of
    these two folders, the total variation to the mean differences of those of Style B. The routing
    thresholds belong to predictions, not to true maps: they are fitted only with --predictions,
    each half way between the families that it separates, and kept as they are where one side is
    missing. What is not fitted is taken from --priors.

    A denoiser wants hundreds of maps and hours: its file stays where it is, as --out names it.
    """
    from functools import partial

    import tomli_w

    from fwi_refine.errors import InputError
    from fwi_refine.inversion.families import criteria
    from fwi_refine.io import atomic_path
    from fwi_refine.priors import load, to_table
    from fwi_refine.routing.fit import fit_denoiser, fit_priors
    from fwi_refine.version import __version__

    for path in (out, denoiser):
        if path is not None:
            options.claim(path, overwrite)
    try:
        priors = load(base)
    except ValueError as error:
        raise InputError(f"priors {error}") from error
    priors, notes = fit_priors(train, priors, criteria(), predictions, limit, force)
    if denoiser is not None:
        tell = partial(click.echo, err=True)
        priors, note = fit_denoiser(train, denoiser, priors, steps, limit, force, tell)
        notes.append(note)
    notes = [f"Written by fwi-refine {__version__} fit-priors from {train}.", *notes]

    text = (
        "".join(f"# {_in_a_line(note)}\n" for note in notes)
        + "\n"
        + tomli_w.dumps(to_table(priors))
    )
    with atomic_path(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    for note in notes:
        click.echo(note, err=True)
    click.echo(f"wrote {out}", err=True)


def _in_a_line(note: str) -> str:
    """A note as a comment of TOML: a path in it may hold line breaks, or bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in note)
