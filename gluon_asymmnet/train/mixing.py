"""Mixup and CutMix: which part of a batch is replaced by the batch reversed."""

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


class Mix(NamedTuple):
    """What one batch is mixed with: its own images in reverse order."""

    share: float = 1  # of an image itself, and of its label
    box: Optional[Box] = None  # CutMix: only these pixels are the other image's

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
    """How often and how strongly batches are mixed, drawn once per batch.

    Source: arXiv:1710.09412 (mixup), arXiv:1905.04899 (CutMix); both together, and the names of
    the last two, as timm's ``Mixup`` with ``mode="batch"``.
    """

    mixup_alpha: float = 0.0  # 0: no mixup
    cutmix_alpha: float = 0.0  # 0: no CutMix
    prob: float = 1.0  # share of batches that are mixed
    switch_prob: float = 0.5  # share of CutMix among these, if there are both

    def draw(self, size: int, rng: np.random.Generator) -> Mix:
        """Draw for a batch of images of ``size`` pixels."""
        if not self.mixup_alpha and not self.cutmix_alpha:
            return Mix()
        if self.prob < 1 and rng.random() >= self.prob:
            return Mix()
        cut = self.cutmix_alpha > 0
        if cut and self.mixup_alpha:
            cut = rng.random() < self.switch_prob
        if not cut:
            return Mix(float(rng.beta(self.mixup_alpha, self.mixup_alpha)))
        box = random_box(size, float(rng.beta(self.cutmix_alpha, self.cutmix_alpha)), rng)
        return Mix(1 - box.area / size**2, box)


def random_box(size: int, share: float, rng: np.random.Generator) -> Box:
    """Draw a square of about ``1 - share`` of an image of ``size`` pixels, cut off at its border.

    Its centre is uniform over the image, so it may be smaller, down to nothing: labels go by what
    is left of it.  Source: arXiv:1905.04899, equation 2.
    """
    side = int(size * np.sqrt(1 - share))
    y, x = (int(v) for v in rng.integers(size, size=2))

    def clipped(centre: int):
        return max(centre - side // 2, 0), min(centre + (side + 1) // 2, size)

    return Box(*clipped(y), *clipped(x))


def make_mixing(config) -> Mixing:
    """Return what ``config``, a ``ClassifierConfig``, asks for."""
    return Mixing(
        config.mixup_alpha if config.mixup else 0.0,
        config.cutmix,
        config.mix_prob,
        config.mix_switch_prob,
    )
