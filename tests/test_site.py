"""The documentation site: built with every warning an error, and opened in a browser."""

import http.server
import re
import threading
from functools import partial

import pytest

import gluon_asymmnet
from tests.browser import Browser
from tests.conftest import ROOT, run_python

pytestmark = pytest.mark.thorough


def build(folder, config=ROOT / "mkdocs.yml"):
    return run_python(
        "-m", "mkdocs", "build", "-f", config, "-d", folder, cwd=config.parent, timeout=600
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_reference_has_every_public_name(site):
    text = (site / "reference/index.html").read_text()
    headings = re.findall(r'<h2 id="gluon_asymmnet\.([\w.]+)"', text)
    assert {name.split(".")[-1] for name in headings} == set(gluon_asymmnet._PUBLIC)


def test_every_document_is_a_page(site):
    for path in ROOT.glob("docs/*.md"):
        assert (site / "docs" / f"{path.stem}.html").exists(), path


def test_faults_of_documents_and_docstrings_are_errors(tmp_path):
    config = (ROOT / "mkdocs.yml").read_text()
    config = re.sub(r"(?ms)^nav:.*", "nav: [README.md, API: reference]", config)
    (tmp_path / "mkdocs.yml").write_text(
        config.replace("[tools/docs_site.py", f"[{ROOT / 'tools/docs_site.py'}")
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# Title\n\n[gone](docs/gone.md) [here](#nowhere)\n")
    package = tmp_path / "gluon_asymmnet"
    package.mkdir()
    (package / "__init__.py").write_text('"""A package."""\n\n_PUBLIC = {\'get_model\': \'zoo\'}\n')
    (package / "zoo.py").write_text(
        "def bare(): pass\n\n\n"
        'def get_model(size):\n    """Build.\n\n    Args:\n        side: x.\n    """\n'
    )

    done = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert done.returncode == 1
    for fault in (
        "'docs/gone.md', but the target is not found",
        "'#nowhere', but there is no such anchor",
        "gluon_asymmnet.zoo.bare has no docstring",
        "gluon_asymmnet.zoo.get_model: the docstring describes 'side', no parameter",
    ):
        assert fault in done.stderr, done.stderr


@pytest.mark.browser
def test_the_site_in_a_browser(site, tmp_path):
    serve = partial(http.server.SimpleHTTPRequestHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}/"
        with Browser(tmp_path / "profile") as browser:
            for page in ("index.html", "reference/models.html", "docs/training.html"):
                for width in (1280, 390):
                    for place in (site / page, home + page):
                        browser.open(place, width)
                        assert complaints(browser, home) == []
                    assert browser.evaluate("document.documentElement.scrollWidth") <= width
                    assert browser.evaluate(
                        "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
                    )
            assert "get_model" in search(browser, "get_model")
        server.shutdown()


def complaints(browser, home: str) -> list:
    """Return errors in the console, and requests to other places."""
    urls = [event["params"]["request"]["url"] for event in browser.events
            if event["method"] == "Network.requestWillBeSent"]  # fmt: skip
    errors = [event["params"] for event in browser.events
              if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]  # fmt: skip
    return errors + [url for url in urls if not url.startswith((home, "file:", "data:"))]


def search(browser, words: str) -> str:
    """Return the list of results of the site's search."""
    return browser.evaluate(
        "new Promise(done => {"
        " const box = document.querySelector('.md-search__input');"
        f" box.focus(); box.value = '{words}'; box.dispatchEvent(new Event('keyup'));"
        " const list = document.querySelector('.md-search-result__list');"
        " const look = () => list.children.length ? done(list.innerText) : setTimeout(look, 50);"
        " setTimeout(look, 50);"
        " setTimeout(() => done('no result within 20 s'), 20000); })"
    )
