"""An ONNX graph under construction, and one traced operator on its way into it."""

from collections.abc import Mapping, Sequence
from itertools import count, repeat, takewhile
from typing import Callable, NamedTuple, NoReturn, Union

import numpy as np

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.export.onnx.trace import Shape, Trace


class Node(NamedTuple):
    """One ONNX node."""

    op: str
    inputs: list[str]
    outputs: list[str]
    name: str
    attributes: dict


class Graph:
    """Nodes in topological order, weights and outputs by name; not yet in ONNX's own classes.

    Args:
        hard_swish: how activations are written; see ``OnnxForm``.
    """

    def __init__(self, hard_swish: str):
        self._hard_swish = hard_swish
        self.nodes: list[Node] = []
        self.weights: dict[str, np.ndarray] = {}
        self.outputs: dict[str, Shape] = {}

    def node(self, op: str, inputs: list[str], name: str, **attributes) -> str:
        """Add a node and return its output, which has the node's name."""
        self.nodes.append(Node(op, inputs, [name], name, attributes))
        return name

    def split(self, x: str, sizes: Sequence[int], name: str, axis: int) -> list[str]:
        """Add a Split and return its outputs."""
        outputs = [f"{name}.{i}" for i in range(len(sizes))]
        inputs = [x, self.constant(f"{name}.sizes", np.int64(sizes))]
        self.nodes.append(Node("Split", inputs, outputs, name, {"axis": axis}))
        return outputs

    def output(self, tensor: str, name: str, shape: Shape) -> None:
        """Make a tensor an output of the graph, and rename it and the node that computes it."""
        self.outputs[name] = shape
        for i, node in enumerate(self.nodes):
            node_name = name if node.outputs == [tensor] else node.name
            inputs, outputs = (
                [name if n == tensor else n for n in names] for names in (node.inputs, node.outputs)
            )
            self.nodes[i] = node._replace(inputs=inputs, outputs=outputs, name=node_name)

    def constant(self, name: str, value) -> str:
        """Add an array, unless one has this name already, and return its name."""
        self.weights.setdefault(name, value)
        return name

    def number(self, value: float) -> str:
        """Add a scalar, which all its readers share, and return its name."""
        return self.constant(f"number.{value!r}", np.float32(value).reshape(()))

    def clip(self, x: str, low: float, high: float, name: str) -> str:
        """Add a Clip and return its output."""
        # Only Clips share these numbers: OpenCV fails where a bound is also an operand.
        bounds = [self.constant(f"bound.{v!r}", np.float32(v).reshape(())) for v in (low, high)]
        return self.node("Clip", [x, *bounds], name)

    def activation(self, kind: str, x: str, name: str) -> str:
        """Add ``hard_sigmoid`` or ``hard_swish`` in the form that the file is to have."""
        if self._hard_swish == "clip":
            y = self.node("Add", [x, self.number(3.0)], f"{name}.shift")
            y = self.clip(y, 0.0, 6.0, f"{name}.clip")
            if kind == "hard_swish":
                y = self.node("Mul", [x, y], f"{name}.scale")
            return self.node("Div", [y, self.number(6.0)], name)
        if kind == "hard_sigmoid":
            # Without beta, whose default is the same 0.5: with both, OpenCV takes the product of
            # any map and this gate for a hard-swish of the map.
            return self.node("HardSigmoid", [x], name, alpha=1 / 6)
        if self._hard_swish == "op":
            return self.node("HardSwish", [x], name)
        gate = self.node("HardSigmoid", [x], f"{name}.gate", alpha=1 / 6, beta=0.5)
        return self.node("Mul", [x, gate], name)


# Settings that do not change the result, or that follow from the shapes.
_WITHOUT_EFFECT = {
    "cudnn_off", "cudnn_tune", "is_int", "max_calib_range", "min_calib_range", "momentum",
    "num_args", "num_filter", "num_hidden", "p_value", "use_global_stats", "workspace",
}  # fmt: skip


class Operator:
    """One traced operator, as its converter sees it.

    ``shapes`` and ``output_shapes`` are those of its inputs and outputs.
    """

    def __init__(self, graph: Graph, traced: Trace, number: int, tensors: Mapping):
        self.node = traced.nodes[number]
        self.name = self.node.name
        self.graph = graph
        self.shapes = [traced.shapes.get(entry) for entry in self.node.inputs]
        outputs = takewhile(traced.shapes.__contains__, zip(repeat(number), count()))
        self.output_shapes = [traced.shapes[entry] for entry in outputs]
        self._trace, self._tensors = traced, tensors
        self._read = set(_WITHOUT_EFFECT)

    @property
    def inputs(self) -> list[str]:
        """The names of its input tensors; constant inputs become weights of the graph."""
        return [self.input(i) for i in range(len(self.node.inputs))]

    def input(self, index: int = 0) -> str:
        """Return the name of one input tensor."""
        entry = self.node.inputs[index]
        if entry in self._tensors:
            return self._tensors[entry]
        if entry not in self._trace.arrays:
            source = self._trace.nodes[entry[0]]
            self.refuse(f"it reads output {entry[1]} of {source.op} {source.name}")
        name = self._trace.nodes[entry[0]].name
        return self.graph.constant(
            f"{name}.{entry[1]}" if entry[1] else name, np.float32(self._trace.arrays[entry])
        )

    def array(self, index: int) -> np.ndarray:
        """Return the value of an input that must not depend on the image."""
        entry = self.node.inputs[index]
        if entry not in self._trace.arrays:
            self.refuse(f"its input {index} must be a constant")
        return self._trace.arrays[entry]

    def setting(self, name: str, default=None):
        """Return the value of a setting."""
        self._read.add(name)
        return self.node.setting(name, default)

    def skip(self, *names: str) -> None:
        """Mark settings as having no effect here."""
        self._read.update(names)

    @property
    def unread_settings(self) -> list[str]:
        """The settings that the converter has neither read nor skipped."""
        unread = self.node.settings.keys() - self._read
        return sorted(name for name in unread if not name.startswith("__"))

    def emit(self, op: str, *inputs: str, part: str = "", **attributes) -> str:
        """Add an ONNX node with the operator's name, or that of a part, and return its output."""
        name = f"{self.name}.{part}" if part else self.name
        return self.graph.node(op, list(inputs), name, **attributes)

    def constant(self, part: str, value: np.ndarray) -> str:
        """Add an array and return its name."""
        return self.graph.constant(f"{self.name}.{part}", value)

    def refuse(self, why: str) -> NoReturn:
        """Raise the InputError that says why this operator cannot be converted."""
        raise InputError(
            f"operator {self.node.op} of node {self.name} cannot be written as ONNX: {why}; "
            f"export the network as symbol"
        )


# Adds an operator to its graph and returns its output, or outputs.
Converter = Callable[[Operator], Union[str, list[str]]]
