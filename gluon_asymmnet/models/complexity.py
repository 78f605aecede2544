"""Parameters and multiply-adds of a planned network, without building it.

1 multiply-add = 1 MAC.  As in the paper, only convolutions (squeeze-and-excite and classifier
among them) count; normalisation, activations, pools and sums do not.
"""

from typing import NamedTuple

from gluon_asymmnet.arch import ConvLayer, NetPlan, conv_layers


class LayerCost(NamedTuple):
    """What one convolution and the normalisation behind it cost."""

    layer: ConvLayer
    size: int  # height and width of its output, pixels
    parameters: int  # weights, bias, gamma and beta
    running: int  # running mean and variance
    macs: int
    authors_parameters: int  # as the authors' counter has it


class Complexity(NamedTuple):
    """The totals of a network."""

    layers: tuple[LayerCost, ...]
    parameters: int  # trainable
    running: int  # running statistics, not trainable
    macs: int
    authors_parameters: int


def count(plan: NetPlan, *, classes: int = 1000, input_size: int = 224) -> Complexity:
    """Count a network at ``input_size`` x ``input_size`` pixels, batch 1."""
    layers, size = [], input_size
    for layer in conv_layers(plan, classes):
        if not layer.pooled:
            size = -(-size // layer.stride)
        layers.append(_cost(layer, 1 if layer.pooled else size))
    return Complexity(
        tuple(layers),
        parameters=sum(c.parameters for c in layers),
        running=sum(c.running for c in layers),
        macs=sum(c.macs for c in layers),
        authors_parameters=sum(c.authors_parameters for c in layers),
    )


def _cost(layer: ConvLayer, size: int) -> LayerCost:
    per_tap = layer.channels * layer.in_channels // layer.groups
    weights = per_tap * layer.kernel**2
    # utils/visualization.py of the authors takes k weights of each k x k kernel
    missed = per_tap * layer.kernel * (layer.kernel - 1)
    others = (layer.channels if layer.bias else 0) + (2 * layer.channels if layer.norm else 0)
    return LayerCost(
        layer,
        size,
        parameters=weights + others,
        running=2 * layer.channels if layer.norm else 0,
        macs=weights * size**2,
        authors_parameters=weights + others - missed,
    )
