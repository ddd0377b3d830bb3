"""Figures: what they show, in which scale, and that they can be written."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra [plot])")

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from skimage.color import rgb2lab

from fwi_refine.analysis import plots
from fwi_refine.analysis.plots import style
from fwi_refine.analysis.run_view import RunView
from fwi_refine.io.history import Step
from fwi_refine.io.report import Row
from fwi_refine.survey import OPENFWI

ROW = Row("a_1", "layered", "", "refined", 0.5, 0.25, 3, 2, 0.5, 1500.0, 1.5)


@pytest.fixture(scope="module")
def view():
    """A sample of which everything is known; the refined map is half way to the truth."""
    random = np.random.default_rng(0)
    truth = np.repeat(np.linspace(1500, 4500, 70)[:, None], 70, 1)
    start = truth + random.normal(0, 100, truth.shape)
    measured = random.normal(size=(5, 999, 70))
    return RunView(
        ROW, (start + truth) / 2, OPENFWI, start, truth, np.full(truth.shape, 40.0), measured,
        measured + 5e-5 * random.normal(size=measured.shape),
    )  # fmt: skip


def images(figure):
    """{title: image} of all axes that show one."""
    return {ax.get_title(): ax.images[0] for ax in figure.axes if ax.images}


def titled(figure, words):
    (image,) = [image for title, image in images(figure).items() if words in title]
    return image


def labels(figure):
    return {text for ax in figure.axes for text in (ax.get_xlabel(), ax.get_ylabel()) if text}


def test_panels_show_all_that_is_known(view):
    figure = plots.panels(view, shots=[2, 4])
    shown = images(figure)
    assert len(shown) == 3 + 3 + 2 + 3 + 3
    maps = {
        ") start": view.start,
        ") refined": view.refined,
        ") truth": view.truth,
        "start − truth": view.start - view.truth,
        "refined − truth": view.refined - view.truth,
        "refined − start": view.refined - view.start,
        "expected, rms 40 m/s": view.deviation,
        f"error, rms {np.sqrt(np.mean((view.refined - view.truth) ** 2)):.3g} m/s": np.abs(
            view.refined - view.truth
        ),
        "measured, shot 3": view.measured[2],
        "measured, shot 5": view.measured[4],
    }
    for words, values in maps.items():
        found = [image for title, image in shown.items() if title.endswith(words)]
        assert len(found) == 1, words
        np.testing.assert_allclose(found[0].get_array(), values)
    assert {"velocity, m/s", "difference, m/s", "error, m/s", "amplitude"} <= labels(figure)
    assert {"position, m", "depth, m", "time, s", "receiver position, m"} <= labels(figure)
    assert figure.texts[0].get_text().startswith("a_1   layered   misfit 0.5 → 0.25 rms")


def test_each_row_has_one_scale_and_differences_are_centred(view):
    figure = plots.panels(view, shots=[0])
    rows = {}
    for ax in figure.axes:
        if ax.images:
            rows.setdefault(round(ax.get_position().y0, 6), []).append(ax.images[0])
    assert [len(row) for row in rows.values()] == [3, 3, 2, 3]
    for row in rows.values():
        assert len({image.get_clim() for image in row}) == 1
        assert len({image.get_cmap().name for image in row}) == 1
    velocity, difference, error, record = (row[0] for row in rows.values())
    values = np.stack([view.start, view.refined, view.truth])
    assert velocity.get_clim() == (values.min(), values.max())
    for image in (difference, record):
        low, high = image.get_clim()
        assert low == -high < 0
    assert error.get_clim()[0] == 0
    far = np.mean(np.abs(view.start - view.truth) > difference.get_clim()[1])
    assert 0 < far < 0.02  # single cells do not set the scale


def test_the_residual_is_magnified_and_says_so(view):
    figure = plots.panels(view, shots=[1])
    image = titled(figure, "residual × 10⁴")
    residual = view.simulated[1] - view.measured[1]
    np.testing.assert_allclose(image.get_array(), 10000 * residual)
    same = plots.panels(replace(view, simulated=np.zeros_like(view.measured)), shots=[1])
    np.testing.assert_allclose(titled(same, "residual").get_array(), -view.measured[1])


def test_maps_lie_where_they_are(view):
    image = titled(plots.panels(view), ") truth")
    assert tuple(image.get_extent()) == (0, 700, 700, 0)  # the surface is at the top
    ax = image.axes
    assert ax.get_ylim() == (700, 0)
    record = titled(plots.panels(view, shots=[0]), "measured")
    left, right, bottom, top = record.get_extent()
    assert (left, right, top) == (0, 700, 0)
    assert bottom == pytest.approx(0.999)


def test_what_is_not_known_is_left_out(view):
    bare = RunView(Row("x", status="refined"), view.refined)
    figure = plots.panels(bare, shots=[0])
    assert list(images(figure)) == ["(a) refined"]
    bare = replace(bare, start=view.start, deviation=np.full((70, 70), np.nan))
    assert list(images(plots.panels(bare))) == [
        "(a) start", "(b) refined", "(c) refined − start",
    ]  # fmt: skip
    kept = replace(bare, start=view.refined)
    assert list(images(plots.panels(kept))) == ["(a) start", "(b) refined"]
    failed = RunView(Row("x"), np.full((70, 70), np.nan, "f4"))
    assert len(plots.to_bytes(plots.panels(failed))) > 1000
    assert len(plots.to_bytes(plots.samples([failed]))) > 1000


def test_samples_have_a_row_each(view):
    other = replace(view, row=replace(ROW, family="Style_B"), deviation=None, truth=view.truth + 1)
    unknown = RunView(Row("c3", status=""), view.refined)
    figure = plots.samples([view, other, unknown])
    tops = [round(ax.get_position().y1, 6) for ax in figure.axes if ax.images]
    assert [tops.count(top) for top in sorted(set(tops), reverse=True)] == [5, 4, 1]
    assert [text.get_text().split("   ")[:2] for text in figure.texts] == [
        ["a_1", "layered"], ["a_1", "Style B"], ["c3"],
    ]  # fmt: skip
    assert "misfit 0.5 → 0.25 rms   expected error 1.5 m/s" in figure.texts[0].get_text()
    units = {"velocity, m/s", "difference, m/s", "error, m/s", "depth, m", "position, m"}
    assert labels(figure) == units
    titles = [ax.get_title() for ax in figure.axes]
    error = np.abs(view.refined - view.truth).mean()
    assert f"refined\nMAE {error:.3g} m/s" in titles
    assert titles.count("refined\n− truth") == 2
    assert titles.count("expected\nerror") == 1
    assert "map" in titles  # a map without a report is nobody's result


def test_without_truth_a_row_shows_what_changed(view):
    known = replace(view, truth=None)
    waiting = replace(known, row=replace(ROW, status="unfinished"))
    figure = plots.samples([known, waiting, RunView(ROW, view.refined)])
    changed = titled(figure, "refined\n− start")
    np.testing.assert_allclose(changed.get_array(), view.refined - view.start)
    assert [ax.get_title() for ax in figure.axes].count("start\n− start") == 0


def test_a_contact_sheet_has_one_scale():
    random = np.random.default_rng(1)
    maps = [random.uniform(1500 + 10 * k, 4000, (70, 70)) for k in range(31)]
    names = [f"$x_{{$ {k}" for k in range(31)]  # no formula, although it looks like half of one
    figure = plots.contact_sheet(maps, names, OPENFWI)
    assert plots.to_bytes(figure, dpi=50).startswith(b"\x89PNG")
    shown = [ax for ax in figure.axes if ax.images]
    assert [ax.get_xlabel() for ax in shown] == names
    for ax, v in zip(shown, maps, strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), v)
    assert len({ax.images[0].get_clim() for ax in shown}) == 1
    assert shown[0].get_position().y0 > shown[-1].get_position().y0
    frames = [ax.get_position() for ax in figure.axes]
    for k, a in enumerate(frames):
        assert 0 <= a.x0 < a.x1 <= 1
        assert 0 <= a.y0 < a.y1 <= 1
        assert not any(a.overlaps(b) for b in frames[k + 1 :])
    signed = plots.contact_sheet([m - 3000 for m in maps[:2]], "ab", OPENFWI, difference=True)
    low, high = signed.axes[0].images[0].get_clim()
    assert low == -high


HISTORY = {
    "a": [Step(0, 1, 1e-1), Step(1, 17, 1e-2), Step(1, 20, 1e-3), Step(2, 30, 1e-4)],
    "b $x$": [Step(0, 1, 1e-2), Step(1, 40, 1e-5)],
}


def test_convergence():
    (ax,) = plots.convergence(HISTORY).axes
    assert ax.get_yscale() == "log"
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines["a"].get_xdata()) == [1, 17, 20, 30]
    assert list(lines["a"].get_ydata()) == [1e-1, 1e-2, 1e-3, 1e-4]
    assert lines["a"].get_drawstyle() == "steps-post"
    assert [list(line.get_xdata()) for line in ax.lines if line.get_marker() == "o"] == [
        [1, 20, 30], [1, 40], [],
    ]  # fmt: skip
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "a", "b $x$", "end of a stage",
    ]  # fmt: skip


def test_the_median_of_many():
    many = {str(k): [Step(0, 1, 1.0), Step(1, 10 + k, 0.1 / (k + 1))] for k in range(9)}
    (ax,) = plots.convergence(many).axes
    (median,) = [line for line in ax.lines if line.get_label() == "median of 9 samples"]
    by_evaluation = dict(zip(*median.get_data(), strict=True))
    assert by_evaluation[13] == 1.0  # four of nine have moved
    assert by_evaluation[14] == pytest.approx(0.1)  # the fifth: the largest of those that have
    assert by_evaluation[18] == pytest.approx(0.1 / 5)


def test_the_histogram_counts_every_sample():
    random = np.random.default_rng(2)
    before, after = 10.0 ** random.uniform(-3, 0, 200), 10.0 ** random.uniform(-6, -3, 180)
    (ax,) = plots.misfit_histogram([*before, None], [*after, 0.0, None, -1.0, np.nan, np.inf]).axes
    counts = [sum(patch.get_height() for patch in bars) for bars in ax.containers]
    assert counts == [200, 180]
    assert plots.misfit_histogram([0.1], [0.1]).axes[0].get_xlim()[0] > 0
    assert plots.misfit_histogram([None], [np.nan]).axes[0].get_xlim()[0] > 0


def test_figures_are_written_by_suffix(view, tmp_path):
    row = replace(ROW, id="$x_{ <b>&-- \x07" + "é" * 99)
    figure = plots.samples([replace(view, row=replace(row, family=row.id))])
    for suffix, start in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")):
        path = tmp_path / f"f{suffix}"
        plots.save([figure], path, 100)
        assert path.read_bytes().startswith(start)
        first = path.read_bytes()
        plots.save([plots.samples([replace(view, row=replace(row, family=row.id))])], path, 100)
        assert path.read_bytes() == first, suffix
    width, height = figure.get_size_inches()
    shape = imread(tmp_path / "f.png").shape
    assert shape[:2] == (round(height * 100), round(width * 100))
    plots.save([figure, figure], tmp_path / "two.pdf")
    assert len(re.findall(rb"/Type /Page\b", (tmp_path / "two.pdf").read_bytes())) == 2
    for figures, name in (([figure], "f.jpg"), ([figure, figure], "f.png")):
        with pytest.raises(ValueError, match="cannot be written"):
            plots.save(figures, tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.pdf", "f.png", "f.svg", "two.pdf"]


def at_width(nx):
    """A sample of a survey of another width."""
    survey = replace(
        OPENFWI, shape=(20, nx), sources=((1, 2),), receivers=tuple((1, k) for k in range(nx))
    )
    maps = [np.linspace(1500, 4500, 20 * nx).reshape(20, nx) + k for k in range(4)]
    record = np.ones((1, survey.n_steps, nx))
    row = replace(ROW, mae_before=2.0, mae_after=1.0)
    return RunView(row, *maps[:1], survey, *maps[1:], record, 1.0001 * record)


def is_shown(axis, text):
    """Whether a label of a tick is drawn: those beyond the ends of an axis are not."""
    low, high = sorted(axis.get_view_interval())
    ticks = {
        label: tick for tick, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
    }
    return low - 1e-9 <= ticks.get(text, np.inf) <= high + 1e-9


def test_the_bars_of_a_histogram_do_not_lie_over_each_other():
    (ax,) = plots.misfit_histogram([1e-2, 1.1e-2], [1e-2, 1e-4]).axes
    bars = [bar for bars in ax.containers for bar in bars if bar.get_height()]
    spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars)
    assert all(a[1] <= b[0] * (1 + 1e-9) for a, b in pairwise(spans))
    assert {bar.get_alpha() for bar in bars} == {None}


def test_no_text_is_cut_or_overlaps(view):
    """Titles, labels and bars stay within the page and apart from one another."""
    long = replace(view, row=replace(ROW, id="x" * 90, family="blended"))
    for figure in (
        plots.panels(long, shots=[0]),
        plots.panels(RunView(long.row, view.refined)),
        plots.samples([long, view]),
        plots.samples([replace(long, truth=None, deviation=None)]),
        *(
            plot([other], *more)
            for other in map(at_width, (25, 300))
            for plot, *more in (
                (plots.samples,),
                (lambda views, shots: plots.panels(views[0], shots), [0]),
            )
        ),
        plots.contact_sheet([view.truth] * 7, ["c" * 30] * 7, OPENFWI),
        plots.convergence(HISTORY),
    ):
        canvas = FigureCanvasAgg(figure)
        with style.styled():
            canvas.draw()
        renderer = canvas.get_renderer()
        page = figure.bbox
        boxes = [
            text.get_window_extent(renderer)
            for ax in figure.axes
            for text in (ax.title, ax.xaxis.label, ax.yaxis.label)
            if text.get_text()
        ]
        boxes += [text.get_window_extent(renderer) for text in figure.texts]
        boxes += [
            text.get_window_extent(renderer)
            for ax in figure.axes
            if ax.images
            for axis in (ax.xaxis, ax.yaxis)
            for text in axis.get_ticklabels()
            if text.get_visible() and text.get_text() and is_shown(axis, text)
        ]
        for box in boxes:
            assert page.x0 - 1 <= box.x0 < box.x1 <= page.x1 + 1
            assert page.y0 - 1 <= box.y0 < box.y1 <= page.y1 + 1
        for k, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[k + 1 :])


def test_the_maps_of_colours_grow_steadily_in_lightness():
    """What makes a map of colours readable in grey, and with any colour vision."""

    def lightness(name):
        return rgb2lab(colormaps[name](np.linspace(0, 1, 65))[None, :, :3])[0, :, 0]

    values = np.arange(3.0)
    for scale in (style.velocity_scale(values), style.error_scale(values)):
        steps = np.diff(lightness(scale.colours))
        assert (np.sign(steps) == np.sign(steps[0])).all()
    diverging = lightness(style.difference_scale(values).colours)
    assert np.argmax(diverging) == 32
    np.testing.assert_allclose(diverging, diverging[::-1], atol=6)
