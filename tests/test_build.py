"""The kernel is built when the package is installed, and nothing is built or kept after that."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from checkout import ROOT, copy_sources
from conftest import QUICK

from fwi_refine.wave import cpu, cpu_library

# A compiler that takes its time to write a file, without optimising, which nobody looks at here.
COMPILER = """#!/bin/sh
cc "$@" -O0 || exit
while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done
cp "$out" "$out.$$" && head -c 2000 "$out.$$" > "$out" && sleep 1 && cat "$out.$$" > "$out"
rm "$out.$$"
"""
PROGRAM = "from fwi_refine.cli import main; main()"
READ_ONLY = """
set -e
for folder in {folders}; do
    mount --bind $folder $folder
    mount -o remount,bind,ro $folder
    ! touch $folder/probe 2>/dev/null
done
exec {python} -c "{program}" {arguments}
"""


@pytest.mark.process
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_two_builds_at_once(tmp_path):
    """Both succeed, although they share a folder and the disk is slow: the second one waits."""
    pytest.importorskip("setuptools")
    checkout = copy_sources(tmp_path / "checkout")
    (tmp_path / "cc").write_text(COMPILER)
    (tmp_path / "cc").chmod(0o755)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps"]
    builds = [
        subprocess.Popen(
            [*command, "--no-index", "--target", tmp_path / name, checkout],
            env=os.environ | {"CC": str(tmp_path / "cc")},
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for build in builds:
        assert build.communicate(timeout=600)[1] == ""
        assert build.returncode == 0
    one, two = (
        sorted((tmp_path / name).glob("fwi_refine/wave/_kernel*")) for name in ("one", "two")
    )
    assert one[0].read_bytes() == two[0].read_bytes()
    for library in (*one, *two):
        assert cpu_library.open_library(library).fwi_best_isa() in range(len(cpu.INSTRUCTION_SETS))


@pytest.mark.process
def test_an_installation_that_may_only_be_read(own_mounts, made, baseline, tmp_path):
    """Program, interpreter and home folder: nothing is built, cached or written there."""
    inputs = [made.starts_file, made.seismic, "--limit", "1"]
    script = READ_ONLY.format(
        folders=f"{ROOT} {sys.prefix}",
        python=sys.executable,
        program=PROGRAM,
        arguments=" ".join(map(str, [*inputs, "--out", tmp_path / "o.npy", *QUICK])),
    )
    done = subprocess.run(
        [*own_mounts, "sh", "-c", script],
        env=os.environ | {"HOME": "/proc", "XDG_CACHE_HOME": "/proc", "TMPDIR": str(tmp_path)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "o.npy").tobytes() == baseline.maps[:1].tobytes()


@pytest.mark.process
def test_without_a_kernel_a_run_warns_once(made, tmp_path):
    """Its workers have no kernel either, but say nothing more."""
    checkout = copy_sources(tmp_path / "checkout")
    np.save(tmp_path / "p.npy", np.full_like(made.starts, np.nan))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "p.npy", made.seismic, "--out", "o.npy", "--jobs", "2"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 3, done.stderr
    assert "kernel: reference" in done.stderr
    assert done.stderr.count("the compiled wave kernel is not available") == 1
