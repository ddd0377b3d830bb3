"""The page of a run as text: complete, escaped, and in need of nothing else."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra [plot])")

import report_page_cases
from report_page_cases import FLAG, HARMFUL, REASON, ROWS

from fwi_refine.analysis import html_report
from fwi_refine.io.history import Step
from fwi_refine.io.report import Row


class Reader(HTMLParser):
    """Tags with their attributes, and the text of the page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    run = report_page_cases.open_run(tmp_path_factory.mktemp("page"))
    history = {"a": [Step(0, 1, 0.1), Step(1, 9, 0.01)]}
    return html_report.render(run, "misfit", worst=2, history=history)


def test_the_numbers_of_each_family():
    groups = html_report.summarise([*ROWS, Row("e", "layered", status="unfinished")])
    assert [group.family for group in groups] == ["not classified", "layered", "style-b", "all"]
    layered = groups[1]
    assert layered.samples == 4
    assert layered.status == {"refined": 2, "unchanged": 1, "unfinished": 1}
    numbers = dict(zip([name for _, name, _ in html_report.NUMBERS], layered.numbers, strict=True))
    assert numbers == {
        "misfit_before": 2e-2, "misfit_after": 3e-4, "mae_before": None, "mae_after": None,
        "expected_error": None, "evaluations": 30, "seconds": 3.0,
    }  # fmt: skip
    assert groups[0].numbers == [None] * 7
    assert groups[-1].samples == 6


def test_nothing_that_comes_from_files_is_markup(html):
    read = Reader(html)
    assert [attributes for tag, attributes in read.tags if tag == "script"] == [{}]
    assert html.count(html_report.SCRIPT.read_text()) == 1  # its own, and nothing else
    assert not [name for _, attributes in read.tags for name in attributes if name[:2] == "on"]
    for text in (HARMFUL, REASON, FLAG):
        assert text in read.text
        assert text not in html


def test_the_page_holds_all_that_it_shows(html):
    read = Reader(html)
    sources = [attributes["src"] for tag, attributes in read.tags if tag == "img"]
    assert len(sources) == 4  # histogram, convergence, two samples
    for source in sources:
        kind, _, data = source.partition(";base64,")
        start = {"data:image/png": b"\x89PNG", "data:image/svg+xml": b"<?xml"}[kind]
        assert base64.b64decode(data, validate=True).startswith(start)
    assert {tag for tag, _ in read.tags}.isdisjoint({"link", "iframe", "object", "base"})
    assert "url(" not in html
    assert "@import" not in html
    (policy,) = [a["content"] for tag, a in read.tags if "http-equiv" in a]
    assert policy.startswith("default-src 'none'; img-src data:;")
    (script,) = re.findall(r"<script>(.*)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")


def test_every_sample_stands_in_the_table(html):
    (body,) = re.findall(
        r'<div class="scroll" id="samples".*?<tbody>(.*?)</tbody>', html, re.DOTALL
    )
    assert body.count("<tr>") == len(ROWS)
    assert body.count('<a href="#sample-') == 2  # those that have pictures
    assert 'data-value="0.0003">0.0003<' in body
    assert "equal" not in body


def test_the_worst_come_first(html):
    headings = re.findall(r"<h3>(.*?)</h3>", html)
    assert [Reader(heading).text for heading in headings] == ["c", HARMFUL]


def test_a_page_of_little(tmp_path):
    """Nothing classified, nothing known but that it failed."""
    run = report_page_cases.open_run(tmp_path)
    run.rows = [Row("a", reason="x" * 5000)] * 5
    html = html_report.render(run, "error", worst=1)
    assert "<h2>Misfit before and after</h2>" not in html
    assert "5 failed" in html
    assert "kept in its directory" in html
    run.rows, run.unfinished = [Row("a", "f", status="refined", misfit_after=1e-5)] * 5, 7
    html = html_report.render(run, "misfit", worst=0)
    assert "Failed samples" not in html
    assert "7 not finished" in html
    run.rows = [Row(f"w{k}", reason="r") for k in range(html_report.MAX_LISTED + 3)]
    html = html_report.render(run, "misfit", worst=0)
    assert f"The first {html_report.MAX_LISTED} of {html_report.MAX_LISTED + 3}." in html
    (failed,) = re.findall(r'<table id="failed">.*?</table>', html, re.DOTALL)
    cut = Row("a", "f", status="refined", misfit_after=1e-5, flags="stopped early")
    run.rows = [cut, Row("b", status="unfinished")]
    html = html_report.render(run, "misfit", worst=0)
    assert '<span id="outcomes">1 stopped early, 1 not finished</span>' in html
    assert failed.count('<th scope="row">w') == html_report.MAX_LISTED


def test_digits():
    values = (None, 0, 7, 12345, 0.0, 1e-5, 0.000597, 1.0, 999.4, 12345.6, float("nan"))
    assert [html_report.digits(value) for value in values] == [
        "–", "0", "7", "12345", "0", "1e-05", "0.000597", "1", "999", "12346", "nan",
    ]  # fmt: skip


def test_an_expected_error_of_all_is_known_where_each_is():
    """Those that have none are the worst: a mean of the others would look better than it is."""
    rows = [Row(n, "f", status="refined", expected_error=e) for n, e in (("a", 1.0), ("b", 3.0))]
    column = [name for _, name, _ in html_report.NUMBERS].index("expected_error")
    failed = Row("c", "f", status="failed")
    assert html_report.summarise([*rows, failed])[-1].numbers[column] == 2.0
    unknown = Row("d", "f", status="unchanged")
    assert html_report.summarise([*rows, unknown])[-1].numbers[column] is None
