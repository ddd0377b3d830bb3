"""The benchmark of a GPU, rehearsed on the CPU, and the table made of its results."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from wave_cases import NATIVE

SCRIPTS = Path(__file__).parents[1] / "scripts"


def script(name):
    spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def measured(monkeypatch, out, *arguments):
    benchmark = script("benchmark_gpu")
    words = ["benchmark_gpu.py", "--device", "cpu", "--tiny", "--repeats", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*words, *arguments])
    assert benchmark.main() == 0
    return json.loads(out.read_text())


@NATIVE
def test_the_first_part_is_kept_though_there_is_no_time_for_more(monkeypatch, tmp_path, capsys):
    benchmark_parts = script("benchmark_gpu").PARTS
    assert [part.__name__ for part in benchmark_parts] == [
        "self_test", "speed", "step", "samples", "ceilings"
    ]  # fmt: skip
    monkeypatch.setattr("fwi_refine.wave.compare_kernels", lambda device, survey: {"torch": "none"})
    found = measured(monkeypatch, tmp_path / "gpu.json", "--minutes", "0")
    assert found["self_test"] == [{"kernel": "torch", "problem": "none", "passed": False}]
    assert not {"speed", "samples"} & set(found)
    assert "no time for speed" in capsys.readouterr().err


@NATIVE
@pytest.mark.slow
def test_a_rehearsal(monkeypatch, tmp_path):
    found = measured(monkeypatch, tmp_path / "gpu.json")
    assert all(row["passed"] for row in found["self_test"])
    assert {row["precision"] for row in found["speed"]} == {"float32", "float64"}
    assert all(row["rate"] > 0 for row in found["speed"])
    whole = found["step"][-1]["seconds"]
    assert whole == pytest.approx(sum(row["seconds"] for row in found["step"][:-1]))
    assert [row["samples"] for row in found["samples"]] == [10, 10, 10]
    assert all(row["finished"] == 10 for row in found["samples"])
    assert found["ceilings"]
    render = script("render_benchmarks")
    monkeypatch.setattr(render, "RESULTS", tmp_path)
    found["samples"][0]["hours_for_test_set"] = 12.34
    for row in found["samples"][1:]:
        row["rate"], row["hours_for_test_set"] = 2.0, 10.0
    (tmp_path / "gpu.json").write_text(json.dumps(found))
    text = render.gpu()
    assert "| projected hours for 65,818 samples | 12.3 |" in text
    assert "| self-tests passed | 18 of 18 |" in text


def test_without_a_result_nothing_is_said_to_be_measured(monkeypatch, tmp_path):
    render = script("render_benchmarks")
    monkeypatch.setattr(render, "RESULTS", tmp_path)
    assert render.gpu() == "Not measured yet."
