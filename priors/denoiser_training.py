"""Training of the denoiser of `denoiser.py` on maps, on one core."""

import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import write_array
from numpy.typing import ArrayLike
from torch import Tensor

from .denoiser import LEVELS, SPREAD, Denoiser, read_weight, trend_of

MAX_RATE = 1.5e-3  # of Adam
WARM_UP = 200  # steps in which the rate rises
AVERAGE_DECAY = 0.998  # of the running mean of the weights, which is the result
REPORT_STEP = 100  # steps between two calls of `watch`
ARCHIVE_ERRORS = zipfile.BadZipFile, zlib.error
MOMENTS = "step", "exp_avg", "exp_avg_sq"  # of Adam, for each weight

Watch = Callable[[int, float, Denoiser], bool]


def train(
    maps: ArrayLike,
    *,
    steps: int,
    seed: int = 0,
    batch: int = 8,
    bfloat16: bool = False,
    rate: float = MAX_RATE,
    first: Denoiser | None = None,
    watch: Watch | None = None,
    checkpoint: str | Path | None = None,
) -> Denoiser:
    """Train a denoiser on maps.

    Parameters
    ----------
    maps : array_like, shape (n, nz, nx)
        Maps in m/s, with cells of 10 m.
    steps : int
        Batches; the rate falls to 2 % along them.
    seed : int
        Of the weights, the batches and the noise. The same seed gives the same weights, with one
        machine, torch and number of threads.
    batch : int
        Maps in each.
    bfloat16 : bool
        Convolutions in bfloat16: four times as fast where the processor has AMX.
    rate : float
        Of Adam, at most.
    first : Denoiser, optional
        Network whose weights training begins with, for instance one of other maps; by default
        they are random.
    watch : callable, optional
        watch(step, loss, network) every `REPORT_STEP` steps, with the mean loss of these and the
        network so far; training ends where it returns True.
    checkpoint : str or Path, optional
        File that keeps the state every `REPORT_STEP` steps. Where it exists, training goes on from
        it and ends at the weights of one that was never cut off.

    Returns
    -------
    Denoiser
        The running mean of the weights; its errors are not measured yet.

    Raises
    ------
    ValueError
        For maps of another shape, for values that are not finite, and for a checkpoint of other
        maps or settings.

    Notes
    -----
    The loss is the mean square error of the network's output F, whose target has unit variance at
    every level of noise. Levels are drawn with a uniform logarithm. Maps are mirrored, turned
    upside down and made negative about their trend, and made stronger or weaker.
    """
    clean = torch.as_tensor(np.asarray(maps, np.float32))
    if clean.dim() != 3 or len(clean) == 0 or min(clean.shape[1:]) < 2:
        raise ValueError(f"maps have shape {tuple(clean.shape)}, expected (n, nz >= 2, nx >= 2)")
    if not bool(torch.isfinite(clean).all()):
        raise ValueError("the maps hold values that are not finite")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, mean = Denoiser(), Denoiser()
    if first is not None:
        network.load_state_dict(first.state_dict())
    mean.load_state_dict(network.state_dict())
    optimiser = torch.optim.Adam(network.parameters(), rate, betas=(0.9, 0.99))
    done, losses = 0, []
    parts = {"network": network, "mean": mean, "optimiser": optimiser}
    checksums = [zlib.crc32(w.detach().numpy().tobytes()) for w in (clean, *network.parameters())]
    settings = [steps, seed, batch, bfloat16, rate, *checksums]
    if checkpoint is not None and os.path.exists(checkpoint):
        done = _resume(checkpoint, parts, settings)
    for step in range(done + 1, steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = _rate(step, steps, rate)
        target, sigma, noisy = _draw(clean, batch, np.random.default_rng([seed, 1, step]))
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            found = network(noisy, sigma)
        scale = sigma * SPREAD / torch.sqrt(SPREAD**2 + sigma**2)
        loss = ((found - target) / scale[:, None, None]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        keep = min(AVERAGE_DECAY, step / (step + 10))
        with torch.no_grad():
            for kept, new in zip(mean.parameters(), network.parameters(), strict=True):
                kept.lerp_(new, 1 - keep)
        losses.append(float(loss.detach()))
        if checkpoint is not None and step % REPORT_STEP == 0:
            _keep(checkpoint, parts, settings, step)
        if watch is not None and (step % REPORT_STEP == 0 or step == steps):
            if watch(step, sum(losses) / len(losses), mean):
                break
            losses = []
    return mean.train(False).requires_grad_(False)


def measure(network: Denoiser, maps: ArrayLike) -> dict[float, float]:
    """Measure the rms error of denoised maps at each of `LEVELS`, for `Denoiser.error`.

    Parameters
    ----------
    network : Denoiser
        The network, which keeps what is found.
    maps : array_like, shape (n, nz, nx)
        Maps in m/s that it was not trained on.

    Returns
    -------
    dict
        Rms errors in m/s by the standard deviation of the noise in m/s.
    """
    clean = torch.as_tensor(np.asarray(maps, np.float32))
    found = {}
    for sigma in LEVELS:
        noise = np.random.default_rng(0).standard_normal(clean.shape, np.float32)
        noisy = clean + float(sigma) * torch.from_numpy(noise)
        with torch.no_grad():
            denoised = network(noisy, torch.full((len(clean),), float(sigma)))
        found[float(sigma)] = float((denoised - clean).square().mean().sqrt())
    network.get_buffer("errors").copy_(torch.tensor(list(found.values())))
    return found


def _keep(path: str | Path, parts: dict[str, Any], settings: list[float], step: int) -> None:
    """Write a checkpoint, whole or not at all: arrays and numbers, reading which runs no code."""
    with zipfile.ZipFile(f"{path}.part", "w") as file:
        file.writestr("settings.json", json.dumps([step, *settings]))
        for name, values in _tensors(parts).items():
            with file.open(f"{name}.npy", "w") as member:
                write_array(member, values.numpy(), allow_pickle=False)
    os.replace(f"{path}.part", path)


def _resume(path: str | Path, parts: dict[str, Any], settings: list[float]) -> int:
    """Set the parts to the states of a checkpoint, and say after which step it was written."""
    shapes = {name: tuple(values.shape) for name, values in _tensors(parts).items()}
    try:
        with zipfile.ZipFile(path) as file:
            step, *found = json.loads(file.read("settings.json"))
            tensors = {name: read_weight(file, name, shape) for name, shape in shapes.items()}
    except (OSError, KeyError, TypeError, ValueError, EOFError, *ARCHIVE_ERRORS) as error:
        raise ValueError(f"{path}: is no checkpoint of a training: {error}") from error
    if found != settings:
        raise ValueError(
            f"{path}: is of other maps, first weights or settings: (steps, seed, batch, bfloat16, "
            f"rate) are {found[:5]}, expected {settings[:5]}; delete it to begin anew"
        )
    for name in ("network", "mean"):
        parts[name].load_state_dict({k: tensors[f"{name}/{k}"] for k in parts[name].state_dict()})
    optimiser = parts["optimiser"]
    numbers = range(len(list(parts["network"].parameters())))
    state = {n: {k: tensors[f"optimiser/{n}/{k}"] for k in MOMENTS} for n in numbers}
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
    return int(step)


def _tensors(parts: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name; moments are 0 before the first step."""
    found = {
        f"{n}/{key}": v for n in ("network", "mean") for key, v in parts[n].state_dict().items()
    }
    state = parts["optimiser"].state_dict()["state"]
    for n, weight in enumerate(parts["network"].parameters()):
        first = {key: torch.zeros(() if key == "step" else weight.shape) for key in MOMENTS}
        moments = state.get(n, first)
        found |= {f"optimiser/{n}/{key}": moments[key] for key in MOMENTS}
    return found


def _rate(step: int, steps: int, most: float) -> float:
    """The learning rate: it rises in a line and falls as a cosine."""
    fall = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))
    return most * min(1.0, step / WARM_UP) * fall


def _draw(maps: Tensor, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Maps (count, nz, nx), the noise of each (count,), m/s, and the maps with it."""
    clean = maps[rng.integers(len(maps), size=count)]
    trend = trend_of(clean)
    picture = clean - trend
    for axis in (1, 2):
        turned = torch.from_numpy(rng.random((count, 1, 1)) < 0.5)
        picture = torch.where(turned, picture.flip(axis), picture)
    strength = np.exp(rng.normal(0, 0.25, count)) * rng.choice([-1, 1], count, p=[0.25, 0.75])
    clean = trend + picture * torch.from_numpy(strength).float()[:, None, None]
    sigma = torch.from_numpy(
        np.exp(rng.uniform(math.log(LEVELS[0]), math.log(LEVELS[-1]), count))
    ).float()
    noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
    return clean, sigma, clean + noise * sigma[:, None, None]
