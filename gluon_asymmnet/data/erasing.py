"""Random erasing: a rectangle of a training image becomes noise."""

import math

import numpy as np

_AREA = (0.02, 1 / 3)  # share of the image
_ASPECT = (0.3, 1 / 0.3)  # height over width
_ATTEMPTS = 10


def erased(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return ``(3, H, W)`` float32 with a random rectangle of it erased, by the chance ``share``.

    Each pixel of the rectangle gets noise of mean 0 and deviation 1, what a normalised image has.

    Source: arXiv:1708.04896, algorithm 1, with pixels as its RE-R; greatest area, logarithmic
    aspect ratio and normal noise as timm's ``RandomErasing(mode="pixel")``.
    """
    if rng.random() >= share:
        return image
    _, height, width = image.shape
    for _ in range(_ATTEMPTS):
        area = rng.uniform(*_AREA) * height * width
        aspect = math.exp(rng.uniform(*np.log(_ASPECT)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            image = image.copy()
            image[:, top : top + h, left : left + w] = rng.standard_normal((3, h, w), np.float32)
            return image
    return image
