"""Trains the denoiser of fwi_refine.priors on made Style_B maps, on one core.

    python scripts/train_denoiser.py --out denoiser.npz --minutes 40

The maps are those of `fwi_refine.synthetic`; no real map is used. A checkpoint beside --out takes
up an interrupted training. The same seed and number of steps give the same weights on the same
machine and torch.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

from fwi_refine.priors.denoiser import SPREAD, Denoiser, save_weights, trend_of
from fwi_refine.synthetic import make_map

BATCH = 8
RATE = 1.5e-3  # of Adam, at most
WARM = 200  # steps in which the rate rises
LEAST, MOST = 0.8, 150.0  # m/s, standard deviations of the noise
AVERAGE = 0.998  # of the running mean of weights that is kept
KEEP = 100  # steps between checkpoints
HELD_BACK = 64  # maps that the error is measured on


def main() -> None:
    """Train, print the error on held-back maps, and write the weights."""
    options = parse()
    torch.set_num_threads(1)
    out = Path(options.out)
    checkpoint = out.with_suffix(".checkpoint.pt")
    maps = made_maps(options.maps + HELD_BACK, options.seed, out.with_suffix(".maps.npy"))
    held, maps = maps[:HELD_BACK], maps[HELD_BACK:]
    torch.manual_seed(options.seed)
    network, mean = Denoiser(), Denoiser()
    mean.load_state_dict(network.state_dict())
    optimiser = torch.optim.Adam(network.parameters(), RATE, betas=(0.9, 0.99))
    step, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        mean.load_state_dict(state["mean"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
        print(f"takes up {checkpoint} at step {step}", flush=True)
    begin, losses = time.process_time() - spent, []
    while step < options.steps:
        rate = RATE * min(1.0, (step + 1) / WARM)
        rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        clean, sigma, noisy = batch(maps, np.random.default_rng([options.seed, 1, step]))
        network.train()
        scale = sigma * SPREAD / torch.sqrt(SPREAD**2 + sigma**2)
        loss = ((network(noisy, sigma) - clean) / scale[:, None, None]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
        decay = min(AVERAGE, step / (step + 10))
        with torch.no_grad():
            for a, b in zip(mean.parameters(), network.parameters(), strict=True):
                a.lerp_(b, 1 - decay)
        losses.append(float(loss))
        if step % KEEP == 0 or step == options.steps:
            spent = time.process_time() - begin
            state = {"network": network.state_dict(), "mean": mean.state_dict()}
            state |= {"optimiser": optimiser.state_dict(), "step": step, "spent": spent}
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
            save_weights(mean, out)
            print(f"step {step}, {spent:.0f} s, loss {np.mean(losses):.4f}", flush=True)
            losses = []
            if spent > 60 * options.minutes:
                break
    print(json.dumps({"rms error by noise, m/s": held_back_errors(mean, held)}))


def made_maps(count: int, seed: int, cache: Path) -> torch.Tensor:
    """Maps (count, 70, 70) in m/s, float32, from a file if they were made before."""
    if cache.exists() and len(found := np.load(cache)) == count:
        return torch.from_numpy(found)
    maps = [make_map("Style_B", np.random.default_rng([seed, 0, k])) for k in range(count)]
    found = np.array(maps, np.float32)
    np.save(cache, found)
    return torch.from_numpy(found)


def batch(
    maps: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Maps (n, 70, 70), the noise of each (n,) in m/s, and the maps with it.

    Maps are mirrored, turned upside down about their trend, made negative about it, and made
    stronger or weaker.
    """
    clean = maps[rng.integers(len(maps), size=BATCH)]
    trend = trend_of(clean)
    picture = clean - trend
    for axis in (1, 2):
        turned = torch.from_numpy(rng.random((BATCH, 1, 1)) < 0.5)
        picture = torch.where(turned, picture.flip(axis), picture)
    strength = np.exp(rng.normal(0, 0.25, BATCH)) * rng.choice([-1, 1], BATCH, p=[0.25, 0.75])
    clean = trend + picture * torch.from_numpy(strength).float()[:, None, None]
    sigma = np.exp(rng.uniform(math.log(LEAST), math.log(MOST), BATCH))
    noise = rng.standard_normal(clean.shape, np.float32)
    spread = torch.from_numpy(sigma).float()
    return clean, spread, clean + torch.from_numpy(noise) * spread[:, None, None]


def held_back_errors(network: Denoiser, maps: torch.Tensor) -> dict[str, float]:
    """Rms error of the denoised maps for some levels of noise, m/s."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    with torch.no_grad():
        for sigma in (2.0, 10.0, 30.0, 60.0, 120.0):
            noisy = maps + sigma * torch.randn(maps.shape, generator=generator)
            clean = network(noisy, torch.full((len(maps),), sigma))
            found[f"{sigma:g}"] = round(float((clean - maps).square().mean().sqrt()), 3)
    return found


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="weights to write, .npz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--maps", type=int, default=3000, help="made maps to train on")
    parser.add_argument("--steps", type=int, default=4000, help="batches of the schedule")
    parser.add_argument("--minutes", type=float, default=60.0, help="processor time at most")
    return parser.parse_args()


if __name__ == "__main__":
    main()
