"""Section of the page: classes and images."""

import base64
from typing import Union

from gluon_asymmnet.errors import FormatError
from gluon_asymmnet.evaluation.classification import wilson_interval
from gluon_asymmnet.report.formatting import NONE, number, percent
from gluon_asymmnet.report.markup import Markup, element, html_table, join
from gluon_asymmnet.report.predictions import (
    Predictions,
    Sample,
    thumbnail,
    worst_classes,
    worst_pairs,
)
from gluon_asymmnet.report.run_files import Run, finite, read_object

_MATRIX = 25  # classes up to which the confusions are a matrix
_UPRIGHT, _LETTERS = 3, 14  # longer names are vertical, still longer ones cut, in the matrix
_WORST = 15  # classes and pairs that are listed
_IMAGES = 8
_SIDE = 360  # pixels of the shorter side of a detector's images, at most


def missing(what: str, why: str) -> Markup:
    """Return a note that the page lacks something, and why."""
    return element("p", element("b", f"{what}: not shown. "), why, class_="missing")


def classifier_section(run: Run, predictions: Union[Predictions, str]) -> Markup:
    """Return confusions, worst classes and sample predictions."""
    if isinstance(predictions, str):
        return missing("Confusion matrix, worst classes and sample predictions", predictions)
    found = predictions.evaluation
    low, high = found.interval
    matrix = found.confusion(len(predictions.names))
    best = predictions.weights.name.startswith("best")
    return join([
        element(
            "p", f"{predictions.weights.name} on the {found.images:,} images of "
            f"{predictions.data}: top-1 ",
            element("b", percent(found.top1)), f" (95 %: {percent(low)} to {percent(high)}), top-5 "
            f"{percent(found.top5)}, loss {number(found.loss)}.",
            f" Damaged and left out: {len(found.left_out)}." if found.left_out else None,
            " These weights were chosen on this very set." if best else None,
        ),
        element("div",
                _matrix(matrix, predictions.names) if len(predictions.names) <= _MATRIX
                else _pairs(matrix, predictions.names),
                _worst(matrix, predictions.names), class_="two"),
        _samples("Wrong with the most confidence", predictions.wrong, predictions.names,
                 "No image of the set is predicted wrong."),
        _samples("Some that are right", predictions.right, predictions.names,
                 "No image of the set is predicted right."),
    ])  # fmt: skip


def detector_section(run: Run) -> Markup:
    """Return average precision by class and the images that the run drew."""
    return join([_average_precision(run), _drawn(run)])


def picture(jpeg: bytes, width: int, height: int, text: str) -> Markup:
    """Return an ``<img>`` that carries its data."""
    return element(
        "img", src="data:image/jpeg;base64," + base64.b64encode(jpeg).decode(), width=width,
        height=height, alt=text, class_="fine" if min(width, height) < 96 else None,
    )  # fmt: skip


def bar(share: float, text: str) -> Markup:
    """Return a share as a bar with its text."""
    return element("td", element("span", text),
                   element("i", style=f"width:{100 * share:.1f}%"), class_="bar")  # fmt: skip


def _matrix(matrix, names: list[str]) -> Markup:
    totals = matrix.sum(axis=1)
    long = max(map(len, names)) > _UPRIGHT
    head = element("tr", element("td"), *(_short_name(name, "col") for name in names))
    rows = [
        element("tr", _short_name(name, "row"),
                *(_count(matrix[i, j], totals[i], name, names[j], i == j)
                  for j in range(len(names))))
        for i, name in enumerate(names)
    ]  # fmt: skip
    return element(
        "div",
        element("h3", "Confusion matrix"),
        element("p", "Rows: true class; columns: predicted class; images.", class_="hint"),
        element("div", element("table", element("thead", head), element("tbody", *rows),
                               class_="matrix long" if long else "matrix"),
                class_="scroll", tabindex=0),
    )  # fmt: skip


def _short_name(name: str, scope: str) -> Markup:
    short = name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return element("th", element("span", short), scope=scope, title=name)


def _count(count: int, total: int, true: str, predicted: str, right: bool) -> Markup:
    if not count:
        return element("td", "\N{MIDDLE DOT}", class_="none")
    share = count / total
    # errors are few: their colour grows faster
    depth = share if right else min(1, 0.15 + 2 * share)
    kind = "right" if right else "wrong"
    return element(
        "td", int(count), class_=f"{kind} deep" if depth > 0.75 else kind,
        style=f"--v:{depth:.2f}", title=f"{true} predicted as {predicted}: {count} of {total}",
    )  # fmt: skip


def _pairs(matrix, names: list[str]) -> Markup:
    rows = [
        element("tr", element("td", names[pair.label]), element("td", names[pair.predicted]),
                bar(pair.images / pair.of, f"{pair.images} of {pair.of}"))
        for pair in worst_pairs(matrix, _WORST)
    ]  # fmt: skip
    return element(
        "div", element("h3", "Most frequent confusions"),
        element("p", f"Too many classes for a matrix ({len(names):,}): the worst pairs.",
                class_="hint"),
        html_table(("true class", "predicted class", "images"), rows),
    )  # fmt: skip


def _worst(matrix, names: list[str]) -> Markup:
    rows = []
    flawless = int(((matrix.sum(axis=1) == matrix.diagonal()) & (matrix.diagonal() > 0)).sum())
    for k in worst_classes(matrix, _WORST):
        total, right = int(matrix[k].sum()), int(matrix[k, k])
        if right == total:
            break
        others = matrix[k].copy()
        others[k] = 0
        low, high = wilson_interval(right, total)
        confused = f"{names[others.argmax()]} ({others.max()})" if others.any() else NONE
        rows.append(
            element("tr", element("th", names[k], scope="row"), element("td", total),
                    bar(right / total, percent(right / total)),
                    element("td", f"{100 * low:.0f} to {100 * high:.0f}", class_="whole"),
                    element("td", confused))
        )  # fmt: skip
    return element(
        "div", element("h3", "Worst classes"),
        element("p", f"Top-1 with its 95 % interval; {flawless:,} classes have no error.",
                class_="hint"),
        html_table(("class", "images", "top-1", "95 %", "most confused with"), rows)
        if rows else None,
    )  # fmt: skip


def _samples(title: str, samples: list[Sample], names: list[str], none: str) -> Markup:
    shown = []
    for one in samples:
        true, predicted = names[one.label], names[one.predicted]
        right = one.label == one.predicted
        text = [element("b", predicted), f" {100 * one.confidence:.1f}\N{NO-BREAK SPACE}%"]
        truth = element("span", f"truth: {true}" if not right else "right")
        shown.append(
            element(
                "figure",
                picture(one.jpeg, one.width, one.height,
                        f"image {one.position}: predicted {predicted}, truth {true}"),
                element("figcaption", element("span", *text), truth),
                class_="right" if right else "wrong", title=f"image {one.position} of the set",
            )
        )  # fmt: skip
    content = element("div", *shown, class_="samples") if shown else element("p", none)
    return element("div", element("h3", title), content)


def _average_precision(run: Run) -> Markup:
    epochs = [run.best["epoch"]] if run.best else []
    files = [run.path / f"validation/epoch-{epoch:04d}.json" for epoch in epochs]
    files += sorted(run.path.glob("validation/epoch-*.json"), reverse=True)
    for file in files:
        result = read_object(file)
        classes = [c for c in result.get("classes") or () if isinstance(c, dict)]
        if classes:
            rows = [_class_row(one) for one in sorted(classes, key=_precision)]
            return element(
                "div", element("h3", "Average precision by class"),
                element("p", f"{file.stem}, at an overlap of {result.get('iou')}, on "
                        f"{result.get('images')} images; the worst first.", class_="hint"),
                html_table(
                    ("class", "objects", "AP, 11 points", "AP, area", "hits", "false"), rows
                ),
            )  # fmt: skip
    return missing("Average precision by class", "the run wrote no validation/epoch-*.json yet")


def _precision(one: dict) -> float:
    value = one.get("ap_11_point")
    return value if finite(value) else 2


def _class_row(one: dict) -> Markup:
    def share(name):
        value = one.get(name)
        return bar(min(max(value, 0), 1), percent(value)) if finite(value) else element("td", NONE)

    counts = [element("td", one.get(name, NONE)) for name in ("positives", "hits", "misses")]
    return element(
        "tr", element("th", one.get("name", NONE), scope="row"), counts[0], share("ap_11_point"),
        share("ap_area"), *counts[1:],
    )  # fmt: skip


def _drawn(run: Run) -> Markup:
    folders = sorted(run.path.glob("samples/epoch-*"))
    shown = []
    for file in sorted(folders[-1].glob("*.jpg"))[:_IMAGES] if folders else ():
        try:
            jpeg, width, height = thumbnail(file.read_bytes(), _SIDE)
        except (OSError, FormatError) as error:
            shown.append(missing(file.name, str(error)))
            continue
        shown.append(picture(jpeg, width, height, f"{file.name}: detections"))
    if not shown:
        return missing("Images with boxes", "the run drew none yet (--samples)")
    hint = "Green: labelled objects. Orange: detections above the score threshold."
    return element(
        "div", element("h3", f"Detections after {folders[-1].name.replace('-', ' ')}"),
        element("p", hint, class_="hint"), element("div", *shown, class_="pictures"),
        class_="part",
    )  # fmt: skip
