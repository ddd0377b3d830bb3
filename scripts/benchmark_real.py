"""Accuracy on real maps: start -> refined error and misfit, evaluations, seconds.

    python scripts/benchmark_real.py --jobs 2
    python scripts/benchmark_real.py --cases r01,r02 --out real.json
    python scripts/benchmark_real.py --sets exact --per-family 3 --family CurveVel_A --add

The maps are not part of the project: --data names their folder, which holds

    cases.csv, cases.npz           maps with a start (a real network's error, or a made one)
    pair_curvefault_b.npz          a released record, its map, a start, another program's result
    pair_marmousi.npz              the same for Marmousi, 190 cells wide
    maps_exact.npz                 maps alone; their starts are made by fwi_refine.synthetic

Records of `cases` and `exact` are simulated in the released data's arithmetic, bit for bit. The
result file holds figures alone, never a map: "rows" for the cases, as render_benchmarks.py reads
them, "pairs" and "exact_maps" for the others. It is written anew as each map ends. The cases of a
family, by id, fall into two halves: methods are tuned on the first, and the second is for reports.
"""

import argparse
import csv
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import date
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from fwi_refine.analysis.metrics import mean_absolute_error
from fwi_refine.inversion.families import METHODS
from fwi_refine.inversion.sample import refine_sample
from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.synthetic import make_record, make_start
from fwi_refine.wave import Simulator

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "real"
OUT = ROOT / "benchmarks" / "real_maps.json"
SETS = {"cases": "rows", "pairs": "pairs", "exact": "exact_maps"}  # and their lists in the file

# Mean MAE of the 2nd place's own full-waveform inversion, by family, on its validation set.
SECOND_PLACE = {
    "FlatVel_B": 0.01,
    "CurveVel_A": 4.3,
    "CurveVel_B": 5.5,
    "FlatFault_A": 2.3,
    "FlatFault_B": 7.7,
    "CurveFault_A": 3.3,
    "CurveFault_B": 19.8,
    "Style_A": 5.2,
    "Style_B": 31.8,
}
UNREFINED = ["FlatFault_A", "CurveFault_A"]  # families that the 2nd place left as predicted
FAMILY_OF_EXACT = {
    "flatvel_a": "FlatVel_A",
    "curvevel_a": "CurveVel_A",
    "flatfault_a": "FlatFault_A",
    "curvefault_b": "CurveFault_B",
}
START_SEED = 4711  # of the made starts of the exact maps
MARMOUSI = replace(
    OPENFWI,
    shape=(70, 190),
    sources=tuple((1, column) for column in (0, 47, 94, 142, 189)),
    receivers=tuple((1, column) for column in range(190)),
)


@dataclass(frozen=True)
class Case:
    """One map to refine.

    Attributes
    ----------
    case, family : str
        Name of the map, and its OpenFWI family (or "Marmousi").
    kind : str
        A key of `SETS`.
    truth, start : numpy.ndarray
        (nz, nx) float32, m/s.
    record : numpy.ndarray or None
        (shots, rows, receivers); None: simulated from the truth.
    figures : dict
        Further columns of the result.
    survey : Survey
    route : str
        The family that `refine_sample` is told; "auto" where it classifies.
    """

    case: str
    family: str
    kind: str
    truth: np.ndarray
    start: np.ndarray
    record: np.ndarray | None
    figures: dict
    survey: Survey = OPENFWI
    route: str = "auto"


def read_cases(folder: Path) -> list[Case]:
    """The maps of cases.csv, with the half that each belongs to."""
    with open(folder / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with np.load(folder / "cases.npz") as maps:
        truths, starts = maps["truth"], maps["start"]
    half = halves([(row["family"], row["id"]) for row in rows])
    return [
        Case(
            case=row["id"],
            family=row["family"],
            kind="cases",
            truth=truth,
            start=start,
            record=None,
            figures={
                "second_place": SECOND_PLACE[row["family"]],
                "second_place_on_this_map": float(row["second_place"] or "nan"),
                "start_of": row["start"],
                "half": half[row["id"]],
            },
        )
        for row, truth, start in zip(rows, truths, starts, strict=True)
    ]


def halves(names: list[tuple[str, str]]) -> dict[str, str]:
    """ "tuning" for the first half, rounded up, of the ids of each family, "reporting" for others.

    Parameters
    ----------
    names : list of (str, str)
        Family and id of every case.

    Returns
    -------
    dict
        The half of each id.
    """
    found = {}
    for family in {family for family, _ in names}:
        ids = sorted(name for other, name in names if other == family)
        for number, name in enumerate(ids):
            found[name] = "tuning" if 2 * number < len(ids) else "reporting"
    return found


def read_pairs(folder: Path) -> list[Case]:
    """The two maps with a released record or one like it."""
    found = []
    pairs = {
        "curvefault_b": ("CurveFault_B", OPENFWI, "auto"),
        "marmousi": ("Marmousi", MARMOUSI, "general"),
    }
    for name, (family, survey, route) in pairs.items():
        with np.load(folder / f"pair_{name}.npz") as pair:
            pair = dict(pair)
        figures = {"peer": mean_absolute_error(pair["peer"], pair["truth"])}
        maps = pair["truth"], pair["start"], pair["record"]
        found.append(Case(f"pair_{name}", family, "pairs", *maps, figures, survey, route))
    return found


def read_exact(folder: Path, per_family: int) -> list[Case]:
    """The first exact maps of each family, with made starts."""
    found = []
    with np.load(folder / "maps_exact.npz") as maps:
        for name, family in FAMILY_OF_EXACT.items():
            for index, truth in enumerate(maps[name][:per_family].astype(np.float32)):
                rng = np.random.default_rng([START_SEED, index])
                start = make_start(truth.astype(np.float64), family, rng).astype(np.float32)
                case = f"{name}_{index}"
                figures = {"second_place": SECOND_PLACE.get(family), "start_of": "made"}
                found.append(Case(case, family, "exact", truth, start, None, figures))
    return found


def measure(case: Case, method: str, max_evaluations: int | None) -> dict:
    """Refine one map and return its figures."""
    torch.set_num_threads(1)
    record = make_record(case.truth) if case.record is None else case.record
    began = time.perf_counter()
    refined = refine_sample(
        case.start,
        record,
        survey=case.survey,
        family=case.route,
        method=method,
        max_evaluations=max_evaluations,
        simulator=Simulator(case.survey, threads=1),
    )
    seconds = time.perf_counter() - began
    velocity = refined.velocity.astype(np.float32)
    row = {
        "family": case.family,
        "case": case.case,
        "start": round(mean_absolute_error(case.start, case.truth), 3),
        "refined": round(mean_absolute_error(refined.velocity, case.truth), 4),
        "misfit_before": float(f"{refined.misfit_before:.2e}"),
        "misfit_rms": float(f"{refined.misfit_after:.2e}"),
        "evaluations": refined.evaluations,
        "seconds": round(seconds, 1),
        "exact": bool(np.array_equal(velocity, case.truth)),
        "cells_right": round(float(np.mean(velocity == case.truth)), 4),
        "expected": rounded(refined.expected_error),
        "route": str(refined.family),
        "status": refined.status,
        "flags": list(refined.flags),
    }
    return row | {key: rounded(value) for key, value in case.figures.items()}


def rounded(value):
    """A number in three decimals; None for none or NaN; anything else as it is."""
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 3)
    return value


def provenance(method: str, max_evaluations: int | None, jobs: int) -> dict:
    """What the result file says of its figures."""
    limit = "" if max_evaluations is None else f", at most {max_evaluations} evaluations"
    return origin("benchmark_real.py") | {
        "records": "the released data's arithmetic, bit for bit",
        "settings": f"method {method}{limit}",
        "jobs": jobs,
        "halves": "first half of each family's cases by id: tuning; the others: reporting",
        "second_place": "mean of the 2nd place's own validation set, by family",
        "second_place_unrefined": UNREFINED,
    }


def origin(script: str) -> dict:
    """Date, commit, machine and command of a run of a script."""
    words = sys.argv[1:]
    if "--data" in words:  # where the data lies on one machine says nothing
        place = words.index("--data")
        words = words[:place] + words[place + 2 :]
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "fwi_refine", "priors"])
    return {
        "date": date.today().isoformat(),
        "commit": (commit.stdout.strip() or "unknown") + " with changes" * changed.returncode,
        "machine": f"{os.cpu_count()} cores, {processor()}; Python {platform.python_version()}, "
        f"torch {torch.__version__}",
        "command": shlex.join(["python", f"scripts/{script}", *words]),
    }


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write(path: Path, content: dict, lists: tuple[str, ...] = tuple(SETS.values())) -> None:
    """Write the result file, one row on a line; a reader never sees half of it."""
    lines = []
    for key, value in content.items():
        if key in lists:
            rows = ",\n".join(f"    {json.dumps(row)}" for row in value)
            lines.append(f'  "{key}": [\n{rows}\n  ]' if rows else f'  "{key}": []')
        else:
            lines.append(f'  "{key}": {json.dumps(value)}')
    part = path.with_name(path.name + ".part")
    part.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    part.replace(path)


def begin(options: argparse.Namespace) -> dict:
    """The result file's content before the first new row."""
    content = provenance(options.method, options.max_evaluations, options.jobs)
    content |= {key: [] for key in SETS.values()}
    if not (options.add and options.out.exists()):
        return content
    earlier = json.loads(options.out.read_text(encoding="utf-8"))
    for key in ("commit", "settings"):
        if earlier.get(key) != content[key]:
            sys.exit(
                f"{options.out}: measured with {key} {earlier.get(key)!r}, now {content[key]!r}; "
                "one file holds the figures of one version: leave out --add, or name another --out"
            )
    return content | {key: earlier.get(key, []) for key in SETS.values()}


def select(cases: list[Case], options: argparse.Namespace) -> list[Case]:
    """The cases that the options name. Ends the program for names that are not there."""
    if options.cases:
        names = options.cases.split(",")
        if unknown := set(names) - {case.case for case in cases}:
            sys.exit(f"no case {', '.join(sorted(unknown))} in {options.data}")
        cases = [case for case in cases if case.case in names]
    if options.family:
        cases = [case for case in cases if case.family in options.family.split(",")]
    return cases


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real maps")
    parser.add_argument("--out", type=Path, default=OUT, help="the result file")
    parser.add_argument("--add", action="store_true", help="keep the file's rows; measure the rest")
    parser.add_argument("--sets", default="cases,pairs", help=f"some of {', '.join(SETS)}")
    parser.add_argument("--cases", help="names, as r01,r02,pair_marmousi")
    parser.add_argument("--family", help="OpenFWI families, as CurveVel_A,Style_B")
    parser.add_argument("--half", choices=("tuning", "reporting"))
    parser.add_argument("--per-family", type=int, default=2, help="exact maps of each family")
    parser.add_argument("--method", choices=METHODS, default="auto")
    parser.add_argument("--max-evaluations", type=int)
    parser.add_argument("--jobs", type=int, default=1, help="maps at a time, one thread each")
    options = parser.parse_args(arguments)
    if unknown := set(options.sets.split(",")) - set(SETS):
        parser.error(f"unknown sets {sorted(unknown)}: expected some of {list(SETS)}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0, or 3 where the real maps are missing."""
    options = parse(arguments)
    if not (options.data / "cases.csv").exists():
        print(f"{options.data}: no real maps there, nothing measured; --data names their folder")
        return 3
    readers = {
        "cases": lambda: read_cases(options.data),
        "pairs": lambda: read_pairs(options.data),
        "exact": lambda: read_exact(options.data, options.per_family),
    }
    cases = [case for name in options.sets.split(",") for case in readers[name]()]
    cases = select(cases, options)
    if options.half:
        cases = [case for case in cases if case.figures.get("half") == options.half]
    content = begin(options)
    done = {row["case"] for key in SETS.values() for row in content[key]}
    left = [case for case in cases if case.case not in done]
    print(f"{len(left)} maps, {len(cases) - len(left)} measured before", flush=True)
    order = {case.case: number for number, case in enumerate(cases)}
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        running = {
            pool.submit(measure, case, options.method, options.max_evaluations): case
            for case in left
        }
        for future in as_completed(running):
            row, rows = future.result(), content[SETS[running[future].kind]]
            rows.append(row)
            rows.sort(key=lambda row: order.get(row["case"], len(order)))
            write(options.out, content)
            print(
                f"{row['family']} {row['case']}: {row['start']:.2f} -> {row['refined']:.3f} m/s, "
                f"misfit {row['misfit_rms']:.1e}, {row['evaluations']} evaluations, "
                f"{row['seconds']:.0f} s, {row['route']} {'; '.join(row['flags'])}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
