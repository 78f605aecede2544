"""Average precision as defined by Pascal VOC's devkit, in NumPy.

Both definitions are always computed: the 11 points of VOC2007, and the area of VOC2010 and later.
Boxes in pixels of the original images give the devkit's result, boxes in pixels of the resized
images GluonCV's.

Source: Everingham et al. 2010, section 4.2; ``VOCevaldet.m`` of the devkits 2007 and 2010.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.boxes.geometry import box_iou, checked_rows
from gluon_asymmnet.errors import InputError

# Not k / 10: GluonCV, ChainerCV and Faster R-CNN compare the recall with exactly these numbers, and
# k * 0.1 is above k / 10 for k = 3, 6 and 7.  The results differ where a recall is k / 10.
_ELEVEN = np.arange(0.0, 1.1, 0.1)


_HIT, _MISS, _IGNORED = 1, 0, -1


class ClassResult(NamedTuple):
    """The result of one class.  AP is nan if there are no objects to detect."""

    name: str
    ap_11_point: float  # VOC2007
    ap_area: float  # VOC2010 and later
    positives: int  # objects to detect, without the difficult ones
    difficult: int
    predictions: int
    hits: int
    misses: int  # false positives: predictions - hits - those on difficult objects
    recall: np.ndarray  # (predictions,) float64 after each prediction, by falling score
    precision: np.ndarray  # (predictions,); nan until the first hit or miss
    scores: np.ndarray  # (predictions,)


class VOCResult(NamedTuple):
    """Average precision of all classes.  The means leave out classes without objects to detect."""

    iou: float
    plus_one: bool
    images: int
    mean_ap_11_point: float  # nan if no class has objects to detect
    mean_ap_area: float
    classes: list[ClassResult]

    def to_dict(self) -> dict:
        """Return everything but the curves for JSON; nan becomes None."""
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
    """Compares predicted boxes with true ones, image by image.

    As in the devkit, each prediction, by falling score, is matched to the true box of its class
    that it overlaps most.  It is a hit if the overlap is at least ``iou`` and no earlier prediction
    hit this box, otherwise a miss.  Predictions matched to a difficult object with enough overlap
    are ignored.  Equal scores keep the order of ``add``.

    Args:
        classes:  class names in label order.
        iou:      least intersection over union of a hit, above 0 up to 1.
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
        """Add the boxes of one image.

        Rows with label -1 are padding, as in the outputs and batches of GluonCV's detectors.

        Args:
            image_id:    any unique key of the image.
            pred_boxes:  ``(n, 4)`` float, corners (xmin, ymin, xmax, ymax), pixels.
            pred_labels: ``(n,)`` or ``(n, 1)``, -1 ... number of classes - 1.
            pred_scores: ``(n,)`` or ``(n, 1)`` float.
            true_boxes, true_labels: ``(m, 4)`` and ``(m,)`` or ``(m, 1)``, as above.
            difficult:   ``(m,)`` or ``(m, 1)`` bool; default: none.

        Raises: InputError if the image was added before, shapes do not fit, a label is not a class,
            or a number is not finite.  Nothing is added then.
        """
        if image_id in self._ids:
            raise InputError(f"image {image_id!r} was added before")
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

    def result(self) -> VOCResult:
        """Return the result for the images added so far."""
        empty = (np.zeros(0, int), np.zeros(0), np.zeros(0, int))
        labels, scores, outcomes = (np.concatenate(c) for c in zip(empty, *self._seen))
        found = [
            self._class_result(k, scores[labels == k], outcomes[labels == k])
            for k in range(len(self.classes))
        ]
        return VOCResult(
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


def _outcomes(overlaps: np.ndarray, difficult: np.ndarray, iou: float) -> list[int]:
    """Return the outcome of each prediction of one class in one image, by falling score.

    Args:
        overlaps: ``(n, m)``, with the true boxes; ``m > 0``.
    """
    outcomes, taken = [], set()
    for row in overlaps:
        best = int(np.argmax(row))
        if row[best] < iou or best in taken:
            outcomes.append(_MISS)
        elif difficult[best]:
            outcomes.append(_IGNORED)
        else:
            taken.add(best)
            outcomes.append(_HIT)
    return outcomes


def ap_11_point(recall: np.ndarray, precision: np.ndarray) -> float:
    """Return the mean over the recalls 0, 0.1 ... 1 of the best precision at or above each.

    Args:
        recall, precision: ``(n,)`` after each prediction, by falling score; nan counts as 0.

    Source: ``VOCevaldet.m`` of the devkit 2007.
    """
    precision = np.nan_to_num(precision)
    best = [precision[recall >= point].max(initial=0.0) for point in _ELEVEN]
    return float(np.mean(best))


def ap_area(recall: np.ndarray, precision: np.ndarray) -> float:
    """Return the area under the curve of the best precision at or above each recall.

    Arguments as above.  Source: ``VOCap.m`` of the devkit 2010.
    """
    falling = np.maximum.accumulate(np.nan_to_num(precision)[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * falling))


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _plain(value):
    return None if isinstance(value, float) and np.isnan(value) else value
