"""Factor a convolution into a cheaper spatial convolution and a 1 x 1 convolution after it.

All methods are reduced-rank regressions.  ``W_i`` is the kernel and ``X_i`` the patches of input
channel i, ``Y`` the target responses:

- ``weight_svd``: of each ``W_i`` alone, without data.
- ``data_svd``: of each ``X_i W_i`` alone.
- ``sequential``: the same, channel by channel; each one also fits the remaining error of those
  before it (the paper's multi-channel form).
- ``channel``: of all responses at once, the baseline, called channel decomposition.
- ``channel_relu``: of all responses after the ReLU that follows the layer.

All but the last need only second moments (``compress.moments``), so their memory does not grow with
the data.  The paper's asymmetric, multi-layer form uses the same methods: the patches come from the
decomposed network, the targets from the original one.

Sources: Depth-wise Decomposition, arXiv:1910.09455, for the first three; the baseline is
arXiv:1505.06798 as in yihui-he/channel-pruning, ``lib/decompose.py``.  Assumptions, because only
the abstract of the paper was available: its "GSVD" is this reduced-rank regression; channels are
visited in their order; ``weight_svd`` splits the singular values evenly between its two factors.
``sweeps`` and ``joint`` are additions of this project.
"""

from typing import NamedTuple

import numpy as np

from gluon_asymmnet.compress.moments import Moments
from gluon_asymmnet.errors import InputError

# Ridge, relative to a channel's mean square: patches may be linearly dependent.  It damps changes
# of the kernel, not the kernel itself, so full rank stays exact.
_RIDGE = 1e-6
_MIN_SCALE = 1e-6  # of a normalisation before a ReLU
_RELU_STAGES = ((0.1, 30), (1.0, 20))  # weight of the constraint, iterations; from the baseline


class Factors(NamedTuple):
    """A k x k convolution without bias and a 1 x 1 convolution with bias after it."""

    spatial: np.ndarray  # (f, c / groups, k, k)
    pointwise: np.ndarray  # (n, f)
    bias: np.ndarray  # (n,)
    groups: int  # of the spatial convolution: c, or 1

    @property
    def kernel(self) -> np.ndarray:
        """The kernel ``(n, c, k, k)`` of the single convolution that is equal to both."""
        each = self.spatial.reshape(self.groups, -1, *self.spatial.shape[1:])
        mixed = self.pointwise.reshape(len(self.pointwise), self.groups, -1)
        kernel = np.einsum("ngf,gfchw->ngchw", mixed, each)
        return kernel.reshape(len(kernel), -1, *self.spatial.shape[2:])


def largest_multiplier(weight_shape) -> int:
    """Return the smallest depth multiplier at which the decomposition is exact."""
    n, _, *window = weight_shape
    return min(int(np.prod(window)), n)


def equal_cost_rank(weight_shape, multiplier: int) -> int:
    """Return the rank at which channel decomposition costs as much as the separable form.

    From 1 to the number of outputs, at which it is exact.
    """
    n, c, *window = weight_shape
    taps = int(np.prod(window)) * c
    return max(1, min(n, round((taps + c * n) * multiplier / (taps + n))))


def weight_svd(weight: np.ndarray, bias: np.ndarray, multiplier: int) -> Factors:
    """Truncate each input channel's kernel to the least squared error of the weights.

    Args:
        weight: ``(n, c, k, k)``.
        bias: ``(n,)``, not changed.
        multiplier: m, depthwise filters per input channel, from 1 to ``min(k * k, n)``.

    Raises: InputError for another multiplier.
    """
    kernels = _kernels(weight, multiplier)
    u, s, vt = np.linalg.svd(kernels, full_matrices=False)
    split = np.sqrt(s[:, None, :multiplier])
    left, right = u[:, :, :multiplier] * split, vt[:, :multiplier].swapaxes(1, 2) * split
    return _depthwise_factors(left, right, bias, weight.shape)


def data_svd(weight: np.ndarray, moments: Moments, multiplier: int) -> Factors:
    """Truncate each input channel's part of the responses.

    This is optimal for each channel; the sum of all may still be worse than that of ``weight_svd``.

    Args:
        weight, multiplier: as in ``weight_svd``.
        moments: of the layer's patches and responses; they determine the bias.

    Raises: InputError for a multiplier below 1 or above ``min(k * k, n)``.
    """
    kernels = _kernels(weight, multiplier)
    parts = [
        reduced_rank(metric, kernel, multiplier)
        for metric, kernel in zip(_channel_metrics(moments.gram, len(kernels)), kernels)
    ]
    left, right = (np.stack(side) for side in zip(*parts))
    return _depthwise_factors(left, right, _mean_bias(left, right, moments), weight.shape)


def sequential(
    weight: np.ndarray, moments: Moments, multiplier: int, *, sweeps: int = 0, joint: bool = False
) -> Factors:
    """Truncate channel by channel; each one also fits the remaining error of those before it.

    Args:
        weight, moments, multiplier: as in ``data_svd``.
        sweeps: further rounds over all channels; the error does not grow.
        joint: a final least squares of all pointwise weights; the error does not grow.

    Raises: InputError for a multiplier below 1 or above ``min(k * k, n)``.
    """
    kernels = _kernels(weight, multiplier)
    channels, taps, n = kernels.shape
    left, right = np.zeros((channels, taps, multiplier)), np.zeros((channels, n, multiplier))
    metrics = _channel_metrics(moments.gram, channels)
    # Cross moments of patches and error.  Channels not visited yet have their full kernels, so at
    # first this is the error of earlier layers.
    error = moments.cross - moments.gram @ kernels.reshape(-1, n)
    for _ in range(1 + sweeps):
        for i, metric in enumerate(metrics):
            rows = slice(i * taps, (i + 1) * taps)
            best = kernels[i] + np.linalg.solve(metric, error[rows])
            left[i], right[i] = reduced_rank(metric, best, multiplier)
            new = left[i] @ right[i].T
            error += moments.gram[:, rows] @ (kernels[i] - new)
            kernels[i] = new
    if joint:
        right = _joint_pointwise(left, right, moments)
    return _depthwise_factors(left, right, _mean_bias(left, right, moments), weight.shape)


def channel(weight: np.ndarray, moments: Moments, rank: int) -> Factors:
    """Factor into ``rank`` spatial filters over all channels, and a 1 x 1 convolution.

    If patches and targets come from one network, it keeps the principal components of the
    responses.

    Raises: InputError for a rank below 1 or above the number of outputs.
    """
    _check_rank(rank, len(weight))
    matrix = _matrix(weight)
    response = matrix.T @ moments.gram @ matrix
    metric = _ridged(response)
    best = np.eye(len(weight)) + np.linalg.solve(metric, matrix.T @ moments.cross - response)
    left, right = reduced_rank(metric, best, rank)
    bias = moments.mean_y - moments.mean_x @ matrix @ left @ right.T
    return _channel_factors(weight, left, right, bias)


def channel_relu(
    weight: np.ndarray,
    bias: np.ndarray,
    responses: np.ndarray,
    targets: np.ndarray,
    rank: int,
    *,
    scale: float = 1.0,
    shift: float = 0.0,
) -> Factors:
    """Factor as ``channel``, with the error measured after the ReLU that follows the layer.

    Alternates between auxiliary responses, solved value by value, and a reduced-rank regression on
    them.  Memory grows with the samples: some arrays of ``(s, n)``.

    Args:
        weight, bias: ``(n, c, k, k)`` and ``(n,)``.
        responses: ``(s, n)``, of this layer on sampled patches, with bias.
        targets: ``(s, n)``, the target responses, with bias.
        scale, shift: numbers or ``(n,)``, the normalisation between layer and ReLU.

    Raises: InputError for a rank below 1 or above the number of outputs.
    """
    _check_rank(rank, len(weight))
    scale = np.broadcast_to(np.asarray(scale, np.float64), len(weight))
    scale = np.where(np.abs(scale) < _MIN_SCALE, _MIN_SCALE, scale)  # a divisor
    given = np.asarray(responses, np.float64) * scale + shift
    wanted = np.maximum(np.asarray(targets, np.float64) * scale + shift, 0)
    mean = given.mean(axis=0)
    centred = given - mean
    metric = _ridged(centred.T @ centred)
    auxiliary = given
    for weight_of_constraint, iterations in _RELU_STAGES:
        for _ in range(iterations):
            centre = auxiliary.mean(axis=0)
            # a regression of the change from the identity, which the ridge does not damp
            rest = centred.T @ (auxiliary - centre - centred)
            best = np.eye(len(weight)) + np.linalg.solve(metric, rest)
            left, right = reduced_rank(metric, best, rank)
            linear = centred @ left @ right.T + centre
            auxiliary = _auxiliary(linear, wanted, weight_of_constraint)
    both = left @ right.T
    centre = auxiliary.mean(axis=0)
    bias = ((scale * bias + shift - mean) @ both + centre - shift) / scale
    return _channel_factors(weight, scale[:, None] * left, right / scale[:, None], bias)


def _auxiliary(linear: np.ndarray, wanted: np.ndarray, weight: float) -> np.ndarray:
    """Return u that minimises ``(wanted - relu(u))**2 + weight * (u - linear)**2``."""
    off = np.minimum(linear, 0)
    on = np.maximum((weight * linear + wanted) / (weight + 1), 0)
    off_cost = wanted**2 + weight * (off - linear) ** 2
    on_cost = (on - wanted) ** 2 + weight * (on - linear) ** 2
    return np.where(off_cost < on_cost, off, on)


def reduced_rank(metric: np.ndarray, matrix: np.ndarray, rank: int):
    """Return ``left`` and ``right`` of this rank with ``left @ right.T`` nearest to ``matrix``.

    The squared length of a column v is ``v @ metric @ v``, with a positive definite metric.
    Columns of ``right`` are orthonormal.
    """
    _, _, vt = np.linalg.svd(np.linalg.cholesky(metric).T @ matrix, full_matrices=False)
    right = vt[:rank].T
    return matrix @ right, right


def merged(factors: Factors, scale: np.ndarray, shift: np.ndarray, weight: np.ndarray):
    """Merge the linear operations after the spatial convolution into one 1 x 1 convolution.

    These are the factors' 1 x 1 convolution, the normalisation ``scale * y + shift`` and a 1 x 1
    convolution with ``weight`` of shape ``(p, n)``.

    Returns: its weight ``(p, f)`` and bias ``(p,)``.
    """
    weight = np.asarray(weight, np.float64)
    return weight * scale @ factors.pointwise, weight @ (scale * factors.bias + shift)


def relative_error(factors: Factors, moments: Moments) -> float:
    """Return the square root of: squared error of the responses over their variance."""
    matrix = _matrix(factors.kernel)
    offset = moments.mean_x @ matrix + factors.bias - moments.mean_y
    squared = (
        moments.power
        - 2 * np.sum(matrix * moments.cross)
        + np.sum(matrix * (moments.gram @ matrix))
        + offset @ offset
    )
    return float(np.sqrt(max(0.0, squared) / moments.power)) if moments.power else 0.0


def _kernels(weight: np.ndarray, multiplier: int) -> np.ndarray:
    """Return ``(c, k * k, n)``: the matrix that multiplies the patch of each input channel."""
    largest = largest_multiplier(weight.shape)
    if not 1 <= multiplier <= largest:
        n, _, *window = weight.shape
        raise InputError(
            f"multiplier must be a whole number from 1 to {largest} for {n} kernels of "
            f"{' x '.join(map(str, window))}, got {multiplier}"
        )
    n, channels = weight.shape[:2]
    return weight.reshape(n, channels, -1).transpose(1, 2, 0).astype(np.float64)


def _check_rank(rank: int, outputs: int) -> None:
    if not 1 <= rank <= outputs:
        raise InputError(f"rank must be a whole number from 1 to {outputs}, got {rank}")


def _matrix(weight: np.ndarray) -> np.ndarray:
    """Return ``(c * k * k, n)``: the matrix that multiplies patches."""
    return weight.reshape(len(weight), -1).T.astype(np.float64)


def _ridged(gram: np.ndarray, level: float = 0.0) -> np.ndarray:
    """Add the ridge that makes a matrix of second moments positive definite."""
    level = max(np.trace(gram) / len(gram), level)
    return gram + _RIDGE * (level if level > 0 else 1.0) * np.eye(len(gram))


def _channel_metrics(gram: np.ndarray, channels: int) -> list[np.ndarray]:
    """Return ``(k * k, k * k)`` of each channel; without data, a multiple of the identity."""
    taps, level = len(gram) // channels, _RIDGE * np.trace(gram) / len(gram)
    blocks = gram.reshape(channels, taps, channels, taps)
    return [_ridged(blocks[i, :, i], level) for i in range(channels)]


def _joint_pointwise(left: np.ndarray, right: np.ndarray, moments: Moments) -> np.ndarray:
    """Solve least squares for the pointwise convolution with fixed depthwise filters."""
    channels, taps, multiplier = left.shape
    blocks = moments.gram.reshape(channels, taps, channels, taps)
    gram = np.einsum("aim,aibj,bjl->ambl", left, blocks, left, optimize=True)
    gram = gram.reshape(channels * multiplier, -1)
    cross = np.einsum("aim,ain->amn", left, moments.cross.reshape(channels, taps, -1))
    now = right.swapaxes(1, 2).reshape(channels * multiplier, -1)
    now = now + np.linalg.solve(_ridged(gram), cross.reshape(now.shape) - gram @ now)
    return now.reshape(channels, multiplier, -1).swapaxes(1, 2)


def _mean_bias(left: np.ndarray, right: np.ndarray, moments: Moments) -> np.ndarray:
    """Return the bias that gives the mean of the target responses."""
    matrix = (left @ right.swapaxes(1, 2)).reshape(-1, right.shape[1])
    return moments.mean_y - moments.mean_x @ matrix


def _depthwise_factors(left, right, bias, shape) -> Factors:
    """Return factors from ``(c, k * k, m)`` and ``(c, n, m)``; filters are sorted by channel."""
    n, channels, *window = shape
    spatial = left.swapaxes(1, 2).reshape(-1, 1, *window)
    pointwise = right.transpose(1, 0, 2).reshape(n, -1)
    return Factors(spatial, pointwise, np.asarray(bias, np.float64), channels)


def _channel_factors(weight, left, right, bias) -> Factors:
    """Return factors from two ``(n, d)``: ``left`` combines kernels, ``right`` is pointwise."""
    return Factors(np.tensordot(left.T, weight.astype(np.float64), axes=1), right, bias, 1)
