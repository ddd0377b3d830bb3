"""One copy of the program at a time: a checkout beside an installed one, and what is installed."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from checkout import copy_sources

pytestmark = pytest.mark.process

PIP = [sys.executable, "-m", "pip"]
BUILD = ["--no-deps", "--no-build-isolation", "--no-index", "-q"]
# prints the file of every module of the program that is loaded
LOADED = """
import sys
import fwi_refine, fwi_refine.priors, fwi_refine.priors.kernels
from fwi_refine import refine, classify, load_priors
load_priors()
for name, module in sorted(sys.modules.items()):
    if name.split(".")[0] == "fwi_refine" and getattr(module, "__file__", None):
        print(module.__file__)
"""


def python(code, cwd, *path):
    """Runs code in a folder, with others behind it in Python's path."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The sources, with the priors in their place at the root and the link to them."""
    folder = copy_sources(tmp_path_factory.mktemp("copies") / "checkout")
    shutil.rmtree(folder / "fwi_refine" / "priors")
    (folder / "fwi_refine" / "priors").symlink_to("../priors")
    return folder


@pytest.fixture(scope="module")
def installed(checkout, tmp_path_factory):
    """A folder that the program is installed in, by a wheel, and the wheel."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([*PIP, "wheel", *BUILD, "-w", folder, checkout], check=True, timeout=600)
    (wheel,) = folder.glob("*.whl")
    command = [*PIP, "install", *BUILD, "--target", folder / "site", wheel]
    subprocess.run(command, check=True, timeout=600)
    return folder / "site", wheel


def test_a_wheel_holds_every_file_once(checkout, installed):
    _, wheel = installed
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    ours = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert {name.split("/")[0] for name in ours} == {"fwi_refine"}
    expected = {
        path.relative_to(checkout).as_posix()
        for path in (checkout / "fwi_refine").rglob("*")
        if path.is_file() and path.suffix not in (".so", ".pyc")
    }
    priors = {f"fwi_refine/priors/{path.name}" for path in (checkout / "priors").glob("*.*")}
    assert {name for name in ours if not name.endswith(".so")} == expected | priors


def test_python_in_a_checkout_takes_all_of_it_and_nothing_else(checkout, installed):
    site, _ = installed
    done = python(LOADED, checkout, site)
    assert done.returncode == 0, done.stderr
    files = done.stdout.split()
    assert len(files) > 30
    assert all(Path(file).resolve().is_relative_to(checkout.resolve()) for file in files)


def test_an_installed_copy_is_complete_in_itself(installed, tmp_path):
    site, _ = installed
    done = python(LOADED, tmp_path, site)
    assert done.returncode == 0, done.stderr
    assert all(Path(file).is_relative_to(site) for file in done.stdout.split())


def test_a_mix_of_two_copies_is_refused(checkout, installed, tmp_path):
    """One copy lacks its priors, and something has put those of another in their place."""
    site, _ = installed
    shutil.copytree(checkout / "fwi_refine", tmp_path / "fwi_refine", ignore=without_priors)
    mixing = f"import fwi_refine\nfwi_refine.__path__.append({str(site / 'fwi_refine')!r})\n"
    done = python(mixing + "import fwi_refine.priors", tmp_path)
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert "of another copy of the program" in " ".join(done.stderr.split())


def test_priors_have_one_name(checkout):
    done = python("import priors", checkout)
    assert done.returncode == 1
    assert "import it as fwi_refine.priors" in done.stderr


def without_priors(folder, names):
    return {"priors"} & set(names)
