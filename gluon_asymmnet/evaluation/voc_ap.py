"""Average precision as Pascal VOC's devkit defines it, in NumPy alone.

Both of its definitions are always computed: the 11 points of VOC2007 and the area of VOC2010 on.
The boxes are taken in whatever pixels they come in: in those of the original pictures the figure is
the devkit's, in those of the resized ones it is GluonCV's.

Source: Everingham et al. 2010, section 4.2; ``VOCevaldet.m`` of the devkits 2007 and 2010.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.boxes.geometry import box_iou, checked_rows
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.atomic import new_file, write_text

# Not k / 10: GluonCV, ChainerCV and Faster R-CNN compare the recall with these very numbers, and
# k * 0.1 is above k / 10 for k = 3, 6 and 7.  It matters where a recall is exactly that.
_ELEVEN = np.arange(0.0, 1.1, 0.1)


_HIT, _MISS, _IGNORED = 1, 0, -1


class ClassResult(NamedTuple):
    """The result of one class.  AP is nan if there is nothing to find."""

    name: str
    ap_11_point: float  # VOC2007
    ap_area: float  # VOC2010 and later
    positives: int  # objects to be found: without the difficult ones
    difficult: int
    predictions: int
    hits: int
    misses: int  # predictions - hits - those on difficult objects
    recall: np.ndarray  # (predictions,) float64 after each prediction, by falling score
    precision: np.ndarray  # (predictions,); nan until the first hit or miss
    scores: np.ndarray  # (predictions,)


class Result(NamedTuple):
    """What ``VOCEvaluator`` found.  The means leave out the classes with nothing to find."""

    iou: float
    plus_one: bool
    images: int
    mean_ap_11_point: float  # nan if no class has anything to find
    mean_ap_area: float
    classes: list[ClassResult]

    def to_dict(self) -> dict:
        """All but the curves, ready for JSON: nan becomes None."""
        return {
            **{name: _plain(value) for name, value in self._asdict().items() if name != "classes"},
            "classes": [
                {
                    name: _plain(value)
                    for name, value in found._asdict().items()
                    if not isinstance(value, np.ndarray)
                }
                for found in self.classes
            ],
        }


class VOCEvaluator:
    """Compares predicted boxes with true ones, image after image.

    As in the devkit: predictions are taken by falling score; each belongs to the true box of its
    class that it overlaps most, is a hit if the overlap is at least ``iou`` and the box was not
    hit before, and otherwise a miss.  A difficult object is not to be found: what overlaps it most
    and enough, once or often, is neither hit nor miss.  Equal scores keep the order of ``add``.

    Args:
        classes:  class names in label order.
        iou:      intersection over union from which a prediction can be a hit, above 0 up to 1.
        plus_one: the last row and column belong to a box (``xmax - xmin + 1`` pixels), as the
            devkit and GluonCV count; without it a box is ``xmax - xmin`` wide.
    """

    def __init__(self, classes: Sequence[str], iou: float = 0.5, *, plus_one: bool = True):
        if not classes:
            raise InputError("expected class names, got none")
        if not 0 < iou <= 1:
            raise InputError(f"iou must be above 0 and at most 1, got {iou}")
        self.classes, self.iou, self.plus_one = list(classes), float(iou), bool(plus_one)
        self._ids: set[Hashable] = set()
        self._positives = np.zeros(len(classes), int)
        self._difficult = np.zeros(len(classes), int)
        # Per image: labels, scores and outcomes of its predictions, by falling score.
        self._seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(
        self,
        image_id: Hashable,
        pred_boxes,
        pred_labels,
        pred_scores,
        true_boxes,
        true_labels,
        difficult=None,
    ) -> None:
        """Count one image.

        A row whose label is -1 is padding, as GluonCV's detectors and batches have it.

        Args:
            image_id:    anything that stands for this image and no other.
            pred_boxes:  ``(n, 4)`` float, corners (xmin, ymin, xmax, ymax), pixels.
            pred_labels: ``(n,)`` or ``(n, 1)``, -1 ... number of classes - 1.
            pred_scores: ``(n,)`` or ``(n, 1)`` float.
            true_boxes, true_labels: ``(m, 4)`` and ``(m,)`` or ``(m, 1)``, as above.
            difficult:   ``(m,)`` or ``(m, 1)`` bool; default: none is.

        Raises: InputError if the image was counted before, shapes do not fit, a label is no class,
            or a number is not finite.  Nothing is counted then.
        """
        if image_id in self._ids:
            raise InputError(f"image {image_id!r} was counted before")
        classes = len(self.classes)
        true = checked_rows(image_id, "true", classes, true_boxes, true_labels, difficult)
        pred = checked_rows(image_id, "predicted", classes, pred_boxes, pred_labels, pred_scores)
        order = np.argsort(-pred.values, kind="stable")
        labels, boxes = pred.labels[order], pred.boxes[order]
        hard = true.values != 0
        outcomes = np.full(len(labels), _MISS)
        for label in np.intersect1d(labels, true.labels):
            mine, theirs = labels == label, true.labels == label
            overlaps = box_iou(boxes[mine], true.boxes[theirs], plus_one=self.plus_one)
            outcomes[mine] = _outcomes(overlaps, hard[theirs], self.iou)
        self._ids.add(image_id)
        self._seen.append((labels, pred.values[order], outcomes))
        self._positives += np.bincount(true.labels[~hard], minlength=classes)
        self._difficult += np.bincount(true.labels[hard], minlength=classes)

    def result(self) -> Result:
        """Return what has been counted so far."""
        empty = (np.zeros(0, int), np.zeros(0), np.zeros(0, int))
        labels, scores, outcomes = (np.concatenate(c) for c in zip(empty, *self._seen))
        found = [
            self._class_result(k, scores[labels == k], outcomes[labels == k])
            for k in range(len(self.classes))
        ]
        return Result(
            iou=self.iou,
            plus_one=self.plus_one,
            images=len(self._ids),
            mean_ap_11_point=_mean([one.ap_11_point for one in found]),
            mean_ap_area=_mean([one.ap_area for one in found]),
            classes=found,
        )

    def _class_result(self, k: int, scores: np.ndarray, outcomes: np.ndarray) -> ClassResult:
        order = np.argsort(-scores, kind="stable")
        hits = np.cumsum(outcomes[order] == _HIT)
        misses = np.cumsum(outcomes[order] == _MISS)
        positives = int(self._positives[k])
        with np.errstate(divide="ignore", invalid="ignore"):
            recall, precision = hits / positives, hits / (hits + misses)
        return ClassResult(
            name=self.classes[k],
            ap_11_point=ap_11_point(recall, precision) if positives else float("nan"),
            ap_area=ap_area(recall, precision) if positives else float("nan"),
            positives=positives,
            difficult=int(self._difficult[k]),
            predictions=len(scores),
            hits=int((outcomes == _HIT).sum()),
            misses=int((outcomes == _MISS).sum()),
            recall=recall,
            precision=precision,
            scores=scores[order],
        )


def _outcomes(overlaps: np.ndarray, difficult: np.ndarray, least: float) -> list[int]:
    """The outcome of each prediction of one class in one image, by falling score.

    Args:
        overlaps: ``(n, m)``, with the true boxes; ``m > 0``.
    """
    outcomes, taken = [], set()
    for row in overlaps:
        best = int(np.argmax(row))
        if row[best] < least or best in taken:
            outcomes.append(_MISS)
        elif difficult[best]:
            outcomes.append(_IGNORED)
        else:
            taken.add(best)
            outcomes.append(_HIT)
    return outcomes


def ap_11_point(recall: np.ndarray, precision: np.ndarray) -> float:
    """The mean over the recalls 0, 0.1 ... 1 of the best precision at that recall or a higher one.

    Args:
        recall, precision: ``(n,)`` after each prediction, by falling score; nan counts as 0.

    Source: ``VOCevaldet.m`` of the devkit 2007.
    """
    precision = np.nan_to_num(precision)
    best = [precision[recall >= least].max(initial=0.0) for least in _ELEVEN]
    return float(np.mean(best))


def ap_area(recall: np.ndarray, precision: np.ndarray) -> float:
    """The area under the curve of the best precision at each recall or a higher one.

    Arguments as above.  Source: ``VOCap.m`` of the devkit 2010.
    """
    falling = np.maximum.accumulate(np.nan_to_num(precision)[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * falling))


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _plain(value):
    return None if isinstance(value, float) and np.isnan(value) else value


def write_json(result: Result, path) -> None:
    """Write figures and counts, without the curves, as JSON."""
    write_text(path, json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n")


def draw_precision_recall(result: Result, path) -> None:
    """Draw the precision over the recall of every class that has something to find, as a PNG."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, no global state
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shown = [found for found in result.classes if found.positives]
    for k, found in enumerate(shown):
        axes.plot(
            found.recall,
            found.precision,
            color=colormaps["tab20"](k % 20),
            linestyle=("-", "--", ":", "-.")[k // 20 % 4],
            label=f"{found.name} {found.ap_area:.3f}",
        )
    what = result.classes[0].name if len(result.classes) == 1 else "mean"
    value = (
        f"{what}: AP {result.mean_ap_area:.4f} (area), {result.mean_ap_11_point:.4f} (11 points)"
    )
    axes.set(
        title=f"{value} at IoU {result.iou:g}, {result.images} images",
        xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02),
    )  # fmt: skip
    axes.grid(alpha=0.3)
    if shown:
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5), title="AP (area)")
    with new_file(path) as scratch:
        figure.savefig(scratch, format="png", dpi=100)
