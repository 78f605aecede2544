"""SSD's box coding: boxes to offsets from anchors and back."""

import numpy as np

from gluon_asymmnet.models.ssd_spec import MAX_LOG_SCALE, VARIANCES


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


def decode(F, offsets, anchors):
    """Decode offsets ``(N, A, 4)`` with anchors ``(1, A, 4)`` to corners ``(N, A, 4)``, float32.

    The inverse of ``encode`` in MXNet operators (``F``) that every engine has.
    """
    offsets = F.cast(offsets, "float32")
    (centre, size), (shift, growth) = (
        (F.slice_axis(v, axis=-1, begin=0, end=2), F.slice_axis(v, axis=-1, begin=2, end=4))
        for v in (anchors, offsets)
    )
    # factors on the side of the anchors: exporters compute those products in advance
    centre = F.broadcast_add(F.broadcast_mul(shift, size * VARIANCES[0]), centre)
    growth = F.minimum(growth * VARIANCES[2], MAX_LOG_SCALE)
    half = F.broadcast_mul(F.exp(growth), size / 2)
    return F.concat(centre - half, centre + half, dim=-1)


def to_corners(boxes: np.ndarray) -> np.ndarray:
    """Turn ``(..., 4)`` centres ``(cx, cy, w, h)`` into corners ``(xmin, ymin, xmax, ymax)``."""
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], -1)
