"""Count parameters and multiply-adds: from a plan, without MXNet, or from the graph of any net.

1 multiply-add = 1 MAC.  As in the paper, only convolutions and matrix products with weights count
(squeeze-and-excite and classifier among them); normalisation, activations, pools and sums do not.
"""

import json
import math
from typing import NamedTuple, Optional

from gluon_asymmnet.arch import ConvLayer, NetPlan, conv_layers
from gluon_asymmnet.models.registry import ModelSpec


class LayerCost(NamedTuple):
    """Cost of one convolution or matrix product."""

    name: str  # path of the block that holds it, or name of the operator in the graph
    weight: tuple[int, ...]  # shape
    output: tuple[int, ...]  # shape, at batch 1
    macs: int
    layer: Optional[ConvLayer] = None  # in the plan; None if counted from a graph


class Cost(NamedTuple):
    """Totals of a net, and its layers with weights from input to output."""

    layers: tuple[LayerCost, ...]
    parameters: int  # trainable
    running: int  # running statistics and constants, not trainable
    macs: int
    authors_parameters: Optional[int] = None  # by the authors' counter; None: from a graph


def count_model(spec: ModelSpec, *, classes: int = 1000, input_size: int = 224) -> Cost:
    """Count a classifier at ``input_size`` x ``input_size`` pixels, batch 1.

    AsymmNet and MobileNetV3 are counted from their plan; other nets are built, with MXNet, and
    counted from their graph.

    Raises: InputError for a net that cannot be built.
    """
    if spec.family_model is None:
        return count_plan(spec.plan(), classes=classes, input_size=input_size)
    from gluon_asymmnet.models.build import build_classifier

    return count_graph(build_classifier(spec, classes=classes, input_size=input_size), input_size)


def count_plan(plan: NetPlan, *, classes: int = 1000, input_size: int = 224) -> Cost:
    """Count a planned net at ``input_size`` x ``input_size`` pixels, batch 1."""
    layers, parameters, running, missed, side = [], 0, 0, 0, input_size
    for layer in conv_layers(plan, classes):
        if not layer.pooled:
            side = -(-side // layer.stride)
        here = 1 if layer.pooled else side
        parameters += layer_parameters(layer)
        running += 2 * layer.channels if layer.norm else 0
        # utils/visualization.py of the authors takes k weights of each k x k kernel
        missed += _weights(layer) // layer.kernel * (layer.kernel - 1)
        layers.append(
            LayerCost(
                layer.path,
                (layer.channels, layer.in_channels // layer.groups, layer.kernel, layer.kernel),
                (1, layer.channels, here, here),
                _weights(layer) * here**2,
                layer,
            )
        )
    macs = sum(layer.macs for layer in layers)
    return Cost(tuple(layers), parameters, running, macs, parameters - missed)


def layer_parameters(layer: ConvLayer) -> int:
    """Return the trainable values of a planned convolution and the normalisation behind it."""
    others = (layer.channels if layer.bias else 0) + (2 * layer.channels if layer.norm else 0)
    return _weights(layer) + others


def _weights(layer: ConvLayer) -> int:
    return layer.channels * layer.in_channels // layer.groups * layer.kernel**2


def count_graph(net, input_size: int) -> Cost:
    """Count a HybridBlock at ``input_size`` x ``input_size`` pixels, batch 1.

    The net needs no weights, but explicit input channels.  A frozen parameter counts as trainable
    if it is a weight, bias, gamma or beta.
    """
    from gluon_asymmnet._mxnet import mx

    symbol = net(mx.sym.var("data"))
    layers = tuple(_graph_layers(symbol, (1, 3, input_size, input_size)))
    auxiliary = set(symbol.list_auxiliary_states())
    sizes = {name: math.prod(p.shape) for name, p in net.collect_params().items()}
    constants = {n for n, p in net.collect_params().items() if isinstance(p, mx.gluon.Constant)}
    running = sum(size for name, size in sizes.items() if name in auxiliary | constants)
    return Cost(layers, sum(sizes.values()) - running, running, sum(n.macs for n in layers))


def _graph_layers(symbol, shape):
    internals = symbol.get_internals()
    _, inferred, _ = internals.infer_shape(data=shape)
    graph = json.loads(internals.tojson())
    # by node and output, not by name: a block that is called twice has its names twice
    shapes = {tuple(head[:2]): shape for head, shape in zip(graph["heads"], inferred)}
    for number, node in enumerate(graph["nodes"]):
        if node["op"] not in ("Convolution", "FullyConnected"):
            continue
        weight, output = shapes[tuple(node["inputs"][1][:2])], shapes[number, 0]
        positions = output[:-1] if node["op"] == "FullyConnected" else (output[0], *output[2:])
        macs = math.prod(weight) * math.prod(positions)
        yield LayerCost(node["name"], weight, output, macs)
