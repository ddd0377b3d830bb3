"""The Jacobian from wavefields of the sources and receivers alone, by reciprocity.

Let g_y(x) be the field at x after a unit injection into p at y, * a convolution in time, and
T = z - (2 - kappa) + (1 - kappa) / z the time part of the scheme (z advances by one step), so that
T g_y = alpha L g_y away from y. To first order a change of alpha at x adds to the record of source
s at receiver r

    d record / d alpha(x) = g_r<-x * (L p_s)(x) + at the source its own part
                          = dx^2 alpha_s alpha_r / alpha_x^2  w * T (g_s * g_r)(x)

by reciprocity, g_r<-x = g_x<-r alpha_r / alpha_x, which the discrete scheme has exactly. T g_s
is alpha L g_s plus the injection at s; what the injection adds is the source's part: the formula
holds at sources and receivers as well. With d alpha / dv = 2 alpha / v, the change of kappa by
vmin, and the padded band folded onto the edge cells,

    A(x) = sum of g_s g_r, B(x) = sum of kappa g_s g_r      over x and the band that repeats it
    by v(x): 2 dx^2 alpha_s alpha_r / (v_x alpha_x)  w T0 (A + B / (z - 1)),  T0 = z - 2 + 1 / z
    by vmin: - dx^2 alpha_s alpha_r / vmin           w T0 sum over x of B / ((z - 1) alpha_x)

in the frequency domain, and with the fields of a smooth pulse instead of g, see plan.py. The rows
are coefficients of a basis of records, see `Plan.basis` and full.py.
"""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from fwi_refine.survey import Survey
from fwi_refine.wave.deterministic import add_at
from fwi_refine.wave.jacobian.plan import Plan
from fwi_refine.wave.threads import Pool

LINES = 62  # lines of the band transformed at a time; the fields of 7 points take 28 MB in float32


def row_of(survey: Survey) -> torch.Tensor:
    """The row of the map that each row of the padded grid repeats.

    Parameters
    ----------
    survey : Survey
        The survey.

    Returns
    -------
    torch.Tensor of int64, (rows,)
        Rows of the map.
    """
    nz, band = survey.shape[0], survey.absorbing_cells
    return torch.arange(-band, nz + band).clamp(0, nz - 1)


class Assembly:
    """Assembles the rows of the Jacobian from the wavefields of one batch of points after the
    other, on the device of the map.

    A subclass says with `put` what becomes of each receiver's spectra, and makes room for it in
    `prepare`.

    The band is taken in lines that run outwards from the map, `width` cells each; the corners
    belong to the bands at the sides. Every line repeats the velocity of one edge cell.

    Parameters
    ----------
    survey : Survey
        The survey.
    plan : Plan
        Its plan.
    v : torch.Tensor, (nz, nx)
        The map, m/s.
    vmin : float
        The velocity that scales the damping, m/s.
    dtype : torch.dtype
        Of the Jacobian.
    device : torch.device
        Where it is assembled.
    """

    def __init__(
        self,
        survey: Survey,
        plan: Plan,
        v: torch.Tensor,
        vmin: float,
        dtype: torch.dtype,
        device: torch.device,
    ):
        nz, nx = survey.shape
        b = self._width = survey.absorbing_cells
        self.plan, self._survey, self._vmin = plan, survey, vmin
        self.sources = list(dict.fromkeys(survey.sources))
        self._analysis, self._synthesis = (
            matrix.to(dtype).to(device) for matrix in (plan.analysis, plan.synthesis)
        )
        complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
        self._damped = plan.damped.to(complex_dtype).to(device)
        v = v.cpu().double().flatten()  # what a device without float64 could not do
        # 2 dx^2 alpha_s alpha_r / (v_x alpha_x): the simulator injects dx^2 alpha h
        self._scale = (2 / (v**3 * survey.dt**2)).to(dtype).to(device)
        self._half_v = (v / 2).to(dtype).to(device)
        row = row_of(survey).to(device)
        column = torch.arange(nx, device=device)
        by_row, by_column = (
            vmin * torch.from_numpy(d).to(dtype).to(device) for d in survey.damping
        )
        # edge cell of each line, and kappa along a line: left, right, top, bottom
        self._lines = [
            (row * nx, by_column[:b]),
            (row * nx + nx - 1, by_column[b + nx :]),
            (column, by_row[:b]),
            (column + (nz - 1) * nx, by_row[b + nz :]),
        ]
        self._edge = torch.cat([cells for cells, _ in self._lines]).unique()
        self._shots = [self.sources.index(source) for source in survey.sources]
        self._memory = threading.local()
        self.prepare(plan)

    def prepare(self, plan: Plan) -> None:
        """Preparation of a subclass for its fields; the last step of the construction."""

    def put(self, point: tuple[int, int], own: torch.Tensor, extra: torch.Tensor) -> None:
        """Takes the spectra of a receiver, which the next ones overwrite.

        Parameters
        ----------
        point : tuple of int
            Where it is.
        own : torch.Tensor, (2 F, nz * nx)
            Of its fields on the map.
        extra : torch.Tensor, (sources, 2 F, edge cells and vmin)
            Of its products with the sources in the band.
        """
        raise NotImplementedError

    def take_sources(self, fields: torch.Tensor, pool: Pool) -> None:
        """Keeps the spectra of the sources, scaled; fields (sources, frames, rows, cols)."""
        of_map = pool.submit(lambda: self._spectra(self._map(fields)).flatten(2) * self._scale)
        lines = pool.map(self._lines_of_sources, self._chunks(fields))
        self._source_map, self._source_lines = of_map.result(), list(lines)

    def _lines_of_sources(
        self, chunk: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """One chunk's spectra for the sums A and B: (F * lines, 4 sources, width)."""
        x, cells, kappa = chunk
        a = self._spectra(x) * self._scale[cells, None]
        both = torch.stack([a, a * kappa])  # of A and B: (2, sources, 2 F, lines, width)
        lines = both.unflatten(2, (2, -1)).permute(3, 4, 0, 1, 2, 5)
        return lines.reshape(-1, 4 * len(self.sources), self._width)

    def add_receivers(self, points: Sequence[tuple[int, int]], fields: torch.Tensor) -> None:
        """Takes the fields of the receivers at these points."""
        band = self._band(fields)
        spectra = self._spectra(self._map(fields)).flatten(2)
        for point, own, extra in zip(points, spectra, band, strict=True):
            self.put(point, own, extra)

    def release(self) -> None:
        """Gives back what only `add_receivers` needs."""
        del self._source_lines
        self._memory = threading.local()

    def rows(
        self,
        own: torch.Tensor,
        extra: torch.Tensor,
        modes: slice,
        out: torch.Tensor,
        shot: int | None = None,
    ) -> None:
        """Rows of the Jacobian for one receiver.

        Parameters
        ----------
        own, extra
            As for `put`.
        modes : slice
            Which of the modes.
        out : torch.Tensor, (shots, modes, nz * nx + 1)
            Takes them.
        shot : int, optional
            One of the shots; default all.
        """
        synthesis, n_map = self._synthesis[modes], self._scale.numel()
        own_re, own_im = own.chunk(2)
        product = self._take("product", len(own), n_map)
        re, im = product.chunk(2)
        which = self._shots if shot is None else self._shots[shot : shot + 1]
        for source, rows in zip(which, out, strict=True):
            source_re, source_im = self._source_map[source].chunk(2)
            torch.mul(source_re, own_re, out=re).addcmul_(source_im, own_im, value=-1)
            torch.mul(source_re, own_im, out=im).addcmul_(source_im, own_re)
            torch.mm(synthesis, product, out=rows[:, :n_map])
            of_band = synthesis @ extra[source]
            rows[:, self._edge] += of_band[:, :-1]
            rows[:, -1] = of_band[:, -1]

    @property
    def modes(self) -> int:
        """How many rows there are for each source and receiver."""
        return len(self._synthesis)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(shots, receivers, modes, nz * nx + 1) of the whole Jacobian."""
        shots, _, receivers = self._survey.record_shape
        return shots, receivers, self.modes, self._scale.numel() + 1

    def _band(self, fields: torch.Tensor) -> torch.Tensor:
        """Share of the band in the spectra: (points, sources, 2 F, edge cells and vmin)."""
        n_freq, points, sources = len(self._damped), len(fields), len(self.sources)
        shape = (n_freq, len(self._edge), 2, sources, points)
        sums = self._damped.new_zeros(shape)
        chunks = zip(self._source_lines, self._chunks(fields), strict=True)
        for source, (x, cells, _) in chunks:
            own = self._spectra(x).view(2 * points, -1, self._width)
            products = torch.bmm(source, own.permute(1, 2, 0))
            products = products.view(n_freq, len(cells), 2, sources, 2, points, 2)
            re = products[..., 0, :, 0] - products[..., 1, :, 1]
            im = products[..., 0, :, 1] + products[..., 1, :, 0]
            add_at(sums, 1, torch.searchsorted(self._edge, cells), torch.complex(re, im))
        by_v, by_kappa = sums.unbind(2)  # (F, edge cells, sources, points)
        by_kappa = by_kappa * self._damped[:, None, None, None]
        by_vmin = (by_kappa * self._half_v[self._edge, None, None]).sum(1, keepdim=True)
        both = torch.cat([by_v + by_kappa, by_vmin / -self._vmin], dim=1).permute(3, 2, 0, 1)
        return torch.cat([both.real, both.imag], dim=2)

    def _spectra(self, x: torch.Tensor) -> torch.Tensor:
        """(points, frames, ...) -> (points, 2 F, ...), overwritten by the next call."""
        fields = self._take("fields", *x.shape).copy_(x).flatten(2)
        spectra = self._take("spectra", len(x), len(self._analysis), *x.shape[2:])
        torch.matmul(self._analysis, fields, out=spectra.flatten(2))
        return spectra

    def _take(self, name: str, *shape: int) -> torch.Tensor:
        """Memory that is kept from call to call: fresh pages would double the time of a product."""
        size = int(np.prod(shape))
        memory: dict[str, torch.Tensor] = self._memory.__dict__  # each thread has its own
        if name not in memory or len(memory[name]) < size:
            memory[name] = self._scale.new_empty(size)
        return memory[name][:size].view(shape)

    def _map(self, fields: torch.Tensor) -> torch.Tensor:
        nz, nx = self._survey.shape
        b = self._width
        return fields[:, :, b : b + nz, b : b + nx]

    def _chunks(
        self, fields: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """The band's lines, some at a time: (points, frames, lines, width), edge cells, kappa."""
        b, (nz, nx) = self._width, self._survey.shape
        columns = fields[..., b : b + nx].transpose(2, 3)
        bands = (fields[..., :b], fields[..., b + nx :], columns[..., :b], columns[..., b + nz :])
        for band, (cells, kappa) in zip(bands, self._lines, strict=True):
            for i in range(0, len(cells) if b else 0, LINES):
                yield band[:, :, i : i + LINES], cells[i : i + LINES], kappa
