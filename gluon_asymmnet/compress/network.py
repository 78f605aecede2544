"""Decompose the regular convolutions of a Gluon net on sampled activations."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Callable, NamedTuple, Optional

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.compress import decomposition
from gluon_asymmnet.compress.moments import MomentSums, Window, sample_patches
from gluon_asymmnet.compress.normalisation import affine, reset, set_array
from gluon_asymmnet.compress.options import METHODS, Options, check
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.factored import Layer, block_at, find_layers, place, worthwhile


class Decomposed(NamedTuple):
    """A decomposed layer."""

    path: str
    form: dict  # as ``factored.place`` takes it
    error: Optional[float]  # relative error of the sampled responses; None without data


def decompose(
    original,
    net,
    layers: Sequence[Layer],
    batches: Callable[[], Iterable[np.ndarray]],
    options: Options,
) -> Iterator[Decomposed]:
    """Decompose layers of ``net`` in place, one after the other; yield the result of each.

    Memory: the second moments of one layer and one batch; with a ReLU, some arrays of samples x
    outputs.

    Args:
        original: another net with the weights of ``net``, which is not changed.
        layers: some of ``find_layers(net)``, in its order.
        batches: called for each layer; yields ``(n, 3, H, W)`` network input.

    Raises: InputError for options that do not fit a layer; earlier layers stay decomposed.
    """
    check(options)
    for block in (original, net):
        block.hybridize(False)  # compiled graphs call no hooks
    for layer in layers:
        factors, error = _factor(original, net, layer, batches, options)
        yield Decomposed(layer.path, _put(net, layer, factors, options), error)


def _factor(original, net, layer: Layer, batches, options: Options):
    """Return the factors of a layer and their error on the samples."""
    conv = block_at(original, layer.path)
    weight, bias = arrays_of(conv)
    method, multiplier = METHODS[options.method], options.multiplier
    largest = decomposition.largest_multiplier(weight.shape)
    if multiplier > largest:
        raise InputError(
            f"{layer.path}: multiplier {multiplier} is above {largest}, at which the decomposition "
            f"is exact; lower it, or leave the layer out"
        )
    if not method.data:
        return decomposition.weight_svd(weight, bias, multiplier), None
    samples = _samples(original, net if method.asymmetric else None, layer, batches, options)
    rank = decomposition.equal_cost_rank(weight.shape, multiplier)
    if method.channel and method.asymmetric and layer.relu:
        return _channel_relu(net, layer, weight, bias, samples, rank)
    inputs, outputs = weight[0].size, len(weight)
    needed = MomentSums.bytes_needed(inputs, outputs)
    if needed > options.memory:
        raise InputError(
            f"{layer.path}: second moments of {inputs} values take {needed / 2**20:.1f} MiB, more "
            f"than the {options.memory / 2**20:.1f} allowed; allow more, take weight-svd, or leave "
            f"the layer out"
        )
    sums = MomentSums(inputs, outputs)
    for x, y in samples:
        sums.add(x, y)
    moments = sums.moments()
    if method.channel:
        factors = decomposition.channel(weight, moments, rank)
    elif options.method == "data-svd":
        factors = decomposition.data_svd(weight, moments, multiplier)
    else:
        factors = decomposition.sequential(
            weight, moments, multiplier, sweeps=options.sweeps, joint=options.joint
        )
    return factors, decomposition.relative_error(factors, moments)


def _channel_relu(net, layer: Layer, weight, bias, samples, rank: int):
    matrix = weight.reshape(len(weight), -1).T
    pairs = [(x @ matrix + bias, y) for x, y in samples]
    responses, targets = (np.concatenate(side) for side in zip(*pairs))
    scale, shift = affine(block_at(net, layer.norm)) if layer.norm else (1.0, 0.0)
    factors = decomposition.channel_relu(
        weight, bias, responses, targets, rank, scale=scale, shift=shift
    )
    return factors, None


def layer_moments(original, layer: Layer, batches, options: Options):
    """Return the second moments of a layer's own patches and responses."""
    weight, _ = arrays_of(block_at(original, layer.path))
    sums = MomentSums(weight[0].size, len(weight))
    for x, y in _samples(original, None, layer, batches, options):
        sums.add(x, y)
    return sums.moments()


def _samples(original, net, layer: Layer, batches, options: Options):
    """Yield patches ``(s, d)`` of ``net`` and responses ``(s, n)`` of the original, batch by batch.

    Both are sampled at the same positions.  If ``net`` is None, the patches are the original's.
    """
    conv = block_at(original, layer.path)
    settings = conv._kwargs
    window = Window(*(tuple(settings[name]) for name in ("kernel", "stride", "pad", "dilate")))
    weight, bias = arrays_of(conv)
    for index, images in enumerate(batches()):
        images = mx.nd.array(images)

        def sampled(of, images=images, index=index):
            rng = np.random.default_rng([options.seed, index])  # same positions in both
            block_input = input_of(of, layer.path, images)
            return sample_patches(block_input, window, options.positions, rng).astype(np.float64)

        x = sampled(original)
        y = x @ weight.reshape(len(weight), -1).T + bias
        yield (x if net is None else sampled(net)), y


def arrays_of(conv):
    """Return weight and bias of a ``Conv2D`` as float64; a bias of zeros if it has none."""
    weight = conv.weight.data().asnumpy().astype(np.float64)
    bias = np.zeros(len(weight)) if conv.bias is None else conv.bias.data().asnumpy()
    return weight, bias.astype(np.float64)


class _InputFoundError(Exception):
    """Stops a forward pass once the input of a block is known."""


def input_of(net, path: str, images) -> np.ndarray:
    """Return the input of a block in inference; ``net`` must not be hybridized."""
    found = []

    def keep(_, inputs) -> None:
        found.append(inputs[0].asnumpy())
        raise _InputFoundError

    handle = block_at(net, path).register_forward_pre_hook(keep)
    try:
        net(images)
    except _InputFoundError:
        pass
    finally:
        handle.detach()
    return found[0]


def _put(net, layer: Layer, factors: decomposition.Factors, options: Options) -> dict:
    """Replace a layer by its factors; return its new form."""
    form: dict = {"rank": len(factors.spatial)}
    if factors.groups > 1 or not METHODS[options.method].channel:
        form = {"multiplier": options.multiplier}
    if options.merge and layer.pointwise:
        return _put_merged(net, layer, factors, form)
    if block_at(net, layer.path).bias is None and layer.norm is None:
        form["bias"] = True
    place(net, layer.path, form)
    block = block_at(net, layer.path)
    set_array(block.spatial.weight, factors.spatial)
    set_array(block.pointwise.weight, factors.pointwise[:, :, None, None])
    _set_bias(net, block.pointwise, layer.norm, factors.bias)
    return form


def _put_merged(net, layer: Layer, factors: decomposition.Factors, form: dict) -> dict:
    into = block_at(net, layer.pointwise)
    scale, shift = affine(block_at(net, layer.norm))
    old_weight, old_bias = arrays_of(into)
    weight, bias = decomposition.merged(factors, scale, shift, old_weight[:, :, 0, 0])
    form.update(norm=layer.norm, pointwise=layer.pointwise)
    if into.bias is None and layer.pointwise_norm is None:
        form["bias"] = True
    place(net, layer.path, form)
    reset(block_at(net, layer.norm))
    set_array(block_at(net, layer.path).weight, factors.spatial)
    into = block_at(net, layer.pointwise)
    set_array(into.weight, weight[:, :, None, None])
    _set_bias(net, into, layer.pointwise_norm, bias + old_bias)
    return form


def _set_bias(net, conv, norm: Optional[str], bias: np.ndarray) -> None:
    """Set a convolution's bias; if it has none, shift the mean of the normalisation after it."""
    if conv.bias is not None:
        set_array(conv.bias, bias)
        return
    mean = block_at(net, norm).running_mean
    set_array(mean, mean.data().asnumpy() - bias)


def select_layers(net, pattern: Optional[str] = None) -> list[Layer]:
    """Return the layers whose path matches a regular expression; by default the worthwhile ones.

    Raises: InputError if there are none.
    """
    if pattern is None:
        found = worthwhile(net)
    else:
        try:
            found = [layer for layer in find_layers(net) if re.search(pattern, layer.path)]
        except re.error as error:
            raise InputError(f"{pattern!r} is not a regular expression: {error}") from None
    if not found:
        known = ", ".join(layer.path for layer in find_layers(net)) or "none"
        raise InputError(
            f"no regular convolution to decompose{f' matches {pattern!r}' if pattern else ''}; "
            f"the net's layers with a kernel above 1 x 1: {known}"
        )
    return found
