"""Images with boxes to detector input: SSD's training augmentation, and a plain resize.

GluonCV's transform uses the global random generators, so its batches depend on the timing of
threads; it also copies canvases of up to 16 times the image.  Here the geometry is sampled first,
and only the visible part is processed; all randomness comes from the generator passed in.

Source: arXiv:1512.02325, section 2.2 and 3.6, in the order and with the numbers of GluonCV's
SSDDefaultTrainTransform; comments name the differences.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from gluon_asymmnet.data.transforms import Normalization

SMALLEST_CROP = 0.3  # side of a crop over that of the canvas, before the aspect ratio
MAX_ASPECT = 2
# Least overlap of every object with the crop; -inf: any overlap.
CROP_OVERLAPS = (0.1, 0.3, 0.5, 0.7, 0.9, -math.inf)
CROP_TRIALS = 50
BRIGHTNESS = 32  # added, of 255
CONTRAST = SATURATION = (0.5, 1.5)
# The authors' 18 of OpenCV's 180 steps are 36 degrees.  GluonCV rotates the hue by up to 18 * pi,
# which is any angle.
HUE = math.radians(36)

_INTERPOLATIONS = (
    cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4,
)  # fmt: skip
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


class BoxAugmentation(NamedTuple):
    """Settings that depend on the data set; the defaults are GluonCV's."""

    mirror: bool = True
    expansion: float = 4.0  # greatest side of the canvas over that of the image; 1: none


class TrainingSample(NamedTuple):
    """An augmented image with its remaining boxes."""

    image: np.ndarray  # (3, size, size) float32, normalised
    boxes: np.ndarray  # (m, 4) float32, corners, pixels of the image
    kept: np.ndarray  # (m,) int: positions in the given boxes


def training_sample(
    rgb: np.ndarray, boxes: np.ndarray, size: int, how: BoxAugmentation, normalize: Normalization,
    rng: np.random.Generator,
) -> TrainingSample:  # fmt: skip
    """Expand, crop, resize, mirror and recolour an image at random.

    Args:
        rgb: ``(height, width, 3)`` uint8.
        boxes: ``(n, 4)`` float, corners ``(xmin, ymin, xmax, ymax)``, pixels.
        size: height and width of the result, pixels.
    """
    colour = random_colour(rng)
    height, width = rgb.shape[:2]
    view = random_view(width, height, boxes, how.expansion, rng)
    kept = inside(boxes, view)
    interpolation = _INTERPOLATIONS[rng.integers(len(_INTERPOLATIONS))]
    # one affine map recolours and normalises; the canvas has the mean colour, hence 0
    image = render(rgb, view, size, 0, _with_normalization(colour, normalize), interpolation)
    left, top, *sides = view
    scale = np.tile(size / np.array(sides, float), 2)
    boxes = np.clip((boxes[kept] - [left, top, left, top]) * scale, 0, size)
    if how.mirror and rng.random() < 0.5:
        image = image[:, ::-1]
        boxes[:, [0, 2]] = size - boxes[:, [2, 0]]
    image = np.ascontiguousarray(image.transpose(2, 0, 1))
    return TrainingSample(image, boxes.astype(np.float32), kept)


def validation_image(rgb: np.ndarray, size: int, normalize: Normalization) -> np.ndarray:
    """Resize to ``(3, size, size)`` float32, normalised; the aspect ratio is not kept."""
    return normalize(resize(rgb, size))


def resize(rgb: np.ndarray, size: int) -> np.ndarray:
    """Resize to ``(size, size, 3)`` uint8: cubic to enlarge, by area to shrink.

    Source: interpolation 9 of MXNet's ``imresize``, which GluonCV's validation uses.
    """
    height, width = rgb.shape[:2]
    if size > height and size > width:
        interpolation = cv2.INTER_CUBIC
    elif size < height and size < width:
        interpolation = cv2.INTER_AREA
    else:
        interpolation = cv2.INTER_LINEAR
    return cv2.resize(rgb, (size, size), interpolation=interpolation)


# ------------------------------------------------------------------------------ geometry


def random_view(
    width: int, height: int, boxes: np.ndarray, expansion: float, rng: np.random.Generator
):
    """Return ``(left, top, width, height)`` of the visible part, pixels of the image.

    In half of all cases it extends beyond the image.  It contains the centre of at least one object
    if there are any.
    """
    left = top = 0
    if rng.random() < 0.5:  # a canvas that contains the image
        factor = rng.uniform(1, expansion)
        wide, high = int(width * factor), int(height * factor)
        left, top = -int(rng.integers(wide - width + 1)), -int(rng.integers(high - height + 1))
        width, height = wide, high
    x, y, *sides = random_crop(width, height, boxes - [left, top, left, top], rng)
    return (left + x, top + y, *sides)


def random_crop(width: int, height: int, boxes: np.ndarray, rng: np.random.Generator):
    """Return ``(left, top, width, height)`` of a random crop that overlaps every object enough.

    One of up to seven: the whole image, and one for each of ``CROP_OVERLAPS`` for which a crop was
    found.  A crop without the centre of an object is replaced by another.
    """
    if len(boxes) == 0:
        return tuple(_crops(width, height, 1, rng)[0])
    candidates = [(0, 0, width, height)]
    for least in CROP_OVERLAPS:
        crops = _crops(width, height, CROP_TRIALS, rng)
        fitting = np.flatnonzero(_least_overlap(boxes, crops) >= least)
        if len(fitting):
            candidates.append(tuple(crops[fitting[0]]))
    for number in rng.permutation(len(candidates)):
        if len(inside(boxes, candidates[number])):
            return candidates[number]
    return 0, 0, width, height


def _crops(width: int, height: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``(count, 4)`` int: left, top, width, height."""
    scale = rng.uniform(SMALLEST_CROP, 1, count)
    low, high = np.maximum(1 / MAX_ASPECT, scale**2), np.minimum(MAX_ASPECT, 1 / scale**2)
    root = np.sqrt(rng.uniform(low, high))
    wide = np.clip((width * scale * root).astype(int), 1, width)
    tall = np.clip((height * scale / root).astype(int), 1, height)
    left, top = rng.integers(width - wide + 1), rng.integers(height - tall + 1)
    return np.stack([left, top, wide, tall], axis=1)


def _least_overlap(boxes: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """Return ``(count,)``: the least intersection over union of each crop with an object."""
    start, stop = crops[:, None, :2], crops[:, None, :2] + crops[:, None, 2:]
    common = np.minimum(boxes[:, 2:], stop) - np.maximum(boxes[:, :2], start)
    common = np.maximum(common, 0).prod(axis=-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1)
    union = areas + crops[:, None, 2:].prod(axis=-1) - common
    return (common / union).min(axis=1)


def inside(boxes: np.ndarray, view) -> np.ndarray:
    """Return the positions of the boxes whose centre is in ``view`` (left, top, width, height)."""
    start = np.array(view[:2])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    in_view = (start <= centres) & (centres < start + view[2:])
    return np.flatnonzero(in_view.all(axis=1))


# ------------------------------------------------------------------------------ pixels


def render(rgb, view, size: int, fill, colour: np.ndarray, interpolation: int) -> np.ndarray:
    """Resize and recolour the part ``view``: ``(size, size, 3)`` float32, 0 to 255, not clipped.

    Args:
        rgb: ``(height, width, 3)`` uint8.
        view: left, top, width, height; outside the image the colour is ``fill``.
        colour: ``(3, 4)``, from ``random_colour``.
    """
    left, top, wide, tall = view
    height, width = rgb.shape[:2]
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = fill
    x0, x1, y0, y1 = max(left, 0), min(left + wide, width), max(top, 0), min(top + tall, height)
    # rounded to whole pixels of the result, which matters at the image's border only
    a, b = round((x0 - left) * size / wide), round((x1 - left) * size / wide)
    c, d = round((y0 - top) * size / tall), round((y1 - top) * size / tall)
    if b > a and d > c:
        part = cv2.resize(rgb[y0:y1, x0:x1], (b - a, d - c), interpolation=interpolation)
        canvas[c:d, a:b] = cv2.transform(part.astype(np.float32), colour)
    return canvas


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """Sample a colour change as an affine map of RGB, ``(3, 4)`` float32.

    Brightness, contrast, saturation and hue, each in half of all cases; contrast before or after
    saturation and hue.  Values are not clipped, as in GluonCV.
    """
    brightness = np.eye(3, 4)
    if rng.random() < 0.5:
        brightness[:, 3] = rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    contrast = np.eye(3) * (rng.uniform(*CONTRAST) if rng.random() < 0.5 else 1)
    changes = [_saturation(rng), _hue(rng)]
    changes.insert(0 if rng.random() < 0.5 else 2, contrast)
    first, second, third = changes
    return (third @ second @ first @ brightness).astype(np.float32)


def _with_normalization(colour: np.ndarray, normalize: Normalization) -> np.ndarray:
    """Combine a colour change with the normalisation after it, ``(3, 4)``."""
    shifted = colour.copy()
    shifted[:, 3] -= normalize.mean
    return shifted / np.float32(normalize.std)[:, None]


def _saturation(rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.5:
        return np.eye(3)
    share = rng.uniform(*SATURATION)
    return share * np.eye(3) + (1 - share) * np.tile(_TO_YIQ[0], (3, 1))


def _hue(rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.5:
        return np.eye(3)
    turn = rng.uniform(-HUE, HUE)
    cos, sin = math.cos(turn), math.sin(turn)
    return _FROM_YIQ @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ _TO_YIQ
