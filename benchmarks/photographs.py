"""scikit-learn's two photographs, where random pixels would not do."""

import cv2
import numpy as np

from gluon_asymmnet.data.images import encode
from gluon_asymmnet.data.transforms import Augmentation, training_image
from gluon_asymmnet.errors import InputError

IMAGENET_SIZE = (375, 500)  # the most frequent height and width in ImageNet, pixels


def photographs() -> list[np.ndarray]:
    """Return scikit-learn's two photographs, ``(427, 640, 3)`` uint8 RGB."""
    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        raise InputError(
            "the photographs come with scikit-learn: pip install 'gluon_asymmnet[demo]'"
        ) from None
    return load_sample_images().images


def crops(count: int, size: int, normalize) -> np.ndarray:
    """Return normalised random crops, ``(count, 3, size, size)`` float32."""
    photos, rng = photographs(), np.random.default_rng(0)
    how = Augmentation(jitter=0.0, pca_noise=0.0)
    return np.stack(
        [training_image(photos[i % 2], size, how, normalize, rng) for i in range(count)]
    )


def large_jpeg() -> bytes:
    """Return a photograph of 4032 x 3024 pixels as JPEG, quality 90: enlarged, with noise."""
    large = cv2.resize(photographs()[0], (4032, 3024), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(0, 4, large.shape)
    return encode(np.clip(large + noise, 0, 255).astype(np.uint8), quality=90)


def jpegs(count: int, size: tuple[int, int] = IMAGENET_SIZE) -> list[bytes]:
    """Return random parts of ``size`` (height, width) pixels as JPEG, quality 95."""
    photos, rng, (height, width) = photographs(), np.random.default_rng(0), size
    encoded = []
    for i in range(count):
        photo = photos[i % 2]
        top = rng.integers(photo.shape[0] - height + 1)
        left = rng.integers(photo.shape[1] - width + 1)
        encoded.append(encode(photo[top : top + height, left : left + width]))
    return encoded
