"""Names of files and ids: their order, and names that are no plain text."""

import csv
import os

import numpy as np
import pytest
from run_cases import open_case, write_inputs

from fwi_refine import io
from fwi_refine.cli import run as run_command
from fwi_refine.cli.options.family_name import FamilyName
from fwi_refine.errors import InputError
from fwi_refine.io.convert import AS_THEY_ARE
from fwi_refine.io.inputs import indices_in, known_families
from fwi_refine.io.order import in_order
from fwi_refine.io.report import ReportWriter, Row, read_report
from fwi_refine.priors import load
from fwi_refine.routing import route_of
from fwi_refine.runs.directory import RunDirectory, read_state

NUMBERED = [f"data{k}" for k in (1, 2, 10)]


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["data10", "data2", "data1"], NUMBERED),
        (["10", "9", "1"], ["1", "9", "10"]),
        (["seis2_1_10", "seis2_1_9", "seis10_1_0"], ["seis2_1_9", "seis2_1_10", "seis10_1_0"]),
        (["a10", "a02", "a1"], ["a1", "a02", "a10"]),
        (["00aa", "0b12", "1000", "99ff"], ["00aa", "0b12", "1000", "99ff"]),  # hashes
        (["b", "a"], ["a", "b"]),
        ([], []),
    ],
)
def test_the_order_that_is_meant(names, order):
    found = in_order(names)
    assert (found.names, found.doubt) == (order, None)


def test_an_order_in_doubt_is_refused_where_it_decides(tmp_path):
    names = ["a1", "a2", "a10", "best1"]
    case = write_inputs(tmp_path, names)
    with pytest.raises(InputError, match=r"'a10\.npy' in text order and 'a2\.npy'.*--ids"):
        open_without_ids(case)
    assert [pair.record for pair in open_case(case).pairs] == [0, 2, 1, 3]  # by id
    (tmp_path / "maps").mkdir()
    for name in names:
        np.save(tmp_path / "maps" / f"{name}.npy", np.full((70, 70), 2000.0))
    maps, plain = (io.open_predictions(tmp_path / name) for name in ("maps", "starts.npy"))
    with pytest.raises(InputError, match="nothing decides"):
        indices_in(maps, plain, None)


def open_without_ids(folder):
    from fwi_refine.io.inputs import open_inputs

    return open_inputs(folder / "starts.npy", folder / "seismic")


def test_numbered_records_and_shards_are_paired_by_their_numbers(tmp_path):
    case = write_inputs(tmp_path, NUMBERED)
    inputs = open_without_ids(case)
    assert [inputs.records.ids[pair.record] for pair in inputs.pairs] == NUMBERED
    (tmp_path / "data").mkdir()
    for k, name in enumerate(NUMBERED):
        np.save(tmp_path / "data" / f"{name}.npy", np.full((1, 5, 4, 3), k, "f4"))
    records = io.open_records(tmp_path / "data")
    assert records.ids == [f"{name}_0" for name in NUMBERED]
    assert [records.read(k)[0, 0, 0] for k in range(3)] == [0, 1, 2]
    assert [records.alone(k).read(0)[0, 0, 0] for k in range(3)] == [0, 1, 2]


def test_converted_inputs_keep_their_order_and_its_doubt(tmp_path):
    from fwi_refine.io.convert import ConvertedPredictions, ConvertedRecords

    case = write_inputs(tmp_path, ["a1", "a2", "a10", "best1"])
    records = ConvertedRecords(io.open_records(case / "seismic"), None)
    with pytest.raises(InputError, match="nothing decides"):
        io.pair(None, 4, records)
    maps = ConvertedPredictions(io.open_predictions(case / "starts.npy"), AS_THEY_ARE)
    assert maps.order is None


def test_families_in_text_order_are_refused_for_maps_without_ids(tmp_path):
    table = tmp_path / "families.csv"
    table.write_text("id,family\n" + "".join(f"{n},layered\n" for n in sorted(NUMBERED)))
    with pytest.raises(InputError, match="text order"):
        known_families(table, None, 3)
    assert known_families(table, NUMBERED, 3) == ["layered"] * 3
    table.write_text("id,family\n" + "".join(f"{n},layered\n" for n in NUMBERED))
    assert known_families(table, None, 3) == ["layered"] * 3
    table.write_text("id,family\na,layered\na,style-a\n")
    with pytest.raises(InputError, match="duplicate id 'a'"):
        known_families(table, ["a"], 1)


BOM = "\ufeff"


def test_a_byte_order_mark_is_no_part_of_what_is_read(tmp_path):
    path = tmp_path / "x"
    path.write_text(f"{BOM}a\nb\n", encoding="utf-8")
    assert io.read_ids(path) == ["a", "b"]
    path.write_text(f"{BOM}id,family\na,layered\n", encoding="utf-8")
    assert io.read_ids(path) == ["a"]
    assert io.read_families(path) == {"a": "layered"}
    path.write_text(f"{BOM}id,status\na,failed\n", encoding="utf-8")
    assert read_report(path) == [Row("a")]
    header = ",".join(["oid_ypos", *(f"x_{k}" for k in range(1, 70, 2))])
    line = ",".join(["2000"] * 35)
    path = tmp_path / "s.csv"
    path.write_text(BOM + header + "\n" + "".join(f"a_y_{k},{line}\n" for k in range(70)))
    assert io.open_predictions(path).read(0)[0, 0] == 2000
    from fwi_refine.files import read_toml

    path.write_text(f"{BOM}a = 1\n", encoding="utf-8")
    assert read_toml(path) == {"a": 1}


def test_white_space_in_ids_is_kept(tmp_path):
    names = ["a  b", " c", "d "]
    (tmp_path / "ids").write_text("\n".join([*names, "  ", ""]))
    assert io.read_ids(tmp_path / "ids") == names
    writer = ReportWriter(names)
    for k, name in enumerate(names):
        writer.add(k, Row(name, reason="two\n lines"))
    writer.publish(tmp_path / "r.csv")
    rows = read_report(tmp_path / "r.csv")
    assert [row.id for row in rows] == names
    assert {row.reason for row in rows} == {"two lines"}
    assert io.read_ids(tmp_path / "r.csv") == names


@pytest.mark.parametrize("name", ["a\\b", "a\nb", "a\x85b", os.fsdecode(b"a\xff")])
@pytest.mark.parametrize("which", ["records", "predictions"])
def test_names_that_no_report_can_hold_are_refused_before_the_work(tmp_path, name, which):
    if which == "records":
        case = write_inputs(tmp_path, ["x", "y"])
        (case / "seismic" / "x.npy").rename(case / "seismic" / f"{name}.npy")
        with pytest.raises(InputError, match="cannot be used"):
            open_without_ids(case)
    else:
        np.save(tmp_path / f"{name}.npy", np.full((70, 70), 2000.0))
        with pytest.raises(InputError, match="cannot be used"):
            io.open_predictions(tmp_path)


@pytest.mark.parametrize("folder", [b"b\xff", b"a\nb", b"a\\b"])
def test_folders_of_any_name(made, tmp_path, capsys, folder):
    """Paths stand in the table of a run, in its parts, in the report and in messages."""
    place = tmp_path / os.fsdecode(folder)
    place.mkdir()
    starts = made.starts.copy()
    starts[1, 3, 4] = np.nan
    np.save(place / "p.npy", starts)
    arguments = [str(place / "p.npy"), made.seismic, "--candidate", made.starts_file,
                 "--method", "lbfgs", "--max-evaluations", "1", "--run-dir", str(place / "run"),
                 "--out", str(place / "o.npy")]  # fmt: skip
    assert run_command(arguments) in (0, 3), capsys.readouterr().err
    with open(place / "o.csv", newline="", encoding="utf-8") as file:
        first = file.read()
    assert len(list(csv.DictReader(first.splitlines()))) == 3
    assert read_state(RunDirectory(place / "run")).done == 3
    assert run_command([*arguments, "--overwrite"]) in (0, 3)
    assert "2 of 2 parts are there" not in first
    with open(place / "o.csv", newline="", encoding="utf-8") as file:
        assert file.read() == first


def test_what_stands_beside_shards_is_told_of(tmp_path, caplog):
    for name in ("data1", "data2", "seis1"):
        np.save(tmp_path / f"{name}.npy", np.zeros((1, 5, 4, 3), "f4"))
    with pytest.raises(InputError, match=r"seis\*\.npy beside data\*\.npy"):
        io.open_records(tmp_path).order.decided("records")
    os.remove(tmp_path / "seis1.npy")
    np.save(tmp_path / "model1.npy", np.zeros((1, 70, 70), "f4"))
    io.open_records(tmp_path).order.decided("records")
    assert not caplog.records
    np.save(tmp_path / "extra.npy", np.zeros((5, 4, 3), "f4"))
    assert len(io.open_records(tmp_path).ids) == 2
    assert "1 files beside the shards are not read, the first of them extra.npy" in caplog.text


def test_one_record_of_two_predictions_is_told_of(caplog):
    from fwi_refine.routing.checks.inputs import _warn_of_equal

    maps, records = [np.zeros(3), np.ones(3)], [np.ones(4), np.ones(4)]
    _warn_of_equal(["a", "b"], maps[:1] * 2, records)
    _warn_of_equal(["a", "b"], maps, [records[0], 2 * records[0]])
    assert not caplog.records
    _warn_of_equal(["a", "b"], maps, records)
    assert "the records of a and b are equal" in caplog.text


def test_the_former_name_of_a_family_is_read_with_a_warning():
    with pytest.warns(FutureWarning, match="two-velocity: its name is blended"):
        assert route_of("two-velocity") == "blended"
    with pytest.warns(FutureWarning, match="its name is blended"):
        assert FamilyName("auto").convert("Two_Velocity", None, None) == "blended"


def test_a_threshold_of_earlier_releases_is_read_with_a_warning(tmp_path):
    old = tmp_path / "old.toml"
    old.write_text("[routing]\ntwo_velocity_cells = 4000\nstyle_b_cells = 90\n")
    with pytest.warns(FutureWarning, match="two_velocity_cells in .routing. no longer counts"):
        priors = load(old)
    assert priors.routing.style_b_cells == 90
