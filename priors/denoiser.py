"""A learned denoiser of Style maps: the conditional mean of a map of which noise hides a part.

`Denoiser` is a small convolutional network with a bottleneck (U-Net [1]_). It takes a map with
white noise of known standard deviation s and gives the mean of all maps that this may be, as [2]_
has it:

    D(v, s) = trend + c_skip x + c_out F(c_in x, log s),    x = v - trend

with c_skip = S^2 / (S^2 + s^2), c_out = s S / sqrt(S^2 + s^2), c_in = 1 / sqrt(S^2 + s^2) and
S = `SPREAD`, so that input and target of the network F have unit variance at every s. The trend is
the straight line in depth nearest to the map.

`scripts/train_denoiser.py` trains it on made maps.

References
----------
.. [1] O. Ronneberger, P. Fischer and T. Brox, "U-Net: convolutional networks for biomedical image
   segmentation", MICCAI, 2015.
.. [2] T. Karras, M. Aittala, T. Aila and S. Laine, "Elucidating the design space of
   diffusion-based generative models", NeurIPS, 2022.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, pad

SPREAD = 210.0  # m/s, S: standard deviation of a Style map about its trend
CHANNELS = (32, 64, 128)  # of the three resolutions
BLOCKS = 2  # at each resolution, on the way down and up
MULTIPLE = 4  # of which the sides of what the network sees are


class _Block(nn.Module):
    """Two convolutions and what they are added to."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of x."""
        return x + self.second(leaky_relu(self.first(leaky_relu(x, 0.1)), 0.1))


def _blocks(channels: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(channels) for _ in range(BLOCKS)))


class Denoiser(nn.Module):
    """Network of the module's formula; float32, for maps of any size of at least 8 x 8 cells."""

    def __init__(self) -> None:
        super().__init__()
        first, *deeper = CHANNELS
        self.head = nn.Conv2d(3, first, 3, padding=1)
        self.down = nn.ModuleList(_blocks(c) for c in CHANNELS)
        self.pool = nn.ModuleList(
            nn.Conv2d(a, b, 2, stride=2) for a, b in zip(CHANNELS, deeper, strict=False)
        )
        self.up = nn.ModuleList(_blocks(c) for c in CHANNELS[:-1])
        self.rise = nn.ModuleList(
            nn.Conv2d(b, a, 1) for a, b in zip(CHANNELS, deeper, strict=False)
        )
        self.tail = nn.Conv2d(first, 1, 3, padding=1)

    def forward(self, v: Tensor, sigma: Tensor) -> Tensor:
        """Denoise maps.

        Parameters
        ----------
        v : Tensor, shape (n, nz, nx)
            Maps in m/s with noise.
        sigma : Tensor, shape (n,)
            Standard deviation of the noise of each in m/s.

        Returns
        -------
        Tensor, shape (n, nz, nx)
            In m/s.
        """
        trend = trend_of(v)
        s = sigma[:, None, None]
        scale = torch.sqrt(SPREAD**2 + s**2)
        x = v - trend
        level = torch.log(s / SPREAD).expand_as(v) / 4
        depth = torch.linspace(-1, 1, v.shape[1]).to(v)[:, None].expand_as(v)
        out = self.network(torch.stack((x / scale, level, depth), 1).float()).to(v)
        return trend + x * (SPREAD / scale) ** 2 + out * (s * SPREAD / scale)

    def network(self, x: Tensor) -> Tensor:
        """F: (n, 3, nz, nx) -> (n, nz, nx)."""
        nz, nx = x.shape[-2:]
        x = pad(x, (0, -nx % MULTIPLE, 0, -nz % MULTIPLE), mode="replicate")
        x = self.head(x.contiguous(memory_format=torch.channels_last))
        kept = []
        for level, blocks in enumerate(self.down):
            x = blocks(x)
            if level < len(self.pool):
                kept.append(x)
                x = self.pool[level](x)
        for level in reversed(range(len(self.up))):
            x = interpolate(self.rise[level](x), scale_factor=2.0, mode="nearest")
            x = self.up[level](x + kept[level])
        return self.tail(leaky_relu(x, 0.1))[:, 0, :nz, :nx]


def trend_of(v: Tensor) -> Tensor:
    """The straight line in depth nearest to each map.

    Parameters
    ----------
    v : Tensor, shape (n, nz, nx)
        Maps in m/s.

    Returns
    -------
    Tensor, shape (n, nz, 1)
        In m/s.
    """
    depth = torch.arange(v.shape[1]).to(v) - 0.5 * (v.shape[1] - 1)
    rows = v.mean(2)
    slope = rows @ depth / (depth @ depth)
    return rows.mean(1)[:, None, None] + slope[:, None, None] * depth[:, None]


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Write a network's weights as a compressed npz file of float16.

    Parameters
    ----------
    network : Module
        The network.
    path : str or Path
        File ending in .npz.
    """
    weights = {k: w.detach().numpy().astype(np.float16) for k, w in network.state_dict().items()}
    np.savez_compressed(
        path, **{k: w.detach().numpy().astype(np.float16) for k, w in weights.items()}
    )


def load_denoiser(path: str | Path) -> Denoiser:
    """A denoiser with the weights of a file.

    Parameters
    ----------
    path : str or Path
        As `save_weights` writes it.

    Returns
    -------
    Denoiser

    Raises
    ------
    ValueError
        If the file does not hold the weights of this network, or holds any that are not finite.
    """
    network = Denoiser()
    with np.load(path, allow_pickle=False) as file:
        found = {k: torch.from_numpy(file[k].astype(np.float32)) for k in file.files}
    try:
        network.load_state_dict(found)
    except RuntimeError as error:
        raise ValueError(f"{path}: not the weights of this network: {error}") from error
    if not all(math.isfinite(float(w.sum())) for w in found.values()):
        raise ValueError(f"{path}: holds weights that are not finite")
    return network.eval()
