"""Where an asymmetrical bottleneck joins the copies of its input and the expansion.

The network concatenates ``[x] * r ++ e ++ [x] * r`` before the depthwise convolution.  That
convolution, the activation and the means of squeeze-and-excite treat each channel alone, and the
projection is linear, so the parts can meet later, with the same weights in other arrays:

- ``before``: as in the network;
- ``behind``: the parts are convolved apart and their projections summed.  Where squeeze-and-excite
  follows, they are concatenated behind the activation; at stride 1, where that is no less to copy,
  such a block stays as it is;
- ``apart``: squeeze-and-excite, too, scales the parts apart; only their means are concatenated.

``apart`` copies nothing, but has more nodes: the fastest for batches, while for one image nodes
cost more than small copies.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet.export.onnx.graph import Graph, Node
from gluon_asymmnet.export.onnx.trace import Shape

JOINS = BEFORE, BEHIND, APART = "before", "behind", "apart"
_ELEMENTWISE = {"Add", "Clip", "Div", "HardSigmoid", "HardSwish", "Mul", "Relu"}


class _Block(NamedTuple):
    """The nodes of a block from its concatenation to its projection."""

    concat: Node
    bounds: list[tuple[int, int]]  # first and last channel of each part
    depthwise: Node
    activation: list[Node]
    output: str  # the map behind the activation
    pool: Optional[Node]  # the mean of squeeze-and-excite
    scale: Optional[Node]  # the product with its gate
    project: Node


def move_joins(graph: Graph, shapes: Mapping[str, Shape], joins: str) -> None:
    """Rewrite the blocks of a graph, in place; other concatenations stay.

    Args:
        graph: as converted, concatenating before the depthwise convolutions.
        shapes: those of the tensors that are concatenated, by name.
        joins: one of ``JOINS``.
    """
    if joins == BEFORE:
        return
    for block in [*_blocks(graph, shapes)]:
        if joins == BEHIND and block.pool and max(block.depthwise.attributes["strides"]) == 1:
            continue
        new = _Rewriting(graph, block)
        if block.pool is None:
            new.sum_projections()
        elif joins == BEHIND:
            new.concatenate()
        else:
            new.scale_apart()
            new.sum_projections()
        graph.nodes = [n for node in graph.nodes for n in new.nodes.get(node.name, [node])]
    read = {name for node in graph.nodes for name in node.inputs}
    graph.weights = {name: array for name, array in graph.weights.items() if name in read}


def _blocks(graph: Graph, shapes: Mapping[str, Shape]) -> Iterator[_Block]:
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    for concat in graph.nodes:
        joins = concat.op == "Concat" and concat.attributes["axis"] == 1
        repeats = len({*concat.inputs}) < len(concat.inputs)
        if joins and repeats and (block := _block_of(graph, concat, shapes, readers)):
            yield block


def _block_of(graph: Graph, concat: Node, shapes, readers) -> Optional[_Block]:
    """Return the block that begins with a concatenation, or None if it is no bottleneck."""
    ends = np.cumsum([shapes[name][1] for name in concat.inputs]).tolist()
    after = readers.get(concat.outputs[0], [])
    if [node.op for node in after] != ["Conv"] or after[0].attributes["group"] != ends[-1]:
        return None
    (depthwise,) = after
    inside, activation = {*depthwise.outputs}, []
    for node in graph.nodes:
        others = {*node.inputs} - inside
        if node.op in _ELEMENTWISE and inside & {*node.inputs} and all(
            name in graph.weights and graph.weights[name].ndim == 0 for name in others
        ):  # fmt: skip
            activation.append(node)
            inside.update(node.outputs)
    output = [depthwise, *activation][-1].outputs[0]
    pool = scale = None
    after = {node.op: node for node in readers[output]}
    if {*after} == {"GlobalAveragePool", "Mul"}:
        pool, scale = after["GlobalAveragePool"], after["Mul"]
        after = {node.op: node for node in readers[scale.outputs[0]]}
    project = after.get("Conv")
    if len(after) != 1 or project is None or project.attributes["group"] != 1:
        return None
    bounds = [*zip([0, *ends], ends)]
    return _Block(concat, bounds, depthwise, activation, output, pool, scale, project)


class _Rewriting:
    """The new nodes of one block, by the name of the node that they replace."""

    def __init__(self, graph: Graph, block: _Block):
        self._graph, self._block = graph, block
        old = [block.concat, block.depthwise, *block.activation]
        self.nodes: dict[str, list[Node]] = {node.name: [] for node in old}
        self._behind = self.nodes[old[-1].name]  # the nodes up to the activation
        self._parts = [self._convolve(part, name) for part, name in enumerate(block.concat.inputs)]

    def _convolve(self, part: int, x: str) -> str:
        """Add the depthwise convolution and the activation of one part; return its map."""
        low, high = self._block.bounds[part]
        conv = self._block.depthwise
        weights = [self._slice(name, part, np.s_[low:high]) for name in conv.inputs[1:]]
        renamed = {self._block.concat.outputs[0]: x, **dict(zip(conv.inputs[1:], weights))}
        conv = conv._replace(attributes={**conv.attributes, "group": high - low})
        for node in (conv, *self._block.activation):
            renamed[node.outputs[0]] = f"{node.outputs[0]}.{part}"
            self._behind.append(
                node._replace(
                    inputs=[renamed.get(name, name) for name in node.inputs],
                    outputs=[renamed[node.outputs[0]]], name=f"{node.name}.{part}",
                )
            )  # fmt: skip
        return self._behind[-1].outputs[0]

    def concatenate(self) -> None:
        """Concatenate the parts behind the activation."""
        concat = self._block.concat
        self._behind.append(concat._replace(inputs=self._parts, outputs=[self._block.output]))

    def scale_apart(self) -> None:
        """Take the means of the parts, concatenate them, and scale each part by its gates."""
        pool, scale, output = self._block.pool, self._block.scale, self._block.output
        pools = [self._part_of(pool, i, {output: x}) for i, x in enumerate(self._parts)]
        means = [node.outputs[0] for node in pools]
        join = self._block.concat._replace(inputs=means, outputs=pool.outputs)
        self.nodes[pool.name] = [*pools, join]
        (gate,) = {*scale.inputs} - {output}
        name = f"{scale.name}.gates"
        gates = [f"{name}.{i}" for i in range(len(self._parts))]
        sizes = np.int64([high - low for low, high in self._block.bounds])
        inputs = [gate, self._graph.constant(f"{name}.sizes", sizes)]
        scales = [
            self._part_of(scale, i, {output: x, gate: gates[i]})
            for i, x in enumerate(self._parts)
        ]  # fmt: skip
        self.nodes[scale.name] = [Node("Split", inputs, gates, name, {"axis": 1}), *scales]
        self._parts = [node.outputs[0] for node in scales]

    def sum_projections(self) -> None:
        """Project each part, and sum."""
        conv, nodes = self._block.project, []
        weight, *bias = conv.inputs[1:]
        for i, (part, (low, high)) in enumerate(zip(self._parts, self._block.bounds)):
            weights = [self._slice(weight, i, np.s_[:, low:high]), *([] if i else bias)]
            projection = self._part_of(conv, i, {})._replace(inputs=[part, *weights])
            if not nodes:
                nodes = [projection]
                continue
            pair = [nodes[-1].outputs[0], projection.outputs[0]]
            last = i == len(self._parts) - 1
            name = conv.name if last else f"{conv.name}.sum{i}"
            output = conv.outputs[0] if last else name
            nodes += [projection, Node("Add", pair, [output], name, {})]
        self.nodes[conv.name] = nodes

    def _part_of(self, node: Node, part: int, renamed: Mapping[str, str]) -> Node:
        inputs = [renamed.get(name, name) for name in node.inputs]
        return node._replace(
            inputs=inputs, outputs=[f"{node.outputs[0]}.{part}"], name=f"{node.name}.{part}"
        )

    def _slice(self, name: str, part: int, index) -> str:
        array = np.ascontiguousarray(self._graph.weights[name][index])
        return self._graph.constant(f"{name}.{part}", array)
