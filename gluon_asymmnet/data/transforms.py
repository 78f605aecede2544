"""Images to network input: the authors' training augmentation, and the validation crop.

Images are ``(height, width, 3)`` uint8 RGB; results are ``(3, size, size)`` float32, normalised.
All randomness comes from the generator passed in.
"""

import functools
import itertools
import math
from typing import NamedTuple, Optional

import cv2
import numpy as np

from gluon_asymmnet.data.augmentations import augment
from gluon_asymmnet.data.constants import IMAGENET_MEAN, IMAGENET_STD
from gluon_asymmnet.data.images import require_sides

# Eigenvectors (columns) and eigenvalues of ImageNet's RGB values, 0 to 255.
# Source: Krizhevsky et al. 2012, section 4.1, in the numbers MXNet's image_aug_default.cc has.
_PCA = np.float32([
    [55.46 * -0.5675, 4.794 * 0.7192, 1.148 * 0.4009],
    [55.46 * -0.5808, 4.794 * -0.0045, 1.148 * -0.8140],
    [55.46 * -0.5836, 4.794 * -0.6948, 1.148 * 0.4203],
])  # fmt: skip


class Normalization(NamedTuple):
    """Per-channel mean and standard deviation of R, G, B; unit 0 to 255."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __call__(self, rgb: np.ndarray, out: Optional[np.ndarray] = None) -> np.ndarray:
        """Normalise ``(H, W, 3)`` to ``(3, H, W)`` float32, in ``out`` if it is given."""
        planes = np.empty((3, *rgb.shape[:2]), np.float32) if out is None else out
        means, scales = _float32_factors(self)
        if planes.size <= _SMALL:
            np.subtract(rgb.transpose(2, 0, 1), means, out=planes, dtype=np.float32)
            return np.multiply(planes, scales, out=planes)
        # One channel at a time: on rows of three values NumPy is fifteen times slower.
        for plane, colour, mean, scale in zip(planes, cv2.split(rgb), means, scales):
            np.subtract(colour, mean, out=plane, dtype=np.float32)
            np.multiply(plane, scale, out=plane)
        return planes


_SMALL = 3 * 48 * 48  # numbers of an image for which three calls take longer than slow rows


@functools.lru_cache
def _float32_factors(how: Normalization) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and 1 / standard deviation, each ``(3, 1, 1)`` float32."""
    mean, std = (np.float32(values).reshape(3, 1, 1) for values in how)
    return mean, 1 / std


class Augmentation(NamedTuple):
    """Settings of the training augmentation; the defaults are the authors'."""

    min_area: float = 0.08  # smallest share of the image's area in a random crop
    aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width over height of the crop, or the inverse
    mirror: bool = True
    jitter: float = 0.4  # brightness, contrast and saturation change by up to this share
    pca_noise: float = 0.1
    operations: int = 0  # number of RandAugment operations per image; the authors use none
    magnitude: int = 9  # its strength, 0 to 30
    erasing: float = 0.0  # share of images with an erased rectangle; the authors use none
    further: tuple[str, ...] = ()  # names in ``augmentations.AUGMENTATIONS``, in their order


def validation_resize(input_size: int, crop_ratio: float) -> int:
    """Return the length of the shorter side before the crop, pixels: 256 for 224 and 0.875."""
    return math.ceil(round(input_size / crop_ratio, 6))  # 288 / 0.576 is 500.00000000000006


def validation_crop(rgb: np.ndarray, input_size: int, crop_ratio: float) -> np.ndarray:
    """Resize the shorter side and crop the centre, as ImageRecordIter does.

    Bilinear without anti-aliasing, the longer side rounded down.
    Returns: ``(input_size, input_size, 3)`` uint8.
    Raises: FormatError for a picture so narrow that the resized one cannot be meant.
    Source: MXNet's src/io/image_aug_default.cc with the authors' ``resize`` and ``data_shape``.
    """
    height, width = rgb.shape[:2]
    shorter = validation_resize(input_size, crop_ratio)
    if height > width:
        size = (shorter, shorter * height // width)
    else:
        size = (shorter * width // height, shorter)
    require_sides(width, height, size)
    resized = cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR)
    top, left = (size[1] - input_size) // 2, (size[0] - input_size) // 2
    return resized[top : top + input_size, left : left + input_size]


def training_image(
    rgb: np.ndarray,
    size: int,
    how: Augmentation,
    normalize: Normalization,
    rng: np.random.Generator,
    out: Optional[np.ndarray] = None,
) -> np.ndarray:
    """Crop, mirror, jitter and normalise one training image, in ``out`` if it is given.

    Further augmentations come after the mirror, RandAugment before the jitter and erasing last, as
    in torchvision and timm.
    """
    top, left, height, width = random_area(*rgb.shape[:2], size, how, rng)
    crop = rgb[top : top + height, left : left + width]
    crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR)
    if how.mirror and rng.random() < 0.5:
        crop = cv2.flip(crop, 1)
    for name in how.further:
        crop = augment(crop, name, rng)
    if how.operations:
        from gluon_asymmnet.data.randaugment import randaugment  # Pillow: prediction does without

        crop = randaugment(crop, how.operations, how.magnitude, rng)
    image = normalize(_recolour(crop, how, rng), out)
    if how.erasing:
        random_erasing(image, how.erasing, rng)
    return image


def random_area(height: int, width: int, size: int, how: Augmentation, rng: np.random.Generator):
    """Return ``(top, left, height, width)`` of a random crop, pixels.

    Area and aspect ratio are uniform, and every second crop has height and width exchanged.  After
    ten crops that do not fit, the central square of ``size`` pixels, or the largest one, is used.
    Source: MXNet's src/io/image_aug_default.cc with ``random_resized_crop``.
    """
    (low, high), most = how.aspect, height * width
    # one call for all random numbers: a call takes as long as all the rest
    for share, ratio, exchange, y, x in rng.random((10, 5)).tolist():
        area, ratio = most * (how.min_area + share * (1 - how.min_area)), low + ratio * (high - low)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if exchange < 0.5:
            w, h = h, w
        if 0 < w <= width and 0 < h <= height:
            return int(y * (height - h + 1)), int(x * (width - w + 1)), h, w
    side = min(height, width, size)
    return (height - side) // 2, (width - side) // 2, side, side


def _brightness(rgb: np.ndarray, alpha: float) -> np.ndarray:
    return cv2.convertScaleAbs(rgb, alpha=alpha)


def _contrast(rgb: np.ndarray, alpha: float) -> np.ndarray:
    """Change the distance to the mean grey value of the image."""
    mean = cv2.mean(cv2.cvtColor(rgb, cv2.COLOR_BGR2GRAY))[0]
    return cv2.addWeighted(rgb, alpha, rgb, 0, (1 - alpha) * mean)


def _saturation(rgb: np.ndarray, alpha: float) -> np.ndarray:
    """Change the distance to each pixel's grey value."""
    grey = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(rgb, alpha, grey, 1 - alpha, 0)


_JITTER_ORDERS = tuple(itertools.permutations((_brightness, _contrast, _saturation)))


def _recolour(rgb: np.ndarray, how: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast and saturation in random order, then add colour noise.

    Each step rounds to 8 bits, the noise down.  Grey values have the weights of red and blue
    exchanged.  Both are MXNet's choice, see src/io/image_aug_default.cc: it converts its BGR images
    to grey as if they were RGB.
    """
    if how.jitter:
        order, *strengths = rng.random(4).tolist()
        for step, strength in zip(_JITTER_ORDERS[int(6 * order)], strengths):
            rgb = step(rgb, 1 + how.jitter * (2 * strength - 1))
    if how.pca_noise:
        noise = np.floor(_PCA @ rng.normal(0, how.pca_noise, 3)).tolist()
        rgb = cv2.add(rgb, (*noise, 0))
    return rgb


# Random erasing
_AREA = (0.02, 1 / 3)  # share of the image
_ASPECT = (0.3, 1 / 0.3)  # height over width
_ATTEMPTS = 10


def random_erasing(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Erase a random rectangle of ``(3, H, W)`` float32, in place, with probability ``share``.

    Its pixels become normal noise of mean 0 and deviation 1, the statistics of normalised images.

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
            image[:, top : top + h, left : left + w] = rng.standard_normal((3, h, w), np.float32)
            return image
    return image


class Preprocessing(NamedTuple):
    """Preprocessing of validation images: centre crop and normalisation."""

    input_size: int = 224  # pixels
    crop_ratio: float = 0.875
    normalization: Normalization = Normalization()

    @property
    def resized(self) -> int:
        """The shorter side before the crop, pixels."""
        return validation_resize(self.input_size, self.crop_ratio)

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Convert ``(H, W, 3)`` uint8 RGB to ``(3, size, size)`` float32."""
        return self.normalization(validation_crop(rgb, self.input_size, self.crop_ratio))
