"""Factor a convolution into a cheaper spatial one and a 1 x 1 convolution behind it.

All methods are reduced-rank regressions.  With ``W_i`` the kernel and ``X_i`` the patches of input
channel i, and ``Y`` the wanted responses:

- ``weight_svd``: of each ``W_i`` alone, without data.
- ``data_svd``: of each ``X_i W_i`` alone.
- ``sequential``: the same, but each channel in its turn also takes over the error that is left so
  far: the multi-channel form.
- ``channel``: of all responses at once, the baseline called channel decomposition.
- ``channel_relu``: of all responses through the ReLU behind the layer.

All but the last need only second moments (``compress.moments``), so their memory does not grow with
the data.  The multi-layer, asymmetric form is no other method: the patches of its moments come from
the decomposed network and the targets from the original one.

Sources: Depth-wise Decomposition, arXiv:1910.09455, for the first three; the baseline is
arXiv:1505.06798 as coded in yihui-he/channel-pruning, ``lib/decompose.py``.  Inferred, for neither
the paper's body nor its code was at hand: that its "GSVD" is the reduced-rank regression here, that
channels are visited as they stand, that singular values are split evenly between the two factors of
``weight_svd``.  ``sweeps`` and ``joint`` are this project's own.
"""

from typing import NamedTuple

import numpy as np

from gluon_asymmnet.compress.moments import Moments
from gluon_asymmnet.errors import InputError

# Share of a channel's mean square that is added to it: patches may be linearly dependent.  Changes
# are what it damps, never the kernel itself, so full rank stays exact.
_RIDGE = 1e-6
_LEAST_SCALE = 1e-6  # of a normalisation in front of a ReLU
_RELU_STAGES = ((0.1, 30), (1.0, 20))  # weight of the constraint, iterations; the authors'


class Factors(NamedTuple):
    """A k x k convolution without bias, and a 1 x 1 convolution with one behind it."""

    spatial: np.ndarray  # (f, c / groups, k, k)
    pointwise: np.ndarray  # (n, f)
    bias: np.ndarray  # (n,)
    groups: int  # of the spatial one: c, or 1

    @property
    def kernel(self) -> np.ndarray:
        """The kernel ``(n, c, k, k)`` of the one convolution that does both."""
        each = self.spatial.reshape(self.groups, -1, *self.spatial.shape[1:])
        mixed = self.pointwise.reshape(len(self.pointwise), self.groups, -1)
        kernel = np.einsum("ngf,gfchw->ngchw", mixed, each)
        return kernel.reshape(len(kernel), -1, *self.spatial.shape[2:])


def largest_multiplier(weight_shape) -> int:
    """Return the depth multiplier from which on nothing is lost."""
    n, _, *window = weight_shape
    return min(int(np.prod(window)), n)


def equal_cost_rank(weight_shape, multiplier: int) -> int:
    """Return the rank at which channel decomposition costs what the separable form does.

    At most the number of outputs, where it is exact; and at least 1.
    """
    n, c, *window = weight_shape
    taps = int(np.prod(window)) * c
    return max(1, min(n, round((taps + c * n) * multiplier / (taps + n))))


def weight_svd(weight: np.ndarray, bias: np.ndarray, multiplier: int) -> Factors:
    """Truncate each input channel's kernel: the least squared error of the weights.

    Args:
        weight: ``(n, c, k, k)``.
        bias: ``(n,)``, kept as it is.
        multiplier: m, depthwise filters per input channel, from 1 to ``min(k * k, n)``.

    Raises: InputError for another multiplier.
    """
    kernels = _kernels(weight, multiplier)
    u, s, vt = np.linalg.svd(kernels, full_matrices=False)
    split = np.sqrt(s[:, None, :multiplier])
    left, right = u[:, :, :multiplier] * split, vt[:, :multiplier].swapaxes(1, 2) * split
    return _depthwise_factors(left, right, bias, weight.shape)


def data_svd(weight: np.ndarray, moments: Moments, multiplier: int) -> Factors:
    """Truncate each input channel's share of the responses, for itself.

    That is optimal for each channel alone; the sum of all may be worse than ``weight_svd``'s.

    Args:
        weight, multiplier: as in ``weight_svd``.
        moments: of the layer's patches with its responses, from which the bias follows.

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
    """Truncate channel after channel, each taking over the error left by those before it.

    Args:
        weight, moments, multiplier: as in ``data_svd``.
        sweeps: further rounds, in which each channel is fitted against all others; never worse.
        joint: at last, least squares for all pointwise weights together; never worse.

    Raises: InputError for a multiplier below 1 or above ``min(k * k, n)``.
    """
    kernels = _kernels(weight, multiplier)
    channels, taps, n = kernels.shape
    left, right = np.zeros((channels, taps, multiplier)), np.zeros((channels, n, multiplier))
    metrics = _channel_metrics(moments.gram, channels)
    # How patches go with the error, all of it that other kernels can change.  Channels not yet
    # visited have their full kernels, so at first it is what earlier layers have done.
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

    Where patches and targets are those of one network, it keeps the principal components of the
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
    """Factor as ``channel`` does, so that what the ReLU behind the layer lets through is kept.

    Alternates between auxiliary responses, found value by value, and reduced-rank regression on
    them.  Memory grows with the samples: some arrays of ``(s, n)``.

    Args:
        weight, bias: ``(n, c, k, k)`` and ``(n,)``.
        responses: ``(s, n)`` of this layer to sampled patches, bias included.
        targets: ``(s, n)`` the wanted ones, likewise.
        scale, shift: numbers or ``(n,)``, the normalisation between layer and ReLU.

    Raises: InputError for a rank below 1 or above the number of outputs.
    """
    _check_rank(rank, len(weight))
    scale = np.broadcast_to(np.asarray(scale, np.float64), len(weight))
    scale = np.where(np.abs(scale) < _LEAST_SCALE, _LEAST_SCALE, scale)  # it is divided by
    given = np.asarray(responses, np.float64) * scale + shift
    wanted = np.maximum(np.asarray(targets, np.float64) * scale + shift, 0)
    mean = given.mean(axis=0)
    centred = given - mean
    metric = _ridged(centred.T @ centred)
    auxiliary = given
    for weight_of_constraint, iterations in _RELU_STAGES:
        for _ in range(iterations):
            centre = auxiliary.mean(axis=0)
            # the identity, and what it leaves: then the ridge does not shrink
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
    """Return ``left`` and ``right`` whose product is nearest ``matrix``: ``left @ right.T``.

    Nearest where lengths of columns v are ``v @ metric @ v``, metric positive definite; columns of
    ``right`` are orthonormal.
    """
    _, _, vt = np.linalg.svd(np.linalg.cholesky(metric).T @ matrix, full_matrices=False)
    right = vt[:rank].T
    return matrix @ right, right


def merged(factors: Factors, scale: np.ndarray, shift: np.ndarray, weight: np.ndarray):
    """Return the 1 x 1 convolution that does all that stands behind the spatial one.

    That is the factors' own, ``scale * y + shift`` and the 1 x 1 convolution ``weight`` of shape
    ``(p, n)``: all linear.

    Returns: its weight ``(p, f)`` and bias ``(p,)``.
    """
    weight = np.asarray(weight, np.float64)
    return weight * scale @ factors.pointwise, weight @ (scale * factors.bias + shift)


def relative_error(factors: Factors, moments: Moments) -> float:
    """Return the root of the squared error of the responses over their variance."""
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
    """``(c, k * k, n)``: per input channel, what its patch is multiplied with."""
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
    """``(c * k * k, n)``: what patches are multiplied with."""
    return weight.reshape(len(weight), -1).T.astype(np.float64)


def _ridged(gram: np.ndarray, level: float = 0.0) -> np.ndarray:
    """Make a matrix of second moments positive definite, whatever the data lack."""
    level = max(np.trace(gram) / len(gram), level)
    return gram + _RIDGE * (level if level > 0 else 1.0) * np.eye(len(gram))


def _channel_metrics(gram: np.ndarray, channels: int) -> list[np.ndarray]:
    """``(k * k, k * k)`` of each channel; one without data is left to its weights."""
    taps, level = len(gram) // channels, _RIDGE * np.trace(gram) / len(gram)
    blocks = gram.reshape(channels, taps, channels, taps)
    return [_ridged(blocks[i, :, i], level) for i in range(channels)]


def _joint_pointwise(left: np.ndarray, right: np.ndarray, moments: Moments) -> np.ndarray:
    """Least squares for all columns of the pointwise convolution, the depthwise filters given."""
    channels, taps, multiplier = left.shape
    blocks = moments.gram.reshape(channels, taps, channels, taps)
    gram = np.einsum("aim,aibj,bjl->ambl", left, blocks, left, optimize=True)
    gram = gram.reshape(channels * multiplier, -1)
    cross = np.einsum("aim,ain->amn", left, moments.cross.reshape(channels, taps, -1))
    now = right.swapaxes(1, 2).reshape(channels * multiplier, -1)
    now = now + np.linalg.solve(_ridged(gram), cross.reshape(now.shape) - gram @ now)
    return now.reshape(channels, multiplier, -1).swapaxes(1, 2)


def _mean_bias(left: np.ndarray, right: np.ndarray, moments: Moments) -> np.ndarray:
    """Return the bias with which the mean response is the wanted one."""
    matrix = (left @ right.swapaxes(1, 2)).reshape(-1, right.shape[1])
    return moments.mean_y - moments.mean_x @ matrix


def _depthwise_factors(left, right, bias, shape) -> Factors:
    """From ``(c, k * k, m)`` and ``(c, n, m)``; maps of a depthwise convolution go by channel."""
    n, channels, *window = shape
    spatial = left.swapaxes(1, 2).reshape(-1, 1, *window)
    pointwise = right.transpose(1, 0, 2).reshape(n, -1)
    return Factors(spatial, pointwise, np.asarray(bias, np.float64), channels)


def _channel_factors(weight, left, right, bias) -> Factors:
    """From ``(n, d)`` twice: combinations of the kernels, and how responses are made of them."""
    return Factors(np.tensordot(left.T, weight.astype(np.float64), axes=1), right, bias, 1)
