"""Detections drawn on their picture."""

from collections.abc import Sequence

import cv2
import numpy as np

from gluon_asymmnet.data.images import encode
from gluon_asymmnet.evaluation.detection import Detected
from gluon_asymmnet.utils.atomic import new_file

SHOWN_FROM = 0.3  # least score of a box that is drawn
_TRUE, _FOUND = (0, 200, 0), (255, 60, 0)  # RGB
_SHORTER_SIDE = 400  # pixels: smaller pictures are enlarged, so that the text can be read


def draw(found: Detected, classes: Sequence[str], least: float = SHOWN_FROM) -> np.ndarray:
    """Return the picture with true boxes (green) and found ones (orange), uint8 RGB."""
    factor = max(1, round(_SHORTER_SIDE / min(found.truth.rgb.shape[:2])))
    canvas = cv2.resize(
        found.truth.rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST
    )
    for box, label in zip(found.truth.boxes, found.truth.labels):
        _box(canvas, box * factor, _TRUE, classes[label], below=True)
    for box, label, score in zip(found.boxes, found.labels, found.scores):
        if score >= least:
            _box(canvas, box * factor, _FOUND, f"{classes[label]} {score:.2f}")
    return canvas


def marked(rgb: np.ndarray, boxes: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Return a copy of ``(H, W, 3)`` uint8 RGB with boxes, corners in its pixels, and their texts.

    OpenCV's fonts have ASCII only: another letter becomes a question mark.
    """
    canvas = np.ascontiguousarray(rgb).copy()
    scale = max(1, min(rgb.shape[:2]) / _SHORTER_SIDE)
    for box, text in zip(boxes, texts):
        _box(canvas, box, _FOUND, text, scale=scale)
    return canvas


def _box(canvas, box, colour, text: str, below: bool = False, scale: float = 1) -> None:
    text = text.encode("ascii", "replace").decode()
    left, top, right, bottom = (round(float(value)) for value in box)
    cv2.rectangle(canvas, (left, top), (right, bottom), colour, round(2 * scale))
    at = bottom + round(14 * scale) if below else max(top - round(4 * scale), round(12 * scale))
    cv2.putText(
        canvas, text, (left, at), cv2.FONT_HERSHEY_SIMPLEX, 0.5 * scale, colour, round(scale),
        cv2.LINE_AA,
    )  # fmt: skip


def save(found: Detected, classes: Sequence[str], path) -> None:
    """Write the picture as JPEG."""
    with new_file(path) as scratch:
        scratch.write_bytes(encode(draw(found, classes)))
