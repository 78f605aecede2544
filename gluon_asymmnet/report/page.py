"""One self-contained HTML page about one or more runs: no script, no network, no other file."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Union

from gluon_asymmnet import __version__
from gluon_asymmnet.report import classes, curves, facts
from gluon_asymmnet.report.charts import swatch
from gluon_asymmnet.report.formatting import moment
from gluon_asymmnet.report.markup import Markup, breakable, element, join
from gluon_asymmnet.report.predictions import Predictions
from gluon_asymmnet.report.published import is_published, published_curve
from gluon_asymmnet.report.run_files import DETECTOR, Run

# The browser refuses scripts and anything outside the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(runs: Sequence[Run], predictions: Mapping[Path, Union[Predictions, str]]) -> str:
    """Return the page.

    Args:
        runs: at least one; equal names are replaced by the paths.
        predictions: for classifiers, by the run's path: the predictions, or why there are none.
    """
    runs = _named_apart(runs)
    published = published_curve() if any(is_published(run) for run in runs) else None
    parts = [
        ("at-a-glance", "At a glance", facts.headline(runs, published)),
        ("curves", "Curves", curves.section(runs, published)),
        ("classes", "Classes and images", _each(runs, lambda run: _classes(run, predictions))),
        ("configuration", "Configuration", facts.configuration(runs)),
        ("environment", "Environment", facts.environment(runs)),
        ("events", "Events", _each(runs, facts.events)),
    ]
    if any(run.problems for run in runs):
        parts.append(("problems", "Unreadable files", _each(runs, _problems)))
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    body = element(
        "body",
        element("header", _header(title), _contents(parts)),
        element("main", *(_section(*part) for part in parts)),
        element("footer", f"gluon_asymmnet {__version__}, {moment(time.time())}"),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} \N{MIDDLE DOT} training report"),
        element("style", Markup(Path(__file__).with_name("style.css").read_text())),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _header(title: str) -> Markup:
    return element(
        "div", element("p", "Training report", class_="over"), element("h1", breakable(title))
    )


def _contents(parts) -> Markup:
    links = [element("a", title, href=f"#{name}") for name, title, _ in parts]
    return element("nav", *links, aria_label="Contents")


def _section(name: str, title: str, content: Markup) -> Markup:
    return element("section", element("h2", title), content, id=name)


def _each(runs: Sequence[Run], part) -> Markup:
    """Return a part for each run, under its name if there are several."""
    if len(runs) == 1:
        return part(runs[0])
    return join(
        element("div", element("p", swatch(k), run.name, class_="run"), part(run), class_="each")
        for k, run in enumerate(runs)
    )


def _classes(run: Run, predictions) -> Markup:
    if run.task == DETECTOR:
        return classes.detector_section(run)
    return classes.classifier_section(run, predictions[run.path])


def _problems(run: Run) -> Markup:
    if not run.problems:
        return element("p", "Nothing.")
    return element("ul", *(element("li", problem) for problem in run.problems))


def _named_apart(runs: Sequence[Run]) -> list[Run]:
    names = [run.name for run in runs]
    return [run._replace(name=str(run.path)) if names.count(run.name) > 1 else run for run in runs]
