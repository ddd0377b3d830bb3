"""How far an exact search repairs damaged integer maps, and whether a certificate is ever false.

    python scripts/benchmark_exact.py --families CurveVel_B,FlatFault_B --count 3 --cells 30
    python scripts/benchmark_exact.py --maps maps.npz --name curvevel_a --count 3

Flips cells along edges of each map to the level of a neighbour, shifts some levels by 1 or 2 m/s,
moves segments of interfaces down by a row, then searches for the map by its record. Maps are made
ones, or those of an array (N, 70, 70) of a file. With --pair, a file with `record`, `truth` and
`start` (or `v`), the start is repaired as it is, rounded. Prints a Markdown table; seconds are of
the processor. --certificates N proves N made maps instead, and maps that are hardly another.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import torch

from fwi_refine.inversion.budget import Budget
from fwi_refine.inversion.data import Data
from fwi_refine.inversion.levels.exact import certify, prove, search
from fwi_refine.inversion.levels.levels import along_edges
from fwi_refine.survey import OPENFWI
from fwi_refine.synthetic import make_map, make_record
from fwi_refine.wave import Simulator

SEGMENT = 8  # columns
HEADER = (
    "map",
    "cells wrong before",
    "wrong after",
    "exact",
    "equal before",
    "equal after",
    "evaluations",
    "seconds",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", default="FlatVel_A,CurveVel_B,FlatFault_B,CurveFault_B")
    parser.add_argument("--maps", help="an .npz file of maps instead of made ones")
    parser.add_argument("--name", help="the array in it")
    parser.add_argument("--pair", nargs="*", default=[], help=".npz files with a start each")
    parser.add_argument("--count", type=int, default=1, help="maps of each family or array")
    parser.add_argument("--first", type=int, default=0, help="number of the first of them")
    parser.add_argument("--cells", type=int, default=20, help="that are flipped")
    parser.add_argument("--levels", type=int, default=1, help="that are shifted")
    parser.add_argument("--segments", type=int, default=0, help="of interfaces, a row too deep")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget", type=int, default=300, help="evaluations per search")
    parser.add_argument("--seconds", type=float, default=np.inf, help="per search, of processor")
    parser.add_argument("--certificates", type=int, default=0, help="maps of `false_certificates`")
    parser.add_argument("--out", type=Path, help="result file, JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, certificates = [], {}
    if options.certificates:
        families = options.families.split(",")
        certificates = false_certificates(families, options.certificates, options.seed)
        print(json.dumps(certificates, indent=2), flush=True)
    else:
        print(f"| {' | '.join(HEADER)} |\n{'|---' * len(HEADER)}|")
        for name, truth, start, record in cases(options):
            rows.append(repaired(name, truth, start, record, options.budget, options.seconds))
            print(f"| {' | '.join(str(value) for value in rows[-1].values())} |", flush=True)
    if options.out:
        command = shlex.join(["python", "scripts/benchmark_exact.py", *sys.argv[1:]])
        result = {"command": command, "rows": rows, "certificates": certificates}
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def cases(options):
    """(name, truth, start, record) of each map."""
    for path in options.pair:
        with np.load(path) as pair:
            start = pair["v" if "v" in pair else "start"].round()
            yield path, pair["truth"], start, pair["record"]
    if options.pair:
        return
    for number in range(options.first, options.first + options.count):
        for name in [options.name] if options.maps else options.families.split(","):
            rng = np.random.default_rng([options.seed, number])
            if options.maps:
                with np.load(options.maps) as arrays:
                    truth = arrays[name][number].astype(np.float64)
            else:
                truth = make_map(name, rng)
            start = damaged(truth, options.cells, options.levels, options.segments, rng)
            yield f"{name} {number}", truth, start, make_record(truth)


def damaged(truth, cells, levels, segments, rng):
    """A map with so many cells flipped, levels shifted, segments moved; sources' cells stay."""
    v = truth.copy()
    below = np.argwhere(np.diff(truth, axis=0, prepend=truth[:1]))  # first under an interface
    for row, column in below[rng.permutation(len(below))[:segments]]:
        for r, c in below:
            if abs(c - column) <= SEGMENT // 2 and abs(r - row) <= 1:
                v[r, c] = truth[r - 1, c]
    for level in rng.permutation(np.unique(truth))[:levels]:
        v[v == level] += rng.choice([-2, -1, 1, 2])
    edges = [
        tuple(at) for at in np.argwhere(along_edges(truth)) if tuple(at) not in OPENFWI.sources
    ]
    for at in rng.permutation(len(edges))[:cells]:
        row, column = edges[at]
        around = v[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        others = around[around != v[row, column]]
        if others.size:
            v[row, column] = rng.choice(others)
    for source in OPENFWI.sources:
        v[source] = truth[source]
    return v


def repaired(name, truth, start, record, evaluations, seconds):
    """The search's result on one map: the values of `HEADER`."""
    simulator = Simulator(threads=1)
    began = time.process_time()
    budget = Budget(evaluations, lambda: time.process_time() > began + seconds)
    given = torch.from_numpy(np.asarray(start, dtype=np.float64))
    data = Data.of_sample(record, given, simulator)
    before = certify(given, data, budget)
    v, after = search(given, before, None, data, budget)
    wrong, left = (int((np.asarray(x) != truth).sum()) for x in (start, v))
    if after.exact and left:
        raise SystemExit(f"{name}: a false certificate")
    equal = (round(found.equal_fraction or 0.0, 4) for found in (before, after))
    figures = (*equal, float(budget.evaluations), round(time.process_time() - began, 1))
    return dict(zip(HEADER, (name, wrong, left, after.exact, *figures), strict=True))


def neighbours(truth, rng):
    """Maps that are hardly another, by name: those that a record could take for it if any."""
    edges = np.argwhere(along_edges(truth))
    deep = edges[edges[:, 0] >= edges[:, 0].max() - 2]
    row, column = deep[rng.integers(len(deep))]
    around = truth[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
    level = truth[-1, rng.integers(truth.shape[1])]
    corner = 0 if rng.random() < 0.5 else truth.shape[1] - 1
    at, other = (truth.copy() for _ in range(2))
    at[row, column] = rng.choice(around[around != truth[row, column]])
    other[-1, corner] += 1
    return {
        "a deep cell at its neighbour's level": at,
        "the lowest corner 1 m/s off": other,
        "a level of the last row 1 m/s off": np.where(truth == level, truth + 1, truth),
    }


def false_certificates(families, count, seed):
    """How many made maps are proven, and how many of their neighbours are."""
    simulator = Simulator(threads=1)
    found = {}
    for number in range(count):
        name = families[number % len(families)]
        rng = np.random.default_rng([seed, number])
        truth = make_map(name, rng)
        record = make_record(truth)
        for kind, v in {"the map": truth, **neighbours(truth, rng)}.items():
            tally = found.setdefault(kind, {"maps": 0, "proven": 0})
            tally["maps"] += 1
            tally["proven"] += prove(torch.from_numpy(v), record, simulator).exact is True
    return found


if __name__ == "__main__":
    main()
