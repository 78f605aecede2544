"""Detections of one image, overlap of boxes, and checks of box arrays."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.errors import InputError


class Detections(NamedTuple):
    """The detections in one image, by falling score."""

    labels: np.ndarray  # (n,) int64
    scores: np.ndarray  # (n,) float32
    boxes: np.ndarray  # (n, 4) float32, corners (xmin, ymin, xmax, ymax), pixels
    names: list[str] | None = None  # n class names, where the model's card is at hand


class Rows(NamedTuple):
    """Checked boxes of one image, without padding."""

    boxes: np.ndarray  # (n, 4) float64
    labels: np.ndarray  # (n,) int64
    values: np.ndarray  # (n,) float64: scores of predictions, difficult (0 or 1) of true boxes


def checked_rows(image_id: Hashable, what: str, classes: int, boxes, labels, values) -> Rows:
    """Check the boxes of one image and drop the padding.  Raises InputError."""
    where = f"image {image_id!r}: {what}"
    labels = np.asarray(labels, float)
    boxes = np.asarray(boxes, float)
    values = np.zeros(labels.size) if values is None else np.asarray(values, float)
    n = labels.size
    one_each = all(array.shape in ((n,), (n, 1)) for array in (labels, values))
    if not one_each or boxes.shape not in ((n, 4), (0,)):  # (0,): an empty list
        raise InputError(
            f"{where} boxes, labels and scores (or difficult) have the shapes {boxes.shape}, "
            f"{labels.shape} and {values.shape}; expected (n, 4), (n,) and (n,)"
        )
    boxes, labels, values = boxes.reshape(n, 4), labels.reshape(n), values.reshape(n)
    bad = ~np.isin(labels, np.arange(-1, classes))
    if bad.any():
        raise InputError(
            f"{where} label {labels[bad][0]:g} is not one of the {classes} classes "
            f"(0 to {classes - 1}, or -1 for padding)"
        )
    kept = labels >= 0
    boxes, labels, values = boxes[kept], labels[kept].astype(int), values[kept]
    if not (np.isfinite(boxes).all() and np.isfinite(values).all()):
        raise InputError(f"{where} boxes or scores are not finite")
    return Rows(boxes, labels, values)


def box_iou(a: np.ndarray, b: np.ndarray, *, plus_one: bool = False) -> np.ndarray:
    """Return intersection over union of each box of ``a`` with each of ``b``; 0 if both are empty.

    Shapes: ``(n, 4)``, ``(m, 4)`` -> ``(n, m)``; corners (xmin, ymin, xmax, ymax).
    """
    a, b = a[:, None], b[None]
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., 2:], b[..., 2:])
    common = _area(low, high, plus_one)
    union = _area(a[..., :2], a[..., 2:], plus_one) + _area(b[..., :2], b[..., 2:], plus_one)
    union = union - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _area(low: np.ndarray, high: np.ndarray, plus_one: bool) -> np.ndarray:
    return np.prod(np.maximum(high - low + plus_one, 0), axis=-1)
