"""Further augmentations by name, for ``--augmentation``.

They change the crop after mirroring, before RandAugment and the colours.
"""

from typing import Callable

import cv2
import numpy as np

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.registry import Registry


def _three_augment(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make the image grey, solarise it or blur it, one of the three.

    Source: DeiT III, arXiv:2204.07118, figure 2; threshold and radii of the authors' code.
    """
    choice = rng.integers(3)
    if choice == 0:
        return cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if choice == 1:
        return np.where(rgb < 128, rgb, 255 - rgb)
    return cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.1, 2.0))


AUGMENTATIONS = Registry("augmentation", {"3-augment": _three_augment})


def register_augmentation(name: str, function=None) -> Callable:
    """Add an augmentation for ``--augmentation``; also a decorator.

    Args:
        function: ``(rgb, rng) -> rgb``: images ``(H, W, 3)`` uint8 of one size, and a
            ``numpy.random.Generator``, the only source of random numbers: then a resumed run
            repeats them.  It is called from several threads.
    """
    return AUGMENTATIONS.register(name, function)


def augment(rgb: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    """Apply an augmentation.  Raises: InputError if its result is not an image of the same size."""
    changed = AUGMENTATIONS.find(name)(rgb, rng)
    if not isinstance(changed, np.ndarray) or changed.shape != rgb.shape or changed.dtype != "u1":
        found = f"{getattr(changed, 'shape', '')} {getattr(changed, 'dtype', type(changed))}"
        raise InputError(
            f"--augmentation {name} returned {found.strip()}, expected {rgb.shape} uint8"
        )
    return np.ascontiguousarray(changed)
