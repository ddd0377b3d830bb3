"""How far an exact search repairs damaged integer maps, and whether a certificate is ever false.

    python scripts/benchmark_exact.py --families CurveVel_B,FlatFault_B --count 3 --cells 30
    python scripts/benchmark_exact.py --maps maps.npz --name curvevel_a --count 3

Flips cells along edges of each map to the level of a neighbour, shifts some levels by 1 or 2 m/s,
moves segments of interfaces down by a row, then searches for the map by its record. Maps are made
ones, or those of an array (N, 70, 70) of a file. With --pair, a file with `record`, `truth` and
`start` (or `v`), the start is repaired as it is, rounded. Prints a Markdown table; seconds are of
the processor.
"""

import argparse
import time

import numpy as np
import torch

from fwi_refine.inversion.levels.exact import prove, search
from fwi_refine.inversion.levels.levels import along_edges
from fwi_refine.survey import OPENFWI
from fwi_refine.synthetic import make_map, make_record
from fwi_refine.wave import Simulator

SEGMENT = 8  # columns
HEADER = (
    "map",
    "cells wrong before",
    "after",
    "exact",
    "equal before",
    "after",
    "trials",
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
    parser.add_argument("--budget", type=float, default=300.0, help="records per search")
    parser.add_argument("--seconds", type=float, default=np.inf, help="per search, of processor")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| {' | '.join(HEADER)} |\n{'|---' * len(HEADER)}|")
    for name, truth, start, record in cases(options):
        began = time.process_time()
        print(row(name, truth, start, record, options.budget, began + options.seconds), flush=True)


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


def row(name, truth, start, record, budget, until):
    """One row of the table."""
    simulator = Simulator(threads=1)
    began = time.process_time()
    v, after, trials = search(
        torch.from_numpy(np.asarray(start, dtype=np.float64)),
        record,
        None,
        simulator,
        budget,
        lambda: time.process_time() > until,
    )
    seconds = time.process_time() - began
    before = prove(torch.from_numpy(np.asarray(start, dtype=np.float64)), record, simulator)
    wrong, left = ((np.asarray(x) != truth).sum() for x in (start, v))
    if after.exact and left:
        raise SystemExit(f"{name}: a false certificate")
    cells = (
        name,
        wrong,
        left,
        {True: "yes", False: "no", None: "not tried"}[after.exact],
        f"{before.equal_fraction or 0:.1%}",
        f"{after.equal_fraction or 0:.1%}",
        f"{trials:.0f}",
        f"{seconds:.0f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
