"""What scripts/build_wheels.sh makes is installed and works without a network, as on Kaggle."""

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from small_survey_cases import SURVEY

from fwi_refine.io.report import read_report
from fwi_refine.survey.toml import write_survey
from fwi_refine.wave import Simulator

ROOT = Path(__file__).parents[1]
ALONE = ["unshare", "--map-root-user", "--net"]
NO_NETWORK = "import socket; socket.create_connection(('1.1.1.1', 53), 5)"


def has_namespaces() -> bool:
    return bool(shutil.which("unshare")) and not subprocess.run([*ALONE, "true"]).returncode


def missing(wheels: Path) -> set[str]:
    """What the wheels of a folder need, with the extra [plot], and the folder lacks."""
    names, needed = set(), set()
    for path in wheels.glob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            (name,) = (n for n in wheel.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
            found = email.message_from_bytes(wheel.read(name))
        names.add(canonicalize_name(found["Name"]))
        extra = {"extra": "plot" if found["Name"] == "fwi-refine" else ""}
        for requirement in map(Requirement, found.get_all("Requires-Dist") or ()):
            if requirement.marker is None or requirement.marker.evaluate(extra):
                needed.add(canonicalize_name(requirement.name))
    return needed - names


@pytest.mark.process
@pytest.mark.skipif(not has_namespaces(), reason="unshare makes no network namespaces here")
@pytest.mark.parametrize("mode", [["--alone"], []], ids=["alone", "all"])
def test_the_wheels_work_without_a_network(tmp_path, mode):
    import torch

    source = tmp_path / "source"  # building leaves files beside what it builds
    names = ("build", ".*", "*.so", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*names))
    build = [str(source / "scripts" / "build_wheels.sh"), str(tmp_path / "wheels"), *mode]
    done = subprocess.run(build, capture_output=True, text=True, timeout=1800)
    if not mode and "No matching distribution" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    wheels = sorted((tmp_path / "wheels").iterdir())
    assert sum(wheel.name.startswith("fwi_refine-") for wheel in wheels) == 1
    assert len(wheels) == 1 if mode else missing(tmp_path / "wheels") == {"torch"}

    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
               "--target", str(site), *map(str, wheels)]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def alone(*command, code=0, **more):
        found = subprocess.run([*ALONE, *command], capture_output=True, text=True, cwd=tmp_path,
                               timeout=900, env=environment | more)  # fmt: skip
        assert found.returncode == code, found.stderr
        return found

    assert "unreachable" in alone(sys.executable, "-c", NO_NETWORK, code=1).stderr
    alone(*install)

    truth = np.full(SURVEY.shape, 1800.0)
    truth[9:] = 2600
    record = Simulator(SURVEY).forward(torch.from_numpy(truth[None]))[0].numpy()
    write_survey(SURVEY, tmp_path / "s.toml")
    np.save(tmp_path / "p.npy", np.roll(truth, 1, 0)[None].astype("f4"))
    np.save(tmp_path / "d.npy", record[None].astype("f4"))
    line = ["p.npy", "d.npy", "--survey", "s.toml", "--family", "layered", "--out", "r.npy"]
    program = [sys.executable, "-c", "from fwi_refine.cli import main; main()"]
    done = alone(*program, *line, "--method", "lbfgs", "--max-evaluations", "8",
                 PYTHONPATH=str(site))  # fmt: skip
    assert "kernel: native" in done.stderr  # the compiled one was brought along
    where = alone(sys.executable, "-c", "import fwi_refine; print(fwi_refine.__file__)",
                  PYTHONPATH=str(site)).stdout  # fmt: skip
    assert where.startswith(str(site))
    if not mode:
        for name in ("numpy", "scipy", "sklearn", "matplotlib"):
            code = f"import {name}; print({name}.__file__)"
            where = alone(sys.executable, "-c", code, PYTHONPATH=str(site)).stdout
            assert where.startswith(str(site))
    (row,) = read_report(tmp_path / "r.csv")
    assert row.misfit_before is not None
    assert row.misfit_after < row.misfit_before
