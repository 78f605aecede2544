"""Parameters and multiply-adds of any net, counted from its graph.

As in ``complexity``, which needs no MXNet and counts AsymmNet from its plan: 1 multiply-add = 1
MAC; convolutions and matrix products with weights count, all else does not.
"""

import json
import math
from typing import NamedTuple

from gluon_asymmnet._mxnet import mx


class NodeCost(NamedTuple):
    """What one operator with weights costs."""

    name: str
    weight: tuple[int, ...]  # shape
    output: tuple[int, ...]  # shape, at batch 1
    macs: int


class GraphCost(NamedTuple):
    """The totals of a net, and its operators with weights in the order of the graph."""

    layers: tuple[NodeCost, ...]
    parameters: int  # trainable
    running: int  # running statistics and constants, not trainable
    macs: int


def count_graph(net, input_size: int) -> GraphCost:
    """Count a HybridBlock at ``input_size`` x ``input_size`` pixels, batch 1.

    The net needs no weights, but explicit input channels.  A frozen parameter counts as trainable
    if it is a weight, bias, gamma or beta.
    """
    symbol = net(mx.sym.var("data"))
    layers = tuple(_node_costs(symbol, (1, 3, input_size, input_size)))
    auxiliary = set(symbol.list_auxiliary_states())
    sizes = {name: math.prod(p.shape) for name, p in net.collect_params().items()}
    constants = {n for n, p in net.collect_params().items() if isinstance(p, mx.gluon.Constant)}
    running = sum(size for name, size in sizes.items() if name in auxiliary | constants)
    return GraphCost(layers, sum(sizes.values()) - running, running, sum(n.macs for n in layers))


def _node_costs(symbol, shape):
    internals = symbol.get_internals()
    _, found, _ = internals.infer_shape(data=shape)
    graph = json.loads(internals.tojson())
    # by node and output, not by name: a block that is called twice has its names twice
    shapes = {tuple(head[:2]): shape for head, shape in zip(graph["heads"], found)}
    for number, node in enumerate(graph["nodes"]):
        if node["op"] not in ("Convolution", "FullyConnected"):
            continue
        weight, output = shapes[tuple(node["inputs"][1][:2])], shapes[number, 0]
        uses = output[:-1] if node["op"] == "FullyConnected" else (output[0], *output[2:])
        yield NodeCost(node["name"], weight, output, math.prod(weight) * math.prod(uses))
