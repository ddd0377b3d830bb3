"""A survey that is not OpenFWI's, from the model to the refined map.

    python scripts/example_other_survey.py --out example [--plot example.png] [--noise 0.01]

The section is our own, in the spirit of the benchmark models of exploration: bent layers cut by
growth faults as in Marmousi, and a salt body with an overhang as in the salt models of the SEG and
of BP, though far smaller. The survey is scripts/example_other_survey.toml. Records are simulated
on the grid that they are inverted on, which flatters every method. The start is the section with
its slowness blurred, over 30 m by default.

Everything is done by commands, which are printed and can be typed as well; the files stay in --out.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from fwi_refine.cli import run
from fwi_refine.survey.toml import read_survey

SURVEY = Path(__file__).with_suffix(".toml")
LAYERS = (1600, 1850, 2050, 2350, 2250, 2600, 2900, 3200)  # m/s, from the top
DEPTHS = (0.10, 0.20, 0.30, 0.40, 0.48, 0.60, 0.74)  # of the interfaces, as fractions of the whole
FAULTS = ((0.16, 0.12, 0.09), (0.36, 0.20, 0.14))  # position at the top, lean, throw: fractions
SALT = 4450  # m/s


def section(shape) -> np.ndarray:
    """The map (nz, nx) float64 in m/s: layers, two faults and a salt body."""
    nz, nx = shape
    z, x = np.meshgrid((np.arange(nz) + 0.5) / nz, (np.arange(nx) + 0.5) / nx, indexing="ij")
    depth = z.copy()  # at which a point was before it was faulted, bent and tilted
    for place, lean, throw in FAULTS:
        moved = x > place + lean * z
        depth -= throw * moved * np.clip(z / 0.3, 0, 1)  # the faults die out towards the top
    depth += z * (0.08 * np.sin(5.0 * x) - 0.05 * (x - 0.5))
    velocity = np.array(LAYERS)[np.searchsorted(DEPTHS, depth)]

    # a stem that widens to a head: the head overhangs the layers beside it
    width = 0.05 + 0.11 * np.exp(-(((z - 0.42) / 0.14) ** 2))
    top = 0.28 + 3.0 * (x - 0.74) ** 2
    velocity[(np.abs(x - 0.74 - 0.06 * (z - 0.42)) < width) & (z > top)] = SALT
    return velocity.astype(np.float64)


def command(*arguments):
    """Prints and runs a command of fwi-refine; ends the script if it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ fwi-refine {' '.join(words)}", flush=True)
    if (code := run(words)) != 0:
        raise SystemExit(code)


def add_noise(path, fraction, seed):
    """Adds white noise to a record, its rms a fraction of the record's."""
    record = np.load(path)
    noise = np.random.default_rng(seed).standard_normal(record.shape)
    noise *= fraction * np.sqrt(np.mean(np.square(record, dtype=np.float64)))
    np.save(path, (record + noise).astype(np.float32))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the files, made if new")
    parser.add_argument("--plot", type=Path, help="picture of the result, needs the extra [plot]")
    parser.add_argument("--blur", type=float, default=30.0, help="of the start, m (30)")
    parser.add_argument("--noise", type=float, default=0.0, help="fraction of the record's rms (0)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (0)")
    parser.add_argument("--method", default="auto", help="as of fwi-refine refine (auto)")
    given = parser.parse_args()

    survey = read_survey(SURVEY)
    folder = given.out
    folder.mkdir(parents=True, exist_ok=True)
    truth, start, refined = (folder / f"{name}.npy" for name in ("truth", "start", "refined"))
    records, own = folder / "records", ("--survey", SURVEY)
    v = section(survey.shape)
    blurred = 1 / gaussian_filter(1 / v, given.blur / survey.spacing, mode="nearest")
    np.save(truth, v[None].astype(np.float32))
    np.save(start, blurred[None].astype(np.float32))

    command("simulate", truth, *own, "--out", records, "--overwrite")
    if given.noise:
        add_noise(records / "000000.npy", given.noise, given.seed)
    began = time.monotonic()
    more = ("--family", "layered", "--method", given.method, "--overwrite")
    command("refine", start, records, *own, *more, "--out", refined)
    seconds = time.monotonic() - began
    for maps in (start, refined):
        command("evaluate", maps, truth, *own, "--records", records)
    if given.plot:
        files = ("--start", start, "--truth", truth, "--records", records)
        command("plot", "panels", refined, *own, *files, "--out", given.plot, "--overwrite")

    errors = [np.abs(np.load(maps)[0] - v).mean() for maps in (start, refined)]
    with open(refined.with_suffix(".csv"), newline="") as file:
        row = next(csv.DictReader(file))
    print(f"\nMAE     {errors[0]:8.2f} m/s  -> {errors[1]:8.2f} m/s")
    print(f"misfit  {row['misfit_before']:>8} rms  -> {row['misfit_after']:>8} rms")
    print(f"{seconds:.0f} s, {row['iterations']} Jacobians, {row['evaluations']} evaluations")


if __name__ == "__main__":
    main()
