"""What float32 does to a record: its coefficients' rounding, and all else.

    python scripts/benchmark_rounding.py --seed 42

For one made map of each family, rms between records: float32 as the released data was made, exact
float64, and float64 with the coefficients rounded.
"""

import argparse

import torch

from fwi_refine.survey import OPENFWI
from fwi_refine.synthetic import FAMILIES, make_sample
from fwi_refine.wave import Simulator, released_record


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    print("| family | float32 - exact | rounded coefficients - exact | float32 - rounded |")
    print("|---" * 4 + "|")
    for family in FAMILIES:
        sample = make_sample(family, options.seed)
        v = torch.from_numpy(sample.truth).double()
        single = torch.from_numpy(sample.record[:, : OPENFWI.n_steps]).double()
        exact, rounded = Simulator().forward(v[None])[0], released_record(v)
        numbers = (
            float((a - b).square().mean()) ** 0.5
            for a, b in ((single, exact), (rounded, exact), (single, rounded))
        )
        print(f"| {family} | " + " | ".join(f"{number:.1e}" for number in numbers) + " |")


if __name__ == "__main__":
    main()
