"""Sections of the page: headline figures, configuration, environment, events."""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any, Optional

from gluon_asymmnet.report.charts import swatch
from gluon_asymmnet.report.curves import throughput
from gluon_asymmnet.report.formatting import NONE, duration, moment, number, percent, rate
from gluon_asymmnet.report.markup import Markup, breakable, element, html_table, join
from gluon_asymmnet.report.published import NAME, Published, is_published
from gluon_asymmnet.report.run_files import DETECTOR, Run, finite
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.detector_config import DetectorConfig

_SHOWN_EVENTS = 200
_LARGE = (
    "best top-1", "top-5 there", "best mAP", "mAP by area there", "last training loss",
    "throughput", "time",
)  # fmt: skip


def headline(runs: Sequence[Run], published: Optional[Published]) -> Markup:
    """Return the headline figures: a column per run, or tiles and a list for one run."""
    columns = [_figures(run, published) for run in runs]
    if len(runs) > 1:
        _mark_best(runs, columns)
    if len(runs) == 1:
        return _tiles(columns[0])
    rows = [
        element("tr", element("th", name, scope="row"),
                *(element("td", column.get(name, NONE)) for column in columns))
        for name in _names(columns)
    ]  # fmt: skip
    return html_table(("", *(_titled(run, k) for k, run in enumerate(runs))), rows)


def configuration(runs: Sequence[Run]) -> Markup:
    """Return the settings that differ: between the runs, or from the defaults for one run."""
    defaults = _settings(DetectorConfig if runs[0].task == DETECTOR else ClassifierConfig)
    if len(runs) == 1:
        declared = {k: v for k, v in runs[0].config.items() if k in defaults}
        columns, heads = [declared, defaults], ["this run", "default"]
        what = "Settings that are not the defaults."
    else:
        columns, heads = [run.config for run in runs], [_titled(r, k) for k, r in enumerate(runs)]
        what = "Settings in which the runs differ."
    differing = [name for name in _names(columns) if len({repr(c.get(name)) for c in columns}) > 1]
    rows = _setting_rows(differing, columns)
    return join([
        element("p", what, class_="hint"),
        html_table(("setting", *heads), rows) if rows else element("p", "None differs."),
        *(_all_settings(run) for run in runs),
    ])  # fmt: skip


def environment(runs: Sequence[Run]) -> Markup:
    """Return versions and machine of each run; rows that differ are marked."""
    columns = [_flat(run.environment) for run in runs]
    rows = []
    for name in _names(columns):
        cells = [column.get(name, NONE) for column in columns]
        differs = "differs" if len(set(cells)) > 1 else None
        rows.append(
            element("tr", element("th", name, scope="row"),
                    *(element("td", cell) for cell in cells), class_=differs)
        )  # fmt: skip
    if not rows:
        return element("p", "The run wrote no environment.json.", class_="missing")
    heads = [_titled(run, k) for k, run in enumerate(runs)] if len(runs) > 1 else [""]
    return html_table(("", *heads), rows)


def events(run: Run) -> Markup:
    """Return the events of a run: resumes, skipped records, faults."""
    if not run.events:
        return element("p", "None was written: no resume, no skipped record, no fault.")
    counts = Counter(str(event.get("kind", NONE)) for event in run.events)
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    left_out = len(run.events) - _SHOWN_EVENTS
    rows = [
        element("tr", element("td", moment(event.get("time")), class_="when"),
                element("td", event.get("step", NONE)),
                element("td", element("span", event.get("kind", NONE), class_="kind")),
                element("td", event.get("message", ""), class_="message"))
        for event in run.events[-_SHOWN_EVENTS:]
    ]  # fmt: skip
    return join([
        element("p", f"{summary}.", class_="hint"),
        element("p", f"The {left_out} earlier ones are left out.") if left_out > 0 else None,
        html_table(("time", "step", "kind", "what"), rows),
    ])  # fmt: skip


def _figures(run: Run, published: Optional[Published]) -> dict[str, Any]:
    """Return the headline figures of a run, in their order."""
    last = run.metrics[-1] if run.metrics else {}
    best = run.best or {}
    found: dict[str, Any] = {"state": element("span", run.state, class_=f"state {run.state}")}
    if run.ending:
        found["ended"] = run.ending
    found["epochs"] = f"{last['epoch'] + 1 if last else 0} of {run.epochs or '?'}"
    if best:
        score = "mAP" if run.task == DETECTOR else "top-1"
        found[f"best {score}"] = f"{percent(best[run.score])} (epoch {best['epoch']})"
        if finite(best.get("val_mAP_area")):
            found["mAP by area there"] = percent(best["val_mAP_area"])
        if finite(best.get("val_top5")):
            found["top-5 there"] = percent(best["val_top5"])
        if finite(best.get("val_loss")):
            found["validation loss there"] = number(best["val_loss"])
        if finite(last.get(run.score)):
            found[f"last {score}"] = percent(last[run.score])
    if published and is_published(run) and finite(last.get("val_top1")):
        found[f"{NAME} at that epoch"] = _against(last, published)
    if finite(last.get("train_loss")):
        found["last training loss"] = number(last["train_loss"])
    speeds = [speed for row in run.metrics if finite(speed := throughput(row))]
    if speeds:
        found["throughput"] = f"{rate(statistics.median(speeds))} images/s (median)"
    seconds = [row["seconds"] for row in run.metrics if finite(row.get("seconds"))]
    if seconds:
        found["time"] = duration(sum(seconds))
    for name, title in (("parameters", "parameters"), ("macs", "multiply-adds")):
        if finite(run.card.get(name)):
            found[title] = f"{run.card[name]:,}"
    found["model"] = run.card.get("model") or run.config.get("model") or NONE
    found["directory"] = element("span", breakable(run.path), class_="path")
    return found


def _mark_best(runs: Sequence[Run], columns: list[dict[str, Any]]) -> None:
    """Mark the highest score, of runs that have the same one; several where they are equal."""
    scores = [run.best[run.score] if run.best else None for run in runs]
    known = [score for score in scores if score is not None]
    if len({run.score for run in runs}) > 1 or len(known) < 2:
        return
    name = "best mAP" if runs[0].task == DETECTOR else "best top-1"
    for column, score in zip(columns, scores):
        if score == max(known):
            column[name] = element(
                "span", "\N{BLACK STAR} ", column[name], " \N{EN DASH} the best", class_="best"
            )


def _against(last: dict, published: Published) -> str:
    if last["epoch"] >= len(published.rows):
        return NONE
    theirs = published.rows[last["epoch"]]["val_top1"]
    return f"{percent(theirs)} (ours {100 * (last['val_top1'] - theirs):+.2f} points)"


def _tiles(figures: dict[str, Any]) -> Markup:
    """Return the main figures as large tiles, and the others as a list."""
    large = [name for name in _LARGE if name in figures][:5]
    tiles, others = [], []
    for name in large:
        value, _, more = figures[name].partition(" (")
        title = f"{name} ({more}" if more else name
        tiles.append(element("div", element("b", value), element("span", title), class_="tile"))
    for name, value in figures.items():
        if name not in large:
            wide = "wide" if name in ("model", "directory") else None
            others.append(element("div", element("dt", name), element("dd", value), class_=wide))
    return join([
        element("div", *tiles, class_="tiles") if tiles else None,
        element("dl", *others, class_="facts"),
    ])  # fmt: skip


def _titled(run: Run, k: int) -> Markup:
    return element("span", swatch(k), element("span", breakable(run.name)), class_="run")


def _settings(config_class) -> dict:
    return {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for field in dataclasses.fields(config_class)
    }


def _names(columns: Sequence[dict]) -> list[str]:
    return list(dict.fromkeys(name for column in columns for name in column))


def _setting_rows(names: list[str], columns: Sequence[dict]) -> list[Markup]:
    return [
        element("tr", element("th", name, scope="row"),
                *(element("td", _value(column.get(name)), class_="value") for column in columns))
        for name in names
    ]  # fmt: skip


def _all_settings(run: Run) -> Markup:
    return element(
        "details",
        element("summary", f"All settings of {run.name}"),
        html_table(("setting", "value"), _setting_rows(list(run.config), [run.config])),
    )


def _value(value) -> str:
    if value is None or value == "":
        return NONE
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _flat(content: dict) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat.update({str(inner): _value(text) for inner, text in value.items()})
        else:
            flat[name.replace("_", " ")] = _value(value)
    return flat
