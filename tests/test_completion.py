"""The tab key: what it offers, in click's machinery and in a real bash, and that it is quick."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from fwi_refine.cli import COMMANDS, program, run
from fwi_refine.cli.commands.completion import SHELLS
from fwi_refine.cli.options import FAMILIES

FILES = ("predictions.npy", "records.npy", "two words.npy")


def offered(*words):
    """What is offered for the last of the words: texts, and whether file names are as well."""
    *before, last = words
    found = BashComplete(program, {}, "fwi-refine", "X").get_completions(before, last)
    return [i.value for i in found if i.type == "plain"], any(i.type == "file" for i in found)


@pytest.mark.parametrize(
    ("words", "texts", "files"),
    [
        ([""], [*COMMANDS], True),
        (["pred"], [], True),
        (["re"], ["refine", "report"], True),
        (["../re"], [], True),
        (["--max"], ["--max-evaluations"], False),
        (["--vers"], ["--version"], False),
        (["refine", "--max"], ["--max-evaluations"], False),
        (["p.npy", "seismic", "--max"], ["--max-evaluations"], False),
        (["p.npy", "seismic", "--out", "r.npy", "--method", ""],
         ["auto", "gauss-newton", "matrix-free", "preconditioned-lbfgs", "lbfgs"], False),
        (["p.npy", "s"], [], True),
        (["p.npy", "seismic", "--out", "x"], [], True),
        (["p.npy", "seismic", "--family", ""], ["auto", *FAMILIES], False),
        (["p.npy", "seismic", "--device", "cu"], ["cuda"], False),
        (["p.npy", "seismic", "--config", "absent.toml", "--ti"], ["--time-budget"], False),
        (["plot", "c"], ["contact", "convergence"], False),
        (["plot", "contact", "run", "--show", "d"], ["difference"], False),
        (["completion", ""], ["bash", "zsh", "fish"], False),
    ],
)  # fmt: skip
def test_offers(words, texts, files):
    assert offered(*words) == (texts, files)


def test_it_loads_nothing_that_takes_seconds():
    code = """
import sys
from click.shell_completion import BashComplete
from fwi_refine.cli import COMMANDS, program
complete = BashComplete(program, {}, "fwi-refine", "X").get_completions
for words in ([], ["p.npy"], ["p.npy", "s", "--device", "cuda"], *([name] for name in COMMANDS)):
    for last in ("", "re", "--"):
        complete(words, last)
heavy = ("torch", "h5py", "scipy", "joblib", "matplotlib", "jinja2")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "[]\n")


@pytest.fixture
def bash(tmp_path):
    """Asks a bash that has read the script: the words of a line -> what it completes to."""
    path = shutil.which("bash")
    if path is None:
        pytest.skip("there is no bash")
    work, programs = tmp_path / "work", tmp_path / "bin"
    programs.mkdir()
    program = programs / "fwi-refine"
    program.write_text(f"#!{sys.executable}\nfrom fwi_refine.cli import main\nmain()\n")
    program.chmod(0o755)
    (work / "reports").mkdir(parents=True)
    for name in FILES:
        (work / name).touch()
    # `compopt` says that it is not called by readline, which nothing else depends on
    script = """
eval "$(fwi-refine completion bash)"
complete -p fwi-refine >&2 || exit 9
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_fwi_refine_completion fwi-refine 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])

    def ask(*words):
        done = subprocess.run(
            [path, "--norc", "-c", script, "bash", *words],
            cwd=work, env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "-F _fwi_refine_completion fwi-refine" in done.stderr
        return done.stdout.split("\n")[:-1]

    return ask


@pytest.mark.process
def test_a_real_bash(bash):
    assert bash("fwi-refine", "pred") == ["predictions.npy"]
    assert bash("fwi-refine", "re")[:2] == ["refine", "report"]
    assert sorted(bash("fwi-refine", "re")) == ["records.npy", "refine", "report", "reports"]
    assert bash("fwi-refine", "two") == ["two words.npy"]
    assert bash("fwi-refine", "predictions.npy", "reco") == ["records.npy"]
    assert bash("fwi-refine", "predictions.npy", "records.npy", "--time") == ["--time-budget"]
    assert bash("fwi-refine", "refine", "--method", "g") == ["gauss-newton"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell(shell, capsys):
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_FWI_REFINE_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_shell_that_is_not_known(capsys):
    assert run(["completion", "tcsh"]) == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in capsys.readouterr().err
