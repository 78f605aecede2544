"""Section of the page: training curves, grouped into charts."""

import math
from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional

from gluon_asymmnet.report.charts import REFERENCE, Chart, Line, Mark, draw
from gluon_asymmnet.report.formatting import duration, number, percent, rate
from gluon_asymmnet.report.markup import Markup, element
from gluon_asymmnet.report.published import NAME, Published, deviations, is_published
from gluon_asymmnet.report.run_files import Run, finite

_MARKED = 30  # events that are marked in the charts, at most


class Kind(NamedTuple):
    """Curves of one unit, which share a chart where there is only one run."""

    title: str
    show: Callable[[float], str]  # of the value as it is drawn
    unit: str = ""
    scale: float = 1.0  # drawn over written value
    limits: tuple[float, float] = (-math.inf, math.inf)


def _share(title: str) -> Kind:
    return Kind(title, lambda v: percent(v / 100), "\N{NO-BREAK SPACE}%", 100.0, (0.0, 100.0))


_LR, _THROUGHPUT, _TIME = "lr", "images_per_s", "seconds"
_ALWAYS = {
    _LR: Kind("Learning rate", number),
    _THROUGHPUT: Kind("Throughput (images/s)", rate, limits=(0.0, math.inf)),
    _TIME: Kind("Epoch time, with validation (s)", duration, limits=(0.0, math.inf)),
}
_BY_ENDING = {
    "loss": Kind("Loss", number, limits=(0.0, math.inf)),
    "accuracy": _share("Accuracy"),
    "top1": _share("Accuracy"),
    "top5": _share("Top-5 accuracy"),
    "mAP": _share("Mean average precision"),
    "mAP_area": _share("Mean average precision"),
    "mAP_resized": _share("Mean average precision"),
}
_NAMES = {
    "train_loss": "training", "val_loss": "validation", "train_accuracy": "training",
    "val_top1": "validation, top-1", "val_top5": "validation", "val_mAP": "11 points (VOC2007)",
    "val_mAP_area": "area (VOC2010)", "val_mAP_resized": "11 points, resized pixels (GluonCV)",
    "train_SmoothL1": "boxes (SmoothL1), training", "train_RMSE": "RMSE, training (mixup)",
    _LR: "learning rate", _THROUGHPUT: "training", _TIME: "epoch",
}  # fmt: skip


def section(runs: Sequence[Run], published: Optional[Published]) -> Markup:
    """Return the charts of all curves there are, and the same as tables."""
    charts = [draw(chart) for chart in _charts(runs, published)]
    if not any(charts):
        return element("p", "No epoch is finished yet: nothing to draw.", class_="missing")
    return Markup(
        element("div", *charts, class_="charts")
        + _about_published(runs, published)
        + Markup("").join(_table(run) for run in runs)
    )


def throughput(row: dict) -> float:
    """Images per second of training; of the whole epoch in runs that did not write it."""
    if finite(row.get(_THROUGHPUT)):
        return row[_THROUGHPUT]
    images, seconds = row.get("images"), row.get(_TIME)
    return images / seconds if finite(images) and finite(seconds) and seconds > 0 else math.nan


def _charts(runs: Sequence[Run], published: Optional[Published]) -> list[Chart]:
    marks = _marks(runs[0]) if len(runs) == 1 else ()
    step = any(run.config.get("lr_mode") == "step" for run in runs)
    charts = []
    for kind, keys in _groups(runs):
        apart = len(runs) > 1 or published is not None
        for group in [[key] for key in keys] if apart else [keys]:
            lines = _lines(runs, group, kind)
            lines += [
                Line(NAME, _points(published.rows, key, kind), REFERENCE)
                for key in group
                if published and key.startswith(("train_", "val_"))
            ]
            title = f"{kind.title}, {_name(group[0])}" if apart and len(keys) > 1 else kind.title
            log = step if keys == [_LR] else kind.title == "Loss" and _wide(lines)
            charts.append(Chart(title, lines, kind.show, kind.unit, log, marks, kind.limits))
    return charts


def _groups(runs: Sequence[Run]) -> list[tuple[Kind, list[str]]]:
    """Return the kinds of curves with the names of their values."""
    names = dict.fromkeys(name for run in runs for row in run.metrics for name in row)
    groups: dict[str, tuple[Kind, list[str]]] = {}
    for name in names:
        if name.startswith(("train_", "val_")):
            kind = next((k for end, k in _BY_ENDING.items() if name.endswith(end)), None)
            kind = kind or Kind(_name(name)[:1].upper() + _name(name)[1:], number)
            groups.setdefault(kind.title, (kind, []))[1].append(name)
    return [*groups.values(), *((kind, [name]) for name, kind in _ALWAYS.items())]


def _lines(runs: Sequence[Run], keys: list[str], kind: Kind) -> list[Line]:
    if len(runs) == 1:  # a colour is training, the others are validation
        validated = [key for key in keys if key.startswith("val_")]
        styles = {key: 1 + i for i, key in enumerate(validated)}
        return [
            Line(_name(key), _points(runs[0].metrics, key, kind), styles.get(key, 0))
            for key in keys
        ]
    return [Line(run.name, _points(run.metrics, keys[0], kind), i) for i, run in enumerate(runs)]


def _points(rows: list[dict], key: str, kind: Kind) -> list[tuple[float, float]]:
    if key == _THROUGHPUT:
        return [(row["epoch"], throughput(row)) for row in rows]
    return [
        (row["epoch"], kind.scale * row[key] if finite(row[key]) else math.nan)
        for row in rows
        if key in row
    ]


def _wide(lines: list[Line]) -> bool:
    """Whether the losses span so much that only a logarithmic axis shows them all."""
    values = [y for line in lines for _, y in line.points if math.isfinite(y)]
    return bool(values) and min(values) > 0 and max(values) > 30 * min(values)


def _marks(run: Run) -> tuple[Mark, ...]:
    if not run.metrics or not finite(run.metrics[-1].get("step")):
        return ()
    per_epoch = run.metrics[-1]["step"] / (run.metrics[-1]["epoch"] + 1)
    placed = [event for event in run.events if finite(event.get("step"))]
    return tuple(
        # an epoch's values stand at its number, but are those of its end
        Mark(event["step"] / per_epoch - 1, f"{event.get('kind')}: {event.get('message')}")
        for event in placed[-_MARKED:]
        if per_epoch > 0
    )


def _name(key: str) -> str:
    return _NAMES.get(key, key.replace("train_", "training ").replace("val_", "validation "))


def _about_published(runs: Sequence[Run], published: Optional[Published]) -> Markup:
    if published is None:
        return Markup("")
    notes = [element("p", f"The {NAME}: {published.source}; AsymmNet-Large, 8 GPUs, 360 epochs.")]
    for run in runs:
        differs = deviations(run.config)
        if is_published(run) and differs:
            notes.append(
                element("p", element("b", run.name), " has the recipe's name and differs: "
                        + "; ".join(differs) + ".")
            )  # fmt: skip
    return element("div", *notes, class_="note")


def _table(run: Run) -> Markup:
    """Return every figure of every epoch, for readers who cannot hover."""
    names = list(dict.fromkeys(name for row in run.metrics for name in row if name != "epoch"))
    head = element("tr", *(element("th", name, scope="col") for name in ("epoch", *names)))
    body = [
        element("tr", element("th", row["epoch"], scope="row"),
                *(element("td", _cell(row.get(name))) for name in names))
        for row in run.metrics
    ]  # fmt: skip
    return element(
        "details",
        element("summary", f"The figures of {run.name} as a table ({len(run.metrics)} epochs)"),
        element("div", element("table", element("thead", head), element("tbody", *body)),
                class_="scroll", tabindex=0),
    )  # fmt: skip


def _cell(value) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
