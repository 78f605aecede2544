"""Second moments of a layer's input patches and target responses, summed over batches.

The linear methods of ``compress.decomposition`` need no other data.  Memory: ``(c * k * k)**2``
numbers, for any number of images.
"""

from typing import NamedTuple

import numpy as np

from gluon_asymmnet.errors import InputError


class Window(NamedTuple):
    """Geometry of a convolution, for height and width."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the output."""
        return tuple(
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, pad, dilation in zip((height, width), *self)
        )


class Moments(NamedTuple):
    """Means and centred second moments, per sample; d = c * k * k, channel by channel."""

    mean_x: np.ndarray  # (d,) of the patches
    mean_y: np.ndarray  # (n,) of the target responses, with bias
    gram: np.ndarray  # (d, d) patches with patches
    cross: np.ndarray  # (d, n) patches with responses
    power: float  # sum of the variances of the responses


class MomentSums:
    """Sums of patches ``x`` and responses ``y``: add batches, then compute the moments.

    Args:
        inputs: d, values of a patch.
        outputs: n, responses.
    """

    def __init__(self, inputs: int, outputs: int):
        self.samples = 0
        self._x, self._y = np.zeros(inputs), np.zeros(outputs)
        self._xx, self._xy, self._yy = np.zeros((inputs, inputs)), np.zeros((inputs, outputs)), 0.0

    @staticmethod
    def bytes_needed(inputs: int, outputs: int) -> int:
        """Return the peak memory: the sums and the products of one batch."""
        return 2 * 8 * inputs * (inputs + outputs)

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Add patches ``(s, d)`` and their target responses ``(s, n)``."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        self.samples += len(x)
        self._x += x.sum(axis=0)
        self._y += y.sum(axis=0)
        self._xx += x.T @ x
        self._xy += x.T @ y
        self._yy += float(np.square(y).sum())

    def moments(self) -> Moments:
        """Return the moments, computed in place of the sums: nothing can be added afterwards.

        Raises: InputError if nothing was added.
        """
        if not self.samples:
            raise InputError("no samples: a decomposition from data needs at least one image")
        x, y = self._x / self.samples, self._y / self.samples
        gram, cross, self._xx, self._xy = self._xx, self._xy, None, None
        for sums, left, right in ((gram, x, x), (cross, x, y)):
            sums /= self.samples
            sums -= np.outer(left, right)
        return Moments(x, y, gram, cross, max(0.0, self._yy / self.samples - float(y @ y)))


def sample_patches(
    images: np.ndarray, window: Window, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Return ``(N * count, c * kh * kw)`` patches at random output positions of each image.

    Positions may repeat.  They depend only on the state of ``rng``, ``N``, height and width, so two
    networks can be sampled at the same positions.

    Args:
        images: ``(N, c, H, W)``, the input of the convolution, not padded.
        window: of the convolution; its padding is zeros.
    """
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = window
    n, channels = images.shape[:2]
    height, width = window.output_size(*images.shape[2:])
    rows = rng.integers(height, size=(n, count))
    columns = rng.integers(width, size=(n, count))
    padded = np.pad(images, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    views = np.lib.stride_tricks.sliding_window_view(
        padded, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), axis=(2, 3)
    )[:, :, ::sh, ::sw, ::dh, ::dw]
    taken = views[np.arange(n)[:, None], :, rows, columns]
    return taken.reshape(n * count, channels * kh * kw)
