"""Draw detections and captions on images.

OpenCV's fonts hold ASCII only: other letters become question marks.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from gluon_asymmnet.data.boxes.geometry import Detections
from gluon_asymmnet.data.boxes.voc import DetectionExample
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.utils.atomic import new_file

SCORE_THRESHOLD = 0.3  # boxes with a lower score are not drawn
_TRUE, _DETECTED = (0, 200, 0), (255, 60, 0)  # RGB
_SHORTER_SIDE = 400  # pixels: smaller images are enlarged, so that the text is readable
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_example(
    example: DetectionExample,
    found: Detections,
    classes: Sequence[str],
    score_threshold: float = SCORE_THRESHOLD,
) -> np.ndarray:
    """Return the image with true boxes (green) and detections (orange), uint8 RGB."""
    factor = max(1, round(_SHORTER_SIDE / min(example.rgb.shape[:2])))
    canvas = cv2.resize(example.rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    for box, label in zip(example.boxes, example.labels):
        _draw_box(canvas, box * factor, _TRUE, classes[label], below=True)
    for box, label, score in zip(found.boxes, found.labels, found.scores):
        if score >= score_threshold:
            _draw_box(canvas, box * factor, _DETECTED, f"{classes[label]} {score:.2f}")
    return canvas


def save_example(
    example: DetectionExample, found: Detections, classes: Sequence[str], path
) -> None:
    """Write the image of ``draw_example`` as JPEG."""
    with new_file(path) as scratch:
        scratch.write_bytes(encode(draw_example(example, found, classes)))


def draw_boxes(rgb: np.ndarray, boxes: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Return a copy of ``(H, W, 3)`` uint8 RGB with labelled boxes, corners in pixels."""
    canvas = np.ascontiguousarray(rgb).copy()
    scale = max(1, min(rgb.shape[:2]) / _SHORTER_SIDE)
    for box, text in zip(boxes, texts):
        _draw_box(canvas, box, _DETECTED, text, scale=scale)
    return canvas


def _draw_box(canvas, box, colour, text: str, below: bool = False, scale: float = 1) -> None:
    left, top, right, bottom = (round(float(value)) for value in box)
    cv2.rectangle(canvas, (left, top), (right, bottom), colour, round(2 * scale))
    at = bottom + round(14 * scale) if below else max(top - round(4 * scale), round(12 * scale))
    cv2.putText(
        canvas, _ascii(text), (left, at), _FONT, 0.5 * scale, colour, round(scale), cv2.LINE_AA
    )


def draw_caption(rgb: np.ndarray, text: str) -> np.ndarray:
    """Return a copy of ``(H, W, 3)`` uint8 RGB with a line of text in a dark band at its top."""
    text = _ascii(text)
    height, width = rgb.shape[:2]
    (text_width, text_height), below = cv2.getTextSize(text, _FONT, 1, 1)
    # letters of a twentieth of the height, smaller if the line does not fit into the width
    scale = min(height / 20 / text_height, width * 0.96 / max(text_width, 1))
    band = max(1, round((text_height + below) * scale * 1.3))
    canvas = np.ascontiguousarray(rgb).copy()
    canvas[:band] //= 4
    origin = (round(width * 0.02), round(text_height * scale * 1.25))
    cv2.putText(
        canvas, text, origin, _FONT, scale, (255, 255, 255), max(1, round(scale)), cv2.LINE_AA
    )
    return canvas


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()
