"""Where an asymmetrical bottleneck joins the copies of its input and the expansion.

The network concatenates ``[x] * r ++ e ++ [x] * r`` before the depthwise convolution.  That
convolution, the activation and the means of squeeze-and-excite treat each channel alone, and the
projection is linear, so the parts can meet later, with the same weights in other arrays:

- ``before``: as in the network;
- ``behind``: the parts are convolved apart and their projections summed.  Where squeeze-and-excite
  follows, they are concatenated behind the activation; at stride 1, where that is no less to copy,
  such a block stays as it is;
- ``apart``: squeeze-and-excite, too, scales the parts apart; only their means are concatenated.

Where a channel shuffle follows the concatenation, ``behind`` and ``apart`` permute the weights of
the block in its place.

``apart`` copies nothing, but has more nodes: the fastest for batches, while for one image nodes
cost more than small copies.  Measured, see ``docs/speed.md``.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Optional, Union

import numpy as np

from gluon_asymmnet.export.onnx.graph import Graph, Node
from gluon_asymmnet.export.onnx.trace import Shape

JOINS = BEFORE, BEHIND, APART = "before", "behind", "apart"
_ELEMENTWISE = {"Add", "Clip", "Div", "HardSigmoid", "HardSwish", "Mul", "Relu"}


class _Block(NamedTuple):
    """The nodes of a block from its concatenation to its projection."""

    concat: Node
    bounds: list[tuple[int, int]]  # first and last channel of each part
    shuffle: list[Node]
    order: np.ndarray  # where the shuffle, if there is one, moves each concatenated channel
    depthwise: Node
    activation: list[Node]
    output: str  # the map behind the activation
    pool: Optional[Node]  # the mean of squeeze-and-excite
    gates: list[Node]  # its two convolutions
    scale: Optional[Node]  # its product
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
        stride = max(block.depthwise.attributes["strides"])
        if joins == BEHIND and block.pool and stride == 1 and not block.shuffle:
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
    shuffle, order = _shuffle_of(graph, concat, readers, ends[-1])
    after = readers.get([concat, *shuffle][-1].outputs[0], [])
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
    activated = output = [depthwise, *activation][-1].outputs[0]
    pool, gates, scale = None, [], None
    after = {node.op: node for node in readers[output]}
    if sorted(node.op for node in readers[output]) == ["GlobalAveragePool", "Mul"]:
        pool, scale = after["GlobalAveragePool"], after["Mul"]
        gates = _convolutions_between(graph, pool, scale)
        if len(gates) != 2:
            return None
        output = scale.outputs[0]
    if [node.op for node in readers[output]] != ["Conv"]:
        return None
    (project,) = readers[output]
    if project.attributes["group"] != 1:
        return None
    bounds = [*zip([0, *ends], ends)]
    return _Block(
        concat,
        bounds,
        shuffle,
        order,
        depthwise,
        activation,
        activated,
        pool,
        gates,
        scale,
        project,
    )


def _shuffle_of(graph: Graph, concat: Node, readers, channels: int) -> tuple[list, np.ndarray]:
    """Return the nodes of the shuffle behind a concatenation, and where it moves each channel."""
    nodes = [concat]
    for op in ("Reshape", "Transpose", "Reshape"):
        after = readers.get(nodes[-1].outputs[0], [])
        if [node.op for node in after] != [op]:
            return [], np.arange(channels)
        nodes += after
    if nodes[2].attributes["perm"] != [0, 2, 1, 3, 4]:
        return [], np.arange(channels)
    groups = graph.weights[nodes[1].inputs[1]][1]
    moved = np.arange(channels).reshape(groups, -1).T.ravel()  # the channel at each place
    return nodes[1:], np.argsort(moved)


def _convolutions_between(graph: Graph, pool: Node, scale: Node) -> list[Node]:
    """Return the convolutions on the way from the mean of squeeze-and-excite to its product."""
    inside, found = {*pool.outputs}, []
    for node in graph.nodes[: graph.nodes.index(scale)]:
        if inside & {*node.inputs}:
            inside.update(node.outputs)
            found += [node] if node.op == "Conv" else []
    return found


class _Rewriting:
    """The new nodes of one block, by the name of the node that they replace."""

    def __init__(self, graph: Graph, block: _Block):
        self._graph, self._block = graph, block
        old = [block.concat, *block.shuffle, block.depthwise, *block.activation]
        self.nodes: dict[str, list[Node]] = {node.name: [] for node in old}
        self._behind = self.nodes[old[-1].name]  # the nodes up to the activation
        self._parts = [self._convolve(part, name) for part, name in enumerate(block.concat.inputs)]

    def _convolve(self, part: int, x: str) -> str:
        """Add the depthwise convolution and the activation of one part; return its map."""
        low, high = self._block.bounds[part]
        conv, order = self._block.depthwise, self._block.order[low:high]
        weights = [self._take(name, part, order) for name in conv.inputs[1:]]
        renamed = dict(zip(conv.inputs, [x, *weights]))
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
        concat, project = self._block.concat, self._block.project
        self._behind.append(concat._replace(inputs=self._parts, outputs=[self._block.output]))
        self._permute_gates()
        self._permute(project, columns=True)

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
        self._permute_gates()

    def _permute_gates(self) -> None:
        for node, columns in zip(self._block.gates, (True, False)):
            self._permute(node, columns=columns)

    def _permute(self, conv: Node, columns: bool) -> None:
        """Give a convolution its input channels, or its output channels, before the shuffle."""
        if not self._block.shuffle:
            return
        order = self._block.order
        (x, weight, *bias) = conv.inputs
        weight = self._take(weight, "permuted", np.s_[:, order] if columns else order)
        if not columns:
            bias = [self._take(name, "permuted", order) for name in bias]
        self.nodes[conv.name] = [conv._replace(inputs=[x, weight, *bias])]

    def sum_projections(self) -> None:
        """Project each part, and sum."""
        conv, nodes = self._block.project, []
        weight, *bias = conv.inputs[1:]
        for i, (part, (low, high)) in enumerate(zip(self._parts, self._block.bounds)):
            columns = np.s_[:, self._block.order[low:high]]
            weights = [self._take(weight, i, columns), *([] if i else bias)]
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

    def _take(self, name: str, part: Union[int, str], index) -> str:
        array = np.ascontiguousarray(self._graph.weights[name][index])
        return self._graph.constant(f"{name}.{part}", array)
