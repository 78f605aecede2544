"""Detections drawn on their picture."""

from collections.abc import Sequence

import cv2
import numpy as np

from gluon_asymmnet.atomic import new_file
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.detection.evaluate import Detected

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


def _box(canvas, box, colour, text: str, below: bool = False) -> None:
    left, top, right, bottom = (round(float(value)) for value in box)
    cv2.rectangle(canvas, (left, top), (right, bottom), colour, 2)
    at = (left, bottom + 14) if below else (left, max(top - 4, 12))
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)


def save(found: Detected, classes: Sequence[str], path) -> None:
    """Write the picture as JPEG."""
    with new_file(path) as scratch:
        scratch.write_bytes(encode(draw(found, classes)))
