"""The wheel is installed and works where there is no network, as on Kaggle."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_survey_cases import SURVEY

from fwi_refine.io.report import read_report
from fwi_refine.survey.toml import write_survey
from fwi_refine.wave import Simulator

ROOT = Path(__file__).parents[1]
ALONE = ["unshare", "--map-root-user", "--net"]
NO_NETWORK = "import socket; socket.create_connection(('1.1.1.1', 53), 5)"


def has_namespaces() -> bool:
    return bool(shutil.which("unshare")) and not subprocess.run([*ALONE, "true"]).returncode


@pytest.mark.process
@pytest.mark.skipif(not has_namespaces(), reason="unshare makes no network namespaces here")
def test_the_wheel_works_without_a_network(tmp_path):
    import torch

    source = tmp_path / "source"  # building leaves files beside what it builds
    names = ("build", ".*", "*.so", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*names))
    build = [str(source / "scripts" / "build_wheels.sh"), str(tmp_path / "wheels"), "--alone"]
    done = subprocess.run(build, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheels").iterdir()
    assert wheel.name.startswith("fwi_refine-")

    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
               "--find-links", str(wheel.parent), "--target", str(site), "fwi-refine"]  # fmt: skip
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
    (row,) = read_report(tmp_path / "r.csv")
    assert row.misfit_before is not None
    assert row.misfit_after < row.misfit_before
