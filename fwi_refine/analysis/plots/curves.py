"""Curves and histograms of a run: how the misfit fell, and what it was before and after."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from fwi_refine.analysis.plots import style
from fwi_refine.io.history import Step

_Points = tuple[NDArray[np.float64], NDArray[np.float64]]

MAX_NAMED = len(style.COLOURS)  # so many samples have a colour and a name each


def convergence(history: Mapping[str, Sequence[Step]]) -> Figure:
    """The misfit against the evaluations.

    A few samples have a colour and a name each; many are thin lines, with their median.

    Parameters
    ----------
    history : mapping
        Steps by id, as io.history.read_history gives them.

    Returns
    -------
    Figure
    """
    with style.styled():
        figure = style.new_figure(style.WIDTH / 2, 3.2)
        ax: Any = figure.subplots()
        few = len(history) <= MAX_NAMED
        for k, (name, steps) in enumerate(history.items()):
            x, y = _steps(steps)
            if few:
                _line(ax, x, y, steps, style.COLOURS[k], style.plain(name, 24))
            else:
                ax.step(x, y, where="post", color="0.6", linewidth=0.5, alpha=0.6)
        if not few:
            ax.step(*_median(history), where="post", color=style.COLOURS[0], linewidth=1.5,
                    label=f"median of {len(history)} samples")  # fmt: skip
        else:
            ax.plot([], [], "o", color="0.3", markersize=2.5, label="end of a stage")
        ax.set(xlabel="misfit evaluations", ylabel="misfit, rms", yscale="log", xlim=(0, None))
        _decades(ax.yaxis)
        legend = ax.legend(
            frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderpad=0
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def _line(
    ax: Any,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    steps: Sequence[Step],
    colour: str,
    name: str,
) -> None:
    """One sample, with a dot where each stage of its recipe ended."""
    ax.step(x, y, where="post", color=colour, linewidth=1.0, label=name)
    ends = [k for k in range(len(steps)) if k + 1 == len(steps) or
            steps[k + 1].stage != steps[k].stage]  # fmt: skip
    ax.plot(x[ends], y[ends], "o", color=colour, markersize=2.5)


def _steps(steps: Sequence[Step]) -> _Points:
    pairs = np.array([(step.evaluations, step.misfit) for step in steps])
    return pairs[:, 0], pairs[:, 1]


def _median(history: Mapping[str, Sequence[Step]]) -> _Points:
    """(evaluations, median over the samples of the misfit by then)."""
    curves = [_steps(steps) for steps in history.values()]
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    levels = []
    for x, y in curves:
        levels.append(y[np.maximum(np.searchsorted(x, grid, side="right") - 1, 0)])
    return grid, np.median(levels, axis=0)


def misfit_histogram(before: Iterable[float | None], after: Iterable[float | None]) -> Figure:
    """The misfits of the samples of a run, before and after, in equal bins.

    Parameters
    ----------
    before, after : iterable of float or None
        Rms misfit of each sample, in the record's units; None: not known.

    Returns
    -------
    Figure
    """
    first, last = (_positive(misfits) for misfits in (before, after))
    both = np.log10(np.concatenate([first, last]))
    low, high = (np.floor(both.min() * 4) / 4, np.ceil(both.max() * 4) / 4) if both.size else (0, 1)
    bins = 10 ** np.arange(low, max(high, low + 0.25) + 0.05, 0.125)
    with style.styled():
        figure = style.new_figure(style.WIDTH, 2.4)
        ax: Any = figure.subplots()
        # side by side: colours that lie over each other make a third
        ax.hist(
            [first, last],
            bins,
            color=[style.COLOURS[1], style.COLOURS[0]],
            label=["before", "after"],
            edgecolor="white",
            linewidth=0.3,
        )
        ax.set(xscale="log", xlabel="misfit, rms", ylabel="samples")
        ax.yaxis.get_major_locator().set_params(integer=True)
        ax.legend(
            frameon=False, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=2, borderpad=0
        )
    return figure


def _positive(misfits: Iterable[float | None]) -> NDArray[np.float64]:
    """Those that a logarithmic axis can show."""
    values = np.array([m for m in misfits if m is not None], float)
    return values[np.isfinite(values) & (values > 0)]


def _decades(axis: Any) -> None:
    """Some numbers between the powers of ten where there are few of these."""
    low, high = np.log10(axis.get_view_interval())
    if high - low < 2:
        axis.set_minor_locator(LogLocator(subs=(2, 5)))
