"""RandAugment: some operations per image, drawn from fourteen, all of one strength.

Source: Cubuk et al. 2019, arXiv:1909.13719, with the operations and strengths of torchvision's
``RandAugment``: 31 strengths, nearest-neighbour geometry, black where nothing is known.  Each
operation gives the pixels of Pillow's, which torchvision uses.
"""

import math
from typing import Callable

import cv2
import numpy as np

STRENGTHS = 31  # numbered from 0, which changes little or nothing
_TRANSLATION = 150 / 331  # of the width or height at most: the paper's 150 of 331 pixels
_FIXED = 1 << 16  # Pillow's geometry: 16 bits behind the point


def randaugment(
    rgb: np.ndarray, operations: int, magnitude: int, rng: np.random.Generator
) -> np.ndarray:
    """Change one picture.

    Args:
        rgb: ``(H, W, 3)`` uint8.
        operations: how many, the paper's N; one may come twice.
        magnitude: their strength, the paper's M, 0 to 30.
    """
    for number in rng.integers(len(OPERATIONS), size=operations):
        operation, greatest, signed = OPERATIONS[list(OPERATIONS)[number]]
        strength = greatest * magnitude / (STRENGTHS - 1)
        if signed and rng.random() < 0.5:
            strength = -strength
        rgb = operation(rgb, strength)
    return rgb


def shear_x(rgb, strength):
    """Move each row sideways by ``strength`` times its height."""
    return _affine(rgb, (1, strength, 0, 0, 1, 0))


def shear_y(rgb, strength):
    """Move each column up or down by ``strength`` times its distance from the left."""
    return _affine(rgb, (1, 0, 0, strength, 1, 0))


def translate_x(rgb, strength):
    """Move to the right by a share of the width."""
    return _affine(rgb, (1, 0, -int(strength * rgb.shape[1]), 0, 1, 0))


def translate_y(rgb, strength):
    """Move down by a share of the height."""
    return _affine(rgb, (1, 0, 0, 0, 1, -int(strength * rgb.shape[0])))


def rotate(rgb, degrees):
    """Turn about the centre, counter-clockwise."""
    height, width = rgb.shape[:2]
    cos, sin = math.cos(-math.radians(degrees)), math.sin(-math.radians(degrees))
    x, y = width / 2, height / 2
    return _affine(rgb, (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y))


def _affine(rgb, matrix):
    """Take the pixel at ``(x, y)`` from ``matrix @ (x, y, 1)``; Pillow's arithmetic."""
    height, width = rgb.shape[:2]
    a, b, c, d, e, f = matrix
    a, b, c, d, e, f = (
        math.floor(value * _FIXED + 0.5)
        for value in (a, b, c + a / 2 + b / 2, d, e, f + d / 2 + e / 2)
    )
    x, y = np.arange(width), np.arange(height)[:, None]
    from_x, from_y = (c + a * x + b * y) // _FIXED, (f + d * x + e * y) // _FIXED
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    return np.where(inside[..., None], rgb[from_y * inside, from_x * inside], np.uint8(0))


def brightness(rgb, strength):
    """Away from black, or towards it."""
    return _blend(np.zeros_like(rgb), rgb, 1 + strength)


def color(rgb, strength):
    """Away from each pixel's grey, or towards it."""
    return _blend(_grey(rgb)[..., None], rgb, 1 + strength)


def contrast(rgb, strength):
    """Away from the mean grey, or towards it."""
    return _blend(np.uint8(_grey(rgb).mean() + 0.5), rgb, 1 + strength)


def sharpness(rgb, strength):
    """Away from a smoothed picture, or towards it; the border stays."""
    kernel = np.float32([[1, 1, 1], [1, 5, 1], [1, 1, 1]])
    sums = cv2.filter2D(rgb.astype(np.float32), -1, kernel)[1:-1, 1:-1]
    smooth = rgb.copy()
    smooth[1:-1, 1:-1] = (2 * sums + 13) // 26  # sums / 13, rounded
    return _blend(smooth, rgb, 1 + strength)


def _grey(rgb):
    """ITU-R BT.601 luma, ``(H, W)`` uint8, in Pillow's arithmetic."""
    red, green, blue = (rgb[..., i].astype(np.int32) for i in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


def _blend(start, end, share):
    start, end = np.float32(start), np.float32(end)
    return np.clip(start + np.float32(share) * (end - start), 0, 255).astype(np.uint8)


def posterize(rgb, dropped):
    """Set the lowest bits of each value to zero."""
    return rgb & np.uint8(0xFF << round(dropped) & 0xFF)


def solarize(rgb, strength):
    """Turn values from ``255 - strength`` on into their opposites."""
    values = np.arange(256)
    return cv2.LUT(rgb, np.uint8(np.where(values < 255 - strength, values, 255 - values)))


def autocontrast(rgb, _=0):
    """Stretch each channel to 0 to 255."""
    return _by_channel(rgb, _stretched)


def equalize(rgb, _=0):
    """Make each channel's values equally frequent."""
    return _by_channel(rgb, _equalized)


def _by_channel(rgb, table: Callable):
    tables = [table(np.bincount(rgb[..., i].ravel(), minlength=256)) for i in range(3)]
    return cv2.LUT(rgb, np.stack(tables, axis=-1)[None])


def _stretched(counts):
    values = np.arange(256)
    low, high = values[counts > 0][[0, -1]]
    if low == high:
        return np.uint8(values)
    scale = 255 / (high - low)
    return np.uint8(np.clip((values * scale - low * scale).astype(int), 0, 255))


def _equalized(counts):
    held = counts[counts > 0]
    step = (held.sum() - held[-1]) // 255
    if not step:
        return np.arange(256, dtype=np.uint8)
    below = np.cumsum(counts) - counts
    return np.uint8(np.minimum((step // 2 + below) // step, 255))


def identity(rgb, _=0):
    """Leave the picture as it is."""
    return rgb


# name: function, greatest strength, whether either sign is drawn
OPERATIONS = {
    "Identity": (identity, 0, False),
    "ShearX": (shear_x, 0.3, True),
    "ShearY": (shear_y, 0.3, True),
    "TranslateX": (translate_x, _TRANSLATION, True),
    "TranslateY": (translate_y, _TRANSLATION, True),
    "Rotate": (rotate, 30, True),
    "Brightness": (brightness, 0.9, True),
    "Color": (color, 0.9, True),
    "Contrast": (contrast, 0.9, True),
    "Sharpness": (sharpness, 0.9, True),
    "Posterize": (posterize, 4, False),
    "Solarize": (solarize, 255, False),
    "AutoContrast": (autocontrast, 0, False),
    "Equalize": (equalize, 0, False),
}
