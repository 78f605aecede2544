"""Boxes of pictures with an EXIF rotation: the frame they were drawn in.

Pictures are turned as they are decoded.  A tool that ignores the rotation draws boxes on the stored
pixels, and says so by the size it writes: width and height are exchanged for a quarter turn.
"""

from __future__ import annotations

import numpy as np

from gluon_asymmnet.data.image_headers import ImageInfo
from gluon_asymmnet.data.images import TURNS
from gluon_asymmnet.errors import FormatError


def is_in_stored_frame(info: ImageInfo, annotated: tuple[int, int] | None) -> bool | None:
    """Whether boxes were drawn on the stored pixels; None where it cannot be known.

    It cannot be known without a size, and for rotations that keep it: by 180 degrees, of a square,
    mirrored.

    Args:
        annotated: (width, height) that the annotation gives, pixels; None: none.

    Raises: FormatError if the picture has another size in both frames.
    """
    upright = (info.width, info.height)
    if annotated is not None and annotated not in (upright, info.stored_size):
        raise FormatError(
            f"the image has {upright[0]} x {upright[1]} pixels, its annotation says "
            f"{annotated[0]} x {annotated[1]}; the boxes may be wrong"
        )
    if info.orientation == 1:
        return False
    if annotated is None or upright == info.stored_size:
        return None
    return annotated == info.stored_size


def turn_boxes(boxes: np.ndarray, info: ImageInfo) -> np.ndarray:
    """Return boxes drawn on the stored pixels for the turned picture.

    Args:
        boxes: ``(n, 4)`` corners (xmin, ymin, xmax, ymax), pixels from 0, last ones included.
    """
    transpose, flip_x, flip_y = TURNS[info.orientation]
    left, top, right, bottom = boxes.T
    if transpose:
        left, top, right, bottom = top, left, bottom, right
    if flip_x:
        left, right = info.width - 1 - right, info.width - 1 - left
    if flip_y:
        top, bottom = info.height - 1 - bottom, info.height - 1 - top
    return np.stack([left, top, right, bottom], axis=1)
