"""Fold batch normalisation into the convolution before it, for inference."""

from collections.abc import Mapping

import numpy as np

EPSILON = 1e-5  # of MXNet's and PyTorch's batch normalisation, and of every net here


def fold(weight, gamma, beta, mean, variance, epsilon: float = EPSILON, bias=0):
    """Return weight and bias of a convolution equal to convolution plus normalisation.

    Args:
        weight: ``(out, in / groups, k, k)``, or of any other kernel shape.
        gamma, beta, mean, variance: ``(out,)``.
        bias: ``(out,)``, that of the given convolution.

    Returns: float32 arrays, computed in float64: rounding the factors first shows in the logits.
    """
    weight, gamma, beta, mean, variance, bias = (
        np.asarray(a, np.float64) for a in (weight, gamma, beta, mean, variance, bias)
    )
    factor = gamma / np.sqrt(variance + epsilon)
    folded = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    bias = beta + (bias - mean) * factor
    return folded.astype(np.float32), bias.astype(np.float32)


def fold_all(arrays: Mapping, epsilon: float = EPSILON) -> dict:
    """Fold every ``X.norm`` of a network's arrays into ``X.conv``; other arrays are unchanged.

    An ``X.conv`` without an ``X.norm`` is unchanged too: a detector's prediction heads have them.
    """
    found = {}
    for name, value in arrays.items():
        path, _, last = name.rpartition(".conv.weight")
        if not last and f"{path}.norm.gamma" in arrays:
            norm = (arrays[f"{path}.norm.{part}"] for part in
                    ("gamma", "beta", "running_mean", "running_var"))  # fmt: skip
            found[name], found[f"{path}.conv.bias"] = fold(value, *norm, epsilon)
        elif ".norm." not in name:
            found[name] = value
    return found
