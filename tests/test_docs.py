"""The documentation: it builds without a warning and without a network, and what it says is so."""

import ast
import contextlib
import html
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import click
import pytest
from conftest import QUICK

import fwi_refine.wave
from fwi_refine.cli import COMMANDS, program, run
from fwi_refine.inversion import families
from fwi_refine.io.outcomes import OUTCOMES, PROVEN
from fwi_refine.io.report import COLUMNS, STATUSES
from fwi_refine.runs.batch import ON_CPU
from fwi_refine.runs.rounded import FLAG

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
TEXTS = [*PAGES, *(ROOT / f"{name}.md" for name in ("README", "BENCHMARKS", "CONTRIBUTING"))]


def blocks(path, language) -> list[str]:
    """The fenced blocks of a page that are marked with a language."""
    found = re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
    return [text.replace("\\\n", " ") for text in found]


def test_every_column_of_the_report_is_explained():
    """Each once, with no other; so are all statuses, and the flags that samples are counted by."""
    text = (DOCS / "report_columns.md").read_text()
    explained = re.findall(r"^\| `(\w+)` \| .+ \|$", text, re.MULTILINE)
    assert sorted(explained) == sorted(COLUMNS)
    assert {name for name in STATUSES if f"`{name}`" not in text} == set()
    flags = {*OUTCOMES} - {*STATUSES, PROVEN} | {FLAG.format("float16"), ON_CPU}
    assert {flag for flag in flags if f"| `{flag}` |" not in text} == set()


def test_each_fault_of_the_table_has_its_test():
    """A row names files of tests/, or tests in them; all are there, and none is empty."""
    rows = re.findall(r"^\| (?!fault \|)(?!---)(.+) \| (.+) \| (.+) \|$",
                      (DOCS / "reliability.md").read_text(), re.MULTILINE)  # fmt: skip
    assert len(rows) > 60
    for fault, result, named in rows:
        assert result.strip(), fault
        tests = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", named)
        assert tests, f"{fault}: names no test"
        assert len(tests) == named.count("`") / 2, fault
        for file, name in tests:
            path = ROOT / "tests" / file
            assert path.is_file(), f"{fault}: there is no tests/{file}"
            assert re.search(rf"^ *def {name or 'test_'}", path.read_text(), re.MULTILINE), fault


# It builds


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of the built pages; every warning is an error."""
    pytest.importorskip("sphinx", reason="Sphinx is not installed (extra [docs])")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra [plot])")
    folder = tmp_path_factory.mktemp("docs")
    generated = shutil.ignore_patterns("reference", "__pycache__")
    shutil.copytree(DOCS, folder / "source", ignore=generated)
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "source", "html"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.mark.slow
def test_every_page_is_built(built):
    for page in PAGES:
        assert (built / f"{page.stem}.html").stat().st_size > 5000


@pytest.mark.slow
def test_the_reference_shows_docstrings_as_they_are_meant(built):
    page = (built / "reference" / "fwi_refine.wave.reference.html").read_text()
    step = "p[n+1] = (2 - kappa + 2 c1 alpha) p[n] - (1 - kappa) p[n-1] + alpha (c2 N1 + c3 N2)\n"
    (formula,) = re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)[:1]
    assert html.unescape(re.sub("<[^>]*>", "", formula)).startswith(step)
    page = (built / "reference" / "fwi_refine.analysis.leaderboard.html").read_text()
    assert "<strong>amounts</strong>" in page  # the parameters are a list, and not a paragraph
    assert '<span class="pre">least_shift</span>' in page


@pytest.mark.slow
def test_every_command_and_option_is_listed(built):
    page = (built / "commands.html").read_text()
    for name in COMMANDS:
        assert f'id="fwi-refine-{name}"' in page
    assert 'id="cmdoption-fwi-refine-refine-time-budget"' in page
    assert "fwi-refine submit refined.npy --ids refined.csv" in re.sub("<[^>]*>", "", page)


@pytest.mark.slow
def test_formulas_are_shown_without_a_script(built):
    page, source = ((f / n).read_text() for f, n in ((built, "method.html"), (DOCS, "method.md")))
    # without braces, docutils takes \frac12 to be twelve over whatever comes next
    assert re.findall(r"\\frac(?!\{)|\\frac\{[^{}]*\}(?!\{)", source) == []
    display = source.count("$$") // 2
    assert display > 10
    assert page.count('display="block"') == display
    assert page.count("<math") > 2 * display
    assert "$" not in re.sub(r"<[^>]*>|&#36;", "", page.partition("<article")[2])


@pytest.mark.slow
def test_no_page_asks_for_anything_from_elsewhere(built):
    loaded = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"((?:https?:)?//[^\"]*)")
    for path in built.rglob("*.html"):
        assert loaded.findall(path.read_text()) == []
    for path in built.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", path.read_text()) == []


# Its commands exist


def command_lines(text) -> list[str]:
    """The lines of a text that call the program, as they would be typed."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\$\(|\)\"", line):
            if re.match(r"\s*(exec )?fwi-refine( |$)", part):
                found.append(part.strip().removeprefix("exec "))
    return found


def written(path) -> list[str]:
    """The calls that a page or README.md shows, in blocks and within lines."""
    text = path.read_text()
    inline = re.findall(r"(?<!`)`(fwi-refine[^`]*)`(?!`)", text)
    return command_lines(text) + [" ".join(call.split()) for call in inline]


def arguments_of(line) -> list[str]:
    """What the shell would give to the program, one number for each variable."""
    words = shlex.split(re.sub(r"\$\w+", "1", line), comments=True)[1:]
    return words[: words.index(">")] if ">" in words else words


def helps(command, *names):
    """(name, help) of each command that does something itself."""
    with click.Context(command) as ctx:
        if not isinstance(command, click.Group):
            yield " ".join(names), command.help
            return
        for name in command.list_commands(ctx):
            yield from helps(command.get_command(ctx, name), *names, name)


HELPS = dict(helps(program))


@pytest.fixture
def parse(monkeypatch):
    """Reads a command line as the program does, but for files that exist, GPUs, and the work."""
    monkeypatch.setattr(click.Command, "invoke", lambda self, ctx: None)
    monkeypatch.setattr(click.Path, "convert", lambda self, value, *_: Path(value))
    monkeypatch.setattr(fwi_refine.wave, "devices", lambda: ["0", "1"])

    def parsed(line):
        if line.count(" ") <= 1:  # only names a command
            assert line.partition(" ")[2] in ("", *COMMANDS, "COMMAND --help"), line
        elif " COMMAND " not in line:
            program.main(arguments_of(line), prog_name="fwi-refine", standalone_mode=False)

    return parsed


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_command_lines_that_are_written_can_be_typed(path, parse, capsys):
    for line in written(path):
        parse(line)


@pytest.mark.parametrize("name", HELPS)
def test_every_help_has_a_purpose_and_an_example(name, parse):
    purpose = HELPS[name].partition("\n\n")[0]
    assert "\n" not in purpose
    assert len(purpose) < 66, "the list of commands would cut it"
    lines = command_lines(HELPS[name])
    assert any(line.startswith(f"fwi-refine {name}") for line in lines) or name == "refine"
    assert lines, f"show in the help of {name} how it is called"
    for line in lines:
        parse(line)


@pytest.mark.parametrize(
    "line",
    [
        "fwi-refine p.npy s --out r.npy --no-such-option",
        "fwi-refine p.npy s --out r.npy --method newton",
        "fwi-refine evaluate p.npy",
        "fwi-refine refnie p.npy s",
    ],
)
def test_a_line_that_cannot_be_typed_is_noticed(line, parse):
    with pytest.raises(click.UsageError):
        parse(line)


def test_lines_are_found():
    assert len(written(ROOT / "README.md")) == 4
    assert len(written(DOCS / "tutorial.md")) > 20
    assert arguments_of('fwi-refine a.npy "b c" --shard "$I/9" > x.csv') == [
        "a.npy", "b c", "--shard", "1/9",
    ]  # fmt: skip


# What it names is there


PATHS = re.compile(
    r"(?<![\w/.-])(?:fwi_refine|priors|tests|scripts|benchmarks|docs)/[\w./*-]*[\w/]"
)
MODULES = re.compile(r"(?<![\w./-])fwi_refine(?:\.\w+)+")


def absent(text) -> list[str]:
    """What a text names and the repository lacks: files, folders, modules, and names in them."""
    files = [name for name in PATHS.findall(text) if not [*ROOT.glob(name.rstrip("/"))]]
    return files + [name for name in MODULES.findall(text) if not is_importable(name)]


def is_importable(name) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_files_and_modules_that_are_named_exist(path):
    assert absent(path.read_text()) == []


def test_absent_files_and_modules_are_noticed():
    assert (
        absent("`tests/test_docs.py`, scripts/benchmark_*.py, `fwi_refine.wave.Simulator`.") == []
    )
    text = "`tests/test_nothing.py`, fwi_refine/nowhere/, fwi_refine.wave.Nothing, fwi_refine.no.x"
    assert len(absent(text)) == 4


def test_the_benchmarks_are_those_of_the_result_files():
    command = [sys.executable, str(ROOT / "scripts" / "render_benchmarks.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("page", "most"), [("README.md", 730), ("BENCHMARKS.md", 1250)])
def test_the_first_pages_stay_short(page, most):
    """All else has a page of its own in docs/; words as `wc -w` counts them."""
    assert len((ROOT / page).read_text(encoding="utf-8").split()) <= most


# What it shows runs


CUT_SHORT = {"blend": ("--rounds", "2", "--max-simulations", "4")}


@pytest.fixture
def beside_the_samples(tmp_path, monkeypatch):
    """A folder of one's own, with data_samples in it."""
    (tmp_path / "data_samples").symlink_to(ROOT / "data_samples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_tutorial_runs(beside_the_samples, capsys):
    """Its commands in their order, those that take long with fewer evaluations."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra [plot])")
    for line in command_lines("\n".join(blocks(DOCS / "tutorial.md", "bash"))):
        words = arguments_of(line)
        quick = CUT_SHORT.get(words[0], ()) if words[0] in COMMANDS else map(str, QUICK)
        with contextlib.ExitStack() as stack:
            if ">" in line:
                file = stack.enter_context(open(shlex.split(line)[-1], "w"))
                stack.enter_context(contextlib.redirect_stdout(file))
            assert run([*words, *quick]) == 0, line
    assert "style-b,share," in capsys.readouterr().out
    made = {path.name for path in beside_the_samples.iterdir()}
    assert {"refined.csv", "run.html", "sample.png", "both.npy", "submission.csv"} <= made


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[] if path.name == "recipes.md" else pytest.mark.slow)
        for path in PAGES
        if blocks(path, "python")
    ],
    ids=lambda path: path.name,
)
def test_the_python_of_a_page_runs(path, beside_the_samples):
    for text in blocks(path, "toml"):
        Path("line.toml").write_text(text)
    with patch.dict(families._registered):  # recipes.md adds one
        exec(compile("\n".join(blocks(path, "python")), str(path), "exec"), {})


# The messages that it quotes are those of the program


def messages() -> list[str]:
    """All texts in the sources, with … for what is filled in."""
    found = []
    for path in [*(ROOT / "fwi_refine").rglob("*.py"), *(ROOT / "priors").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[.\d]*[sdfg]", "…", node.value))
    return found


def test_quoted_messages_are_those_of_the_program():
    known = messages()
    quoted = blocks(DOCS / "troubleshooting.md", "text")
    assert len(quoted) > 30
    for message in quoted:
        words = message.strip().strip("… ")
        assert len(words) > 10
        assert any(words in text for text in known), message
