"""The last line of a run, and what a mistyped line is answered."""

import logging

import pytest

from fwi_refine.cli import run
from fwi_refine.cli.progress import RunProgress
from fwi_refine.io.report import Row


def outcome(*rows, after=0.5):
    progress = RunProgress(len(rows), visible=False)
    for k, (status, flags) in enumerate(rows):
        progress.found(Row(f"s{k}", "layered", "", status, 1.0, after, flags=flags))
    return progress


def test_the_most_important_comes_first_and_the_numbers_add_up():
    progress = outcome(
        ("refined", ""),
        ("unchanged", ""),
        ("refined", "start outside bounds; poor fit"),
        ("refined", "poor fit; stopped early"),
        ("unchanged", "stopped early"),
        ("failed", ""),
        ("refined", ""),
    )
    assert progress.outcome() == (
        "1 failed, 2 stopped early, 1 fit poorly, 1 passed through unchanged, 2 refined"
    )


def test_samples_that_were_all_cut_off_are_not_called_refined(caplog):
    with caplog.at_level(logging.INFO):
        assert outcome(*[("refined", "stopped early")] * 5).summary() == 0
    (record,) = caplog.records
    assert "misfit 2 times smaller" in record.getMessage()
    assert record.getMessage().startswith("5 stopped early; misfit")
    assert record.levelno == logging.WARNING


def test_a_misfit_that_did_not_fall_is_said_to_be_as_before(caplog):
    with caplog.at_level(logging.INFO):
        assert outcome(("unchanged", ""), after=1.0).summary() == 0
    (record,) = caplog.records
    assert record.getMessage() == "1 passed through unchanged; misfit as before, layered 1"


def test_the_counts_are_the_last_line(caplog):
    with caplog.at_level(logging.INFO):
        assert outcome(("failed", ""), ("refined", "")).summary() == 3
    assert caplog.records[-1].getMessage().startswith("1 failed, 1 refined")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (["refnie", "p", "s"], "refine"),
        (["Evaluate", "p", "t"], "evaluate"),
        (["refine", "p.npy", "s", "--famly", "layered"], "--family"),
        (["refine", "p.npy", "s", "--family", "Stile_A"], "style-a"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_right_one(line, hint, capsys):
    assert run(line) == 2
    found = capsys.readouterr().err
    assert "Did you mean" in found
    assert hint in found.partition("Did you mean")[2]


def test_the_help_lists_the_families(capsys):
    assert run(["refine", "--help"]) == 0
    assert "auto|flat-vel|style-a" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("Style_A", "style-a"),
        ("FlatVel_B", "flat-vel"),
        ("curvefault-a", "blended"),
        ("CurveVel_B", "layered"),
        ("auto", "auto"),
        ("layered", "layered"),
    ],
)
def test_families_have_their_openfwi_names(name, route):
    from fwi_refine.cli.options import FamilyName

    assert FamilyName("auto").convert(name, None, None) == route


def test_evaluate_measures_the_first_samples_by_id(made, tmp_path, capsys):
    import numpy as np

    (tmp_path / "maps").mkdir()
    for name, v in zip(made.ids, made.starts, strict=True):
        np.save(tmp_path / "maps" / f"{name}.npy", v)
    (tmp_path / "ids.txt").write_text("c3\na1\nb2\n")
    np.save(tmp_path / "other.npy", made.truth[[2, 0, 1]])
    line = ["evaluate", tmp_path / "other.npy", tmp_path / "maps", "--ids", tmp_path / "ids.txt"]
    assert run([str(x) for x in [*line, "--by", "sample", "--limit", "2"]]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["c3", "a1"]
    errors = np.abs(made.starts - made.truth).mean(axis=(1, 2))
    np.testing.assert_allclose([float(r.split(",")[1]) for r in rows], errors[[2, 0]], rtol=1e-4)
