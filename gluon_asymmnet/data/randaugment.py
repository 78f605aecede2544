"""RandAugment: apply some of fourteen operations to an image, all at one strength.

Source: Cubuk et al. 2019, arXiv:1909.13719, with the operations and strengths of torchvision's
``RandAugment`` on Pillow images: 31 strengths, nearest-neighbour geometry, black borders.
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

STRENGTHS = 31  # numbered from 0, which changes little or nothing
_TRANSLATION = 150 / 331  # greatest share of the width or height: 150 of the paper's 331 pixels


def randaugment(
    rgb: np.ndarray, operations: int, magnitude: int, rng: np.random.Generator
) -> np.ndarray:
    """Change one image.

    Args:
        rgb: ``(H, W, 3)`` uint8.
        operations: how many, the paper's N; one may be drawn twice.
        magnitude: their strength, the paper's M, 0 to 30.
    """
    image = Image.fromarray(rgb)
    for number in rng.integers(len(OPERATIONS), size=operations):
        operation, greatest, signed = list(OPERATIONS.values())[number]
        strength = greatest * magnitude / (STRENGTHS - 1)
        if signed and rng.random() < 0.5:
            strength = -strength
        image = operation(image, strength)
    return np.array(image)


def _affine(image, *matrix):
    """Take the pixel at ``(x, y)`` from ``matrix @ (x, y, 1)``."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


# name: (image, strength) -> image, greatest strength, whether the sign is drawn
OPERATIONS = {
    "Identity": (lambda image, _: image, 0, False),
    "ShearX": (lambda image, m: _affine(image, 1, m, 0, 0, 1, 0), 0.3, True),
    "ShearY": (lambda image, m: _affine(image, 1, 0, 0, m, 1, 0), 0.3, True),
    "TranslateX": (
        lambda image, m: _affine(image, 1, 0, -int(m * image.width), 0, 1, 0), _TRANSLATION, True
    ),
    "TranslateY": (
        lambda image, m: _affine(image, 1, 0, 0, 0, 1, -int(m * image.height)), _TRANSLATION, True
    ),
    "Rotate": (lambda image, m: image.rotate(m, Image.Resampling.NEAREST), 30, True),  # degrees
    "Brightness": (lambda image, m: ImageEnhance.Brightness(image).enhance(1 + m), 0.9, True),
    "Color": (lambda image, m: ImageEnhance.Color(image).enhance(1 + m), 0.9, True),
    "Contrast": (lambda image, m: ImageEnhance.Contrast(image).enhance(1 + m), 0.9, True),
    "Sharpness": (lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + m), 0.9, True),
    "Posterize": (lambda image, m: ImageOps.posterize(image, 8 - round(m)), 4, False),
    "Solarize": (lambda image, m: ImageOps.solarize(image, 255 - m), 255, False),
    "AutoContrast": (lambda image, _: ImageOps.autocontrast(image), 0, False),
    "Equalize": (lambda image, _: ImageOps.equalize(image), 0, False),
}  # fmt: skip
