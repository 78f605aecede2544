"""Mixup and CutMix: mix a batch with the same batch in reverse order."""

from typing import NamedTuple, Optional

import numpy as np


class Box(NamedTuple):
    """A part of an image, pixels; bottom and right are just outside."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


class Mixup(NamedTuple):
    """How one batch is mixed with its reverse, by mixup or CutMix."""

    share: float = 1  # weight of an image, and of its label; the rest is the other's
    box: Optional[Box] = None  # CutMix: these pixels come from the other image

    def images(self, batch):
        """Return the images mixed; ``(N, C, H, W)``, a NumPy or MXNet array, left as it is."""
        if self.box is None or self.share == 1:
            return self._blend(batch)
        top, bottom, left, right = self.box
        mixed = batch.copy()
        mixed[:, :, top:bottom, left:right] = batch[::-1][:, :, top:bottom, left:right]
        return mixed

    def labels(self, target):
        """Return probabilities mixed; ``(N, classes)``."""
        return self._blend(target)

    def _blend(self, x):
        return x if self.share == 1 else self.share * x + (1 - self.share) * x[::-1]


class Mixing(NamedTuple):
    """The distribution of mixup and CutMix, sampled once per batch.

    Source: arXiv:1710.09412 (mixup), arXiv:1905.04899 (CutMix); both together, and the names of
    the last two, as timm's ``Mixup`` with ``mode="batch"``.
    """

    mixup_alpha: float = 0.0  # 0: no mixup
    cutmix_alpha: float = 0.0  # 0: no CutMix
    prob: float = 1.0  # share of batches that are mixed
    switch_prob: float = 0.5  # share of CutMix among these, if there are both

    def sample(self, size: int, rng: np.random.Generator) -> Mixup:
        """Sample the mixup of one batch; ``size``: height and width of its images, pixels."""
        if not self.mixup_alpha and not self.cutmix_alpha:
            return Mixup()
        if self.prob < 1 and rng.random() >= self.prob:
            return Mixup()
        cut = self.cutmix_alpha > 0
        if cut and self.mixup_alpha:
            cut = rng.random() < self.switch_prob
        if not cut:
            return Mixup(float(rng.beta(self.mixup_alpha, self.mixup_alpha)))
        box = random_box(size, float(rng.beta(self.cutmix_alpha, self.cutmix_alpha)), rng)
        return Mixup(1 - box.area / size**2, box)


def random_box(size: int, share: float, rng: np.random.Generator) -> Box:
    """Sample a square of about ``1 - share`` of an image of ``size`` pixels, clipped to the image.

    Its centre is uniform over the image, so clipping may leave less, down to nothing; the labels
    are weighted by the area that is left.  Source: arXiv:1905.04899, equation 2.
    """
    side = int(size * np.sqrt(1 - share))
    y, x = (int(v) for v in rng.integers(size, size=2))

    def clipped(centre: int):
        return max(centre - side // 2, 0), min(centre + (side + 1) // 2, size)

    return Box(*clipped(y), *clipped(x))


def make_mixing(config) -> Mixing:
    """Return the mixing that ``config``, a ``ClassifierConfig``, requests."""
    return Mixing(
        config.mixup_alpha if config.mixup else 0.0,
        config.cutmix,
        config.mix_prob,
        config.mix_switch_prob,
    )
