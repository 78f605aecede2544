"""SSD's box coding: boxes to offsets from anchors and back."""

import numpy as np

from gluon_asymmnet.models.ssd_spec import VARIANCES


def encode(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Encode boxes as offsets from the anchors they are matched to.

    Args:
        boxes: ``(K, 4)`` float, corners ``(xmin, ymin, xmax, ymax)``, pixels, none empty.
        anchors: ``(K, 4)`` float, centres ``(cx, cy, w, h)``, pixels.

    Returns: ``(K, 4)`` float: ``(dx, dy)`` in anchor sizes, ``(dw, dh)`` natural-log ratios, each
        divided by its variance.
    Source: arXiv:1512.02325, section 2.2.
    """
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    offsets = (centres - anchors[:, :2]) / anchors[:, 2:]
    return np.hstack([offsets, np.log(sizes / anchors[:, 2:])]) / VARIANCES


def decode(offsets: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Decode offsets.  Shapes: ``(..., A, 4)``, ``(A, 4)`` -> ``(..., A, 4)`` corners, pixels."""
    offsets = offsets * VARIANCES
    centres = offsets[..., :2] * anchors[:, 2:] + anchors[:, :2]
    return to_corners(np.concatenate([centres, np.exp(offsets[..., 2:]) * anchors[:, 2:]], -1))


def to_corners(boxes: np.ndarray) -> np.ndarray:
    """Turn ``(..., 4)`` centres ``(cx, cy, w, h)`` into corners ``(xmin, ymin, xmax, ymax)``."""
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], -1)
