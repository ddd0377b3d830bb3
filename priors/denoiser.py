"""A learned denoiser of Style maps: the mean of all maps that a noisy one may be.

`Denoiser` is a small convolutional network with a bottleneck (U-Net [1]_). It takes a map v with
white noise of known standard deviation s and gives, as [2]_ has it,

    D(v, s) = trend + c_skip x + c_out F(c_in x, log s),    x = v - trend

with c_skip = S^2 / (S^2 + s^2), c_out = s S / sqrt(S^2 + s^2), c_in = 1 / sqrt(S^2 + s^2) and
S = `SPREAD`, so that input and target of the network F have unit variance at every s. The trend is
the straight line in depth nearest to the map.

`denoiser_training.train` trains it; `scripts/train_denoiser.py` made the weights that come with
the program, from made maps.

References
----------
.. [1] O. Ronneberger, P. Fischer and T. Brox, "U-Net: convolutional networks for biomedical image
   segmentation", MICCAI, 2015.
.. [2] T. Karras, M. Aittala, T. Aila and S. Laine, "Elucidating the design space of
   diffusion-based generative models", NeurIPS, 2022.
"""

import math
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import read_array_header_1_0, read_magic
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, pad

SPREAD = 210.0  # m/s, S: standard deviation of a Style_B map about its trend
CHANNELS = (32, 64, 128)  # of the three resolutions
BLOCKS = 2  # at each resolution, on the way down and up
MULTIPLE = 4  # of which the sides of what the network sees are
LEVELS = np.geomspace(0.8, 150.0, 12)  # m/s, standard deviations of noise that it is trained for
DENOISER_FILE = Path(__file__).with_name("denoiser.npz")


class _Block(nn.Module):
    """Two convolutions and what they are added to."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of x."""
        found: Tensor = self.second(leaky_relu(self.first(leaky_relu(x, 0.1)), 0.1))
        return x + found


def _blocks(channels: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(channels) for _ in range(BLOCKS)))


class Denoiser(nn.Module):
    """Network of the module's formula, in float32, for maps of at least 2 x 2 cells of 10 m."""

    def __init__(self) -> None:
        super().__init__()
        first, *deeper = CHANNELS
        pairs = list(zip(CHANNELS, deeper, strict=False))
        self.head = nn.Conv2d(2, first, 3, padding=1)
        self.down = nn.ModuleList(_blocks(c) for c in CHANNELS)
        self.pool = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(_blocks(c) for c in CHANNELS[:-1])
        self.rise = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.tail = nn.Conv2d(first, 1, 3, padding=1)
        levels = torch.from_numpy(LEVELS).float()
        self.register_buffer("errors", levels * SPREAD / torch.sqrt(SPREAD**2 + levels**2))

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
        s = sigma.to(v)[:, None, None]
        scale = torch.sqrt(SPREAD**2 + s**2)
        x = v - trend
        level = torch.log(s / SPREAD).expand_as(v) / 4
        out = self._network(torch.stack((x / scale, level), 1).float()).to(v)
        return trend + x * (SPREAD / scale) ** 2 + out * (s * SPREAD / scale)

    def error(self, sigma: float) -> float:
        """Rms error of denoised maps in m/s, with noise of standard deviation sigma in m/s.

        As `denoiser_training.measure` found it, at `LEVELS`; before that, that of the formula
        without its network and for maps without structure.
        """
        errors = self.get_buffer("errors").double().cpu().numpy()
        return float(np.exp(np.interp(np.log(sigma), np.log(LEVELS), np.log(errors))))

    def _network(self, x: Tensor) -> Tensor:
        """F: (n, 2, nz, nx) -> (n, nz, nx)."""
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
        out: Tensor = self.tail(leaky_relu(x, 0.1))
        return out[:, 0, :nz, :nx]


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


def save_denoiser(network: Denoiser, path: str | Path) -> None:
    """Write a network's weights as a compressed .npz file of float16, some 2 MB.

    Parameters
    ----------
    network : Denoiser
        The network.
    path : str or Path
        The file; one that stands there is replaced.
    """
    weights = {k: w.detach().numpy().astype(np.float16) for k, w in network.state_dict().items()}
    with open(path, "wb") as file:
        np.savez_compressed(file, **weights)


@lru_cache(maxsize=4)
def load_denoiser(path: str | Path = DENOISER_FILE) -> Denoiser:
    """A denoiser with the weights of a file.

    Parameters
    ----------
    path : str or Path, optional
        As `save_denoiser` writes it; by default that of the program.

    Returns
    -------
    Denoiser
        Its weights take no gradients. Several calls give the same one.

    Raises
    ------
    ValueError
        If the file does not hold the weights of this network, or holds any that are not finite.
    OSError
        If the file cannot be opened.
    """
    network = Denoiser()
    try:
        with zipfile.ZipFile(path) as file:
            found = {
                k: read_weight(file, k, tuple(w.shape)) for k, w in network.state_dict().items()
            }
        network.load_state_dict(found)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not the weights of a denoiser: {error}") from error
    if not all(bool(torch.isfinite(w).all()) for w in found.values()):
        raise ValueError(f"{path}: holds weights that are not finite")
    return network.train(False).requires_grad_(False)


def read_weight(file: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> Tensor:
    """Read one weight from an .npz file, of the shape that is expected: a header may claim any.

    Parameters
    ----------
    file : ZipFile
        Holds `name`.npy.
    name : str
        Of the weight.
    shape : tuple of int
        What it has to be.

    Returns
    -------
    Tensor
        float32, of that shape.

    Raises
    ------
    ValueError
        If it has another shape, or does not hold floating-point numbers.
    KeyError
        If the file does not hold it.
    """
    with file.open(f"{name}.npy") as member:
        read_magic(member)
        found, _, dtype = read_array_header_1_0(member)
        if found != shape or dtype.kind != "f":
            raise ValueError(f"{name} is {dtype} {found}, expected numbers {shape}")
        content = member.read(math.prod(shape) * dtype.itemsize)
    values = np.frombuffer(content, dtype).reshape(shape)
    return torch.from_numpy(values.astype(np.float32))
