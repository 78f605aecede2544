"""The report in a headless Chromium, from file://, at the width of a desk and of a phone."""

import urllib.parse

import cv2
import pytest

from gluon_asymmnet.report.page import page
from gluon_asymmnet.report.predictions import predict_validation
from gluon_asymmnet.report.run_files import read_run
from tests.browser import Browser
from tests.report_runs import HOSTILE, classifier_run, detector_run, trained_run

pytestmark = pytest.mark.browser

WIDTHS = {"desktop": 1280, "phone": 390}


@pytest.fixture(scope="module")
def pages(digits, tmp_path_factory):
    """A page of a trained run, of two classifiers of the published recipe, of a detector."""
    folder = tmp_path_factory.mktemp("pages")
    trained = read_run(trained_run(digits, folder))
    classifier_run(folder / "a_run_with_a_long_name_that_has_to_be_broken_somewhere")
    classifier_run(folder / f"b{HOSTILE.replace('/', '')}", epochs=40, lr=1.0)
    detector_run(folder / "detector")
    compared = [read_run(path) for path in sorted(folder.glob("[ab]*"))]
    detector = read_run(folder / "detector")
    texts = {
        "trained": page([trained], {trained.path: predict_validation(trained)}),
        "compared": page(compared, {run.path: HOSTILE for run in compared}),
        "detector": page([detector], {}),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("place", WIDTHS)
@pytest.mark.parametrize("name", ["trained", "compared", "detector"])
def test_a_page(browser, pages, screenshots, name, place, dark):
    width = WIDTHS[place]
    browser.open(pages / f"{name}.html", width, dark=dark)
    file = screenshots / f"{name}-{place}-{'dark' if dark else 'light'}.png"
    browser.screenshot(file)

    assert loaded(browser) == [(pages / f"{name}.html").name]
    assert complaints(browser) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("innerWidth") == width
    assert wider_than_the_page(browser, width) == []
    assert browser.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert "At a glance" in browser.evaluate("document.body.innerText")
    assert browser.evaluate("document.querySelectorAll('.chart').length") >= 6
    assert smallest_letters(browser) >= 11

    picture = cv2.imread(str(file))
    assert picture.shape[1] == width * (2 if place == "phone" else 1)
    assert bool(picture[:50].mean() < 60) is dark


def test_hostile_names_are_text(browser, pages):
    browser.open(pages / "trained.html", 1280)
    assert HOSTILE in browser.evaluate("document.body.innerText")
    assert browser.evaluate("document.scripts.length") == 0
    browser.open(pages / "compared.html", 1280)
    assert browser.evaluate("document.images.length") == 0


def test_the_page_itself_forbids_scripts_and_the_network(browser, pages, tmp_path):
    """If escaping ever failed, the browser would still refuse."""
    text = (pages / "detector.html").read_text()
    attack = '<script>document.title="run"</script><img src="http://127.0.0.1:9/x.png">'
    (tmp_path / "attacked.html").write_text(text.replace("<main>", "<main>" + attack))
    browser.open(tmp_path / "attacked.html", 1280)
    assert browser.evaluate("document.title") != "run"
    assert browser.evaluate("document.images[0].naturalWidth") == 0
    assert any("Content Security Policy" in text for text in complaints(browser))


def test_hovering_shows_the_values(browser, pages):
    browser.open(pages / "trained.html", 1280)
    place = browser.evaluate(
        "(() => { const r = document.querySelectorAll('.strips rect')[1].getBoundingClientRect();"
        " return [r.x + r.width / 2, r.y + r.height / 2] })()"
    )
    shown = browser.evaluate(
        f"document.elementFromPoint({place[0]}, {place[1]}).parentNode.lastChild.textContent"
    )
    assert shown.startswith("epoch 1\ntraining: ")


def loaded(browser):
    """Names of what was requested, but for what the page carries."""
    urls = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    return [
        urllib.parse.unquote(url.rsplit("/", 1)[-1]) for url in urls if not url.startswith("data:")
    ]


def complaints(browser):
    """What the console says: errors, warnings, refusals."""
    found = []
    for event in browser.events:
        if event.get("method") == "Log.entryAdded":
            found.append(event["params"]["entry"]["text"])
        if event.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            found.append(str(event["params"]))
    return found


def wider_than_the_page(browser, width):
    """Elements that stick out, but for those inside a place that scrolls, and the drawn ones."""
    return browser.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, svg') &&"
        f" e.getBoundingClientRect().right > {width} + 0.5).map(e => e.outerHTML.slice(0, 80))"
    )


def smallest_letters(browser):
    return browser.evaluate(
        "Math.min(...[...document.querySelectorAll('body *')].filter(e => e.innerText)"
        ".map(e => parseFloat(getComputedStyle(e).fontSize)))"
    )
