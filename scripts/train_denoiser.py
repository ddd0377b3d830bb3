"""Trains the denoiser of fwi_refine.priors on made Style_B maps, on one core.

    python scripts/train_denoiser.py --out priors/denoiser.npz --bfloat16 --until 2000

The maps are those of `fwi_refine.synthetic`; no real map is used. The weights so far are written
every few minutes. The same seed and number of steps give the same weights, with one machine and
torch; with --checkpoint also in several goes, each with the same command.
"""

import argparse
import json
import time

import numpy as np
import torch

from fwi_refine.priors.denoiser import Denoiser, load_denoiser, save_denoiser
from fwi_refine.priors.denoiser_training import MAX_RATE, measure, train
from fwi_refine.synthetic import make_map


def main(arguments: list[str] | None = None) -> None:
    """Train, print the error on held-back maps, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="weights to write, .npz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--maps", type=int, default=3000, help="made maps to train on")
    parser.add_argument("--held-back", type=int, default=32, help="others, to measure errors on")
    parser.add_argument("--steps", type=int, default=5000, help="batches")
    parser.add_argument("--batch", type=int, default=8, help="maps in each")
    parser.add_argument("--bfloat16", action="store_true", help="fast on processors with AMX")
    parser.add_argument("--until", type=int, help="end after so many, of the rate for all")
    parser.add_argument("--rate", type=float, default=MAX_RATE, help="of Adam, at most")
    parser.add_argument("--first", help="weights to begin with, .npz")
    parser.add_argument("--checkpoint", help="state to go on from, where there is one")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    begun = time.process_time()

    def made(first: int, count: int) -> np.ndarray:
        rngs = [np.random.default_rng([options.seed, 0, first + k]) for k in range(count)]
        return np.array([make_map("Style_B", rng) for rng in rngs], np.float32)

    held = made(options.maps, options.held_back)
    maps = made(0, options.maps)
    print(f"{len(maps)} maps in {time.process_time() - begun:.0f} s", flush=True)

    def save(network: Denoiser) -> None:
        save_denoiser(network, options.out)
        load_denoiser.cache_clear()
        rounded = load_denoiser(options.out)  # of float16: what is measured is what is used
        errors = measure(rounded, held)
        save_denoiser(rounded, options.out)
        print(json.dumps({f"{s:.3g}": round(e, 3) for s, e in errors.items()}), flush=True)

    def watch(step: int, loss: float, network: Denoiser) -> bool:
        seconds = time.process_time() - begun
        line = f"step {step}, {seconds:.0f} s, loss {loss:.4f}"
        print(line, flush=True)
        if step % 500 == 0:
            save(network)
        return step == options.until

    network = train(
        maps,
        steps=options.steps,
        seed=options.seed,
        batch=options.batch,
        bfloat16=options.bfloat16,
        rate=options.rate,
        first=load_denoiser(options.first) if options.first else None,
        watch=watch,
        checkpoint=options.checkpoint,
    )
    save(network)


if __name__ == "__main__":
    main()
