"""Statistics of batch normalisation after the convolutions of a net were changed."""

import contextlib

import numpy as np

from gluon_asymmnet._mxnet import mx

nn = mx.gluon.nn


def affine(norm) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and shift of a batch normalisation in inference, ``(C,)`` float64."""
    gamma, beta, mean, variance = (
        getattr(norm, name).data().asnumpy().astype(np.float64)
        for name in ("gamma", "beta", "running_mean", "running_var")
    )
    gamma = np.ones_like(gamma) if norm._kwargs["fix_gamma"] else gamma
    scale = gamma / np.sqrt(variance + norm._kwargs["eps"])
    return scale, beta - mean * scale


def reset(norm) -> None:
    """Make a batch normalisation the identity in inference (not in training)."""
    _set(norm, np.zeros(norm.gamma.shape), 1 - norm._kwargs["eps"])
    _set_affine(norm, 1, 0)


def set_statistics(net, norms, batches) -> None:
    """Give normalisations after ``reset`` the statistics of their inputs.

    Gamma and beta undo these, so training starts from the same function.
    """
    norms = list(norms)
    for norm, (mean, variance) in zip(norms, _input_statistics(net, norms, batches)):
        _set(norm, mean, variance)
        _set_affine(norm, np.sqrt(variance + norm._kwargs["eps"]), mean)


def reestimate(net, batches) -> None:
    """Measure the running statistics of all batch normalisations again, as in training.

    Each layer normalises with the statistics of its batch.  All batches have the same weight: the
    limit of a low momentum.
    """
    norms = []
    net.apply(lambda block: norms.append(block) if isinstance(block, nn.BatchNorm) else None)
    with _without_dropout(net), mx.autograd.train_mode():
        statistics = _input_statistics(net, norms, batches)
    for norm, (mean, variance) in zip(norms, statistics):
        _set(norm, mean, variance)


def _input_statistics(net, norms, batches) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return mean and variance of the input of each normalisation, over all batches."""
    sums = {norm: [0, 0.0, 0.0] for norm in norms}

    def add(norm, inputs) -> None:
        x = inputs[0].asnumpy().astype(np.float64)
        others = tuple(axis for axis in range(x.ndim) if axis != 1)
        total = sums[norm]
        total[0] += x.size // x.shape[1]
        total[1] += x.sum(axis=others)
        total[2] += np.square(x).sum(axis=others)

    net.hybridize(False)  # compiled graphs call no hooks
    handles = [norm.register_forward_pre_hook(add) for norm in norms]
    try:
        for images in batches:
            net(mx.nd.array(images)).wait_to_read()
    finally:
        for handle in handles:
            handle.detach()
    means = [(n, first / n, second / n) for n, first, second in sums.values()]
    return [(mean, np.maximum(square - mean**2, 0)) for _, mean, square in means]


@contextlib.contextmanager
def _without_dropout(net):
    rates = {}
    net.apply(lambda b: rates.update({b: b._rate}) if isinstance(b, nn.Dropout) else None)
    try:
        for block in rates:
            block._rate = 0
        yield
    finally:
        for block, rate in rates.items():
            block._rate = rate


def _set(norm, mean, variance) -> None:
    set_array(norm.running_mean, mean)
    set_array(norm.running_var, variance)


def _set_affine(norm, gamma, beta) -> None:
    set_array(norm.gamma, gamma)
    set_array(norm.beta, beta)


def set_array(param, values) -> None:
    """Set a parameter, after initialising it if needed; ``values`` may be a single number."""
    if param._data is None:
        param.initialize(init=mx.init.Zero(), force_reinit=True)
    param.set_data(mx.nd.array(np.broadcast_to(values, param.shape), dtype=param.dtype))
