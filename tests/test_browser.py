"""The page of a run in a real browser. Skipped where there is none."""

import os
import shutil

import pytest
import report_page_cases
import run_cases

from fwi_refine.cli import run

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed (extra [test])"
)
pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra [plot])")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 300_000  # ms; a machine may have other things to do


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium: that of the system, or the one that playwright installs."""
    with playwright.sync_playwright() as driver:
        installed = next(filter(None, map(shutil.which, BROWSERS)), None)
        path = installed or driver.chromium.executable_path
        if not os.path.exists(path):
            pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
        opened = driver.chromium.launch(executable_path=path, timeout=PATIENCE)
        yield opened
        opened.close()


class Opened:
    """A page, what it said on the console, and what it asked for."""

    def __init__(self, browser, path):
        self.page = browser.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri(), wait_until="networkidle")

    def cells(self, selector):
        """Text of the cells of a table's rows."""
        return self.page.eval_on_selector_all(
            f"{selector} tr", "rows => rows.map(r => [...r.cells].map(c => c.innerText.trim()))"
        )

    def check_images(self, count):
        sizes = self.page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth])")
        assert len(sizes) == count
        for complete, width in sizes:
            assert complete
            assert width > 100


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    files = report_page_cases.write_run(folder)
    (folder / "h.csv").write_text("id,stage,evaluations,misfit\na,0,1,0.5\na,1,9,0.25\n")
    arguments = [
        "report", folder / "r.npy", "--start", files.start, "--truth", files.truth,
        "--history", folder / "h.csv", "--out", folder / "r.html", "--sort", "misfit",
    ]  # fmt: skip
    assert run([str(argument) for argument in arguments]) == 0
    return Opened(browser, folder / "r.html")


def test_the_table_shows_the_right_numbers(opened):
    heading, *rows = opened.cells("#families")
    assert tuple(heading) == report_page_cases.HEADINGS
    assert rows == report_page_cases.TABLE


def test_failed_samples_and_remarks_are_listed_as_text(opened):
    assert opened.cells("#failed")[1:] == [["d", report_page_cases.REASON]]
    assert opened.cells("#flags")[1:] == [[report_page_cases.FLAG, "2"]]
    told = "1 failed, 1 passed through unchanged, 3 refined"
    assert opened.page.inner_text("#outcomes") == told
    headings = opened.page.locator("h3").all_inner_texts()
    assert headings == ["c", report_page_cases.HARMFUL, "b", "a", "d"]
    assert opened.page.title() == "fwi-refine: r.npy"


def test_pictures_are_loaded_and_nothing_else_is(opened):
    opened.check_images(2 + 5 + 1)  # histogram, curves; samples; the history of one
    assert opened.said == []
    assert [url.split(":")[0] for url in opened.asked if not url.startswith("data:")] == ["file"]


def column(opened, number):
    return [row[number] for row in opened.cells("#samples")[1:]]


def test_a_click_sorts_the_table(opened):
    headings = opened.cells("#samples")[0]
    place = headings.index("misfit after, rms")
    assert column(opened, 0) == ["c", report_page_cases.HARMFUL, "b", "a", "d"]
    button = opened.page.locator("#samples th button").nth(place)
    button.click()
    assert column(opened, place) == ["0.0001", "0.0003", "0.004", "0.02", "–"]
    button.click()
    assert column(opened, place) == ["0.02", "0.004", "0.0003", "0.0001", "–"]
    opened.page.locator("#samples th button").first.click()
    assert column(opened, 0) == [report_page_cases.HARMFUL, "a", "b", "c", "d"]


def test_a_click_enlarges_a_picture(opened):
    page = opened.page
    page.locator("figure button").first.click()
    image = page.locator("#zoom img")
    image.wait_for()
    page.wait_for_function("document.querySelector('#zoom img').style.width")
    before = image.bounding_box()
    page.mouse.move(before["x"] + before["width"] / 2, before["y"] + before["height"] / 2)
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"document.querySelector('#zoom img').width > {1.5 * before['width']}")
    larger = image.bounding_box()
    page.mouse.down()
    page.mouse.move(before["x"] + 30, before["y"] + 40)
    page.mouse.up()
    assert image.bounding_box()["x"] < larger["x"]
    page.keyboard.press("Escape")
    assert not page.locator("#zoom").is_visible()


def test_the_page_fits_its_window(opened):
    """Nothing but tables that scroll by themselves is wider than a small window."""
    opened.page.set_viewport_size({"width": 480, "height": 800})
    width = opened.page.evaluate("document.documentElement.scrollWidth")
    opened.page.set_viewport_size({"width": 1280, "height": 800})
    assert width <= 480


def test_the_page_of_a_run_directory(browser, tmp_path):
    names = ("a", "bad<i>b", "c", "d", "e")
    folder = run_cases.write_inputs(tmp_path, names)
    directory = run_cases.prepare(folder, tmp_path / "run")
    run_cases.refine_all(folder, directory, shard=(1, 3))
    run_cases.refine_all(folder, directory, shard=(2, 3))
    out = tmp_path / "run.html"
    assert run(["report", str(tmp_path / "run"), "--out", str(out)]) == 0
    opened = Opened(browser, out)
    heading, *rows = opened.cells("#families")
    layered = dict(zip(heading, rows[1], strict=True))
    assert (layered["family"], layered["samples"]) == ("layered", "3")
    assert (layered["misfit before, rms"], layered["misfit after, rms"]) == ("0.5", "0.25")
    assert rows[-1][:5] == ["all", "4", "3", "0", "1"]
    assert "1 not finished" in opened.page.inner_text("body")
    assert opened.cells("#failed")[1][0] == "bad<i>b"
    settings = dict(opened.cells("#settings"))
    assert settings["method"] == "lbfgs"
    assert settings["version"] == directory.config["program"]["version"]
    assert settings["start"] == str(tmp_path / "starts.npy")
    opened.page.click("summary")
    assert "[samples]" in opened.page.inner_text("pre")
    opened.check_images(1 + 4)
    assert opened.said == []
