"""One operator of a traced network, on its way into an ONNX graph."""

import ast
from collections.abc import Mapping
from itertools import count, repeat, takewhile
from typing import Callable, NoReturn, Union

import numpy as np

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.export.onnx.graph import Graph
from gluon_asymmnet.export.onnx.trace import Trace

# Settings that do not change the result, or that the shapes already tell.
_WITHOUT_EFFECT = {
    "cudnn_off", "cudnn_tune", "is_int", "max_calib_range", "min_calib_range", "momentum",
    "num_args", "num_filter", "num_hidden", "p_value", "use_global_stats", "workspace",
}  # fmt: skip
# Adds an operator to its graph and returns its output, or outputs.
Writer = Callable[["Operator"], Union[str, list[str]]]


class Operator:
    """One operator of a trace, and the graph it is written into."""

    def __init__(self, graph: Graph, traced: Trace, number: int, tensors: Mapping):
        self.node = traced.nodes[number]
        self.name = self.node.name
        self.graph = graph
        self.shapes = [traced.shapes.get(entry) for entry in self.node.inputs]
        outputs = takewhile(traced.shapes.__contains__, zip(repeat(number), count()))
        self.made = [traced.shapes[entry] for entry in outputs]
        self._trace, self._tensors = traced, tensors
        self._settings = dict(self.node.settings)

    @property
    def inputs(self) -> list[str]:
        """The tensors it reads; arrays become weights of the graph."""
        return [self.input(i) for i in range(len(self.node.inputs))]

    def input(self, index: int = 0) -> str:
        """Return one of the tensors it reads."""
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
        """Return what it reads there, which must not depend on the picture."""
        entry = self.node.inputs[index]
        if entry not in self._trace.arrays:
            self.refuse(f"its input {index} must be a constant")
        return self._trace.arrays[entry]

    def setting(self, name: str, default=None):
        """Return a setting as the value that MXNet's text means."""
        return value_of(self._settings.pop(name)) if name in self._settings else default

    def skip(self, *names: str) -> None:
        """Say of settings that they have no effect here."""
        for name in names:
            self._settings.pop(name, None)

    def unread(self) -> list[str]:
        """Return the settings that nothing has asked for."""
        left = self._settings.keys() - _WITHOUT_EFFECT
        return sorted(name for name in left if not name.startswith("__"))

    def emit(self, kind: str, *inputs: str, part: str = "", **attributes) -> str:
        """Add an ONNX node, named as this one, or as a part of it."""
        name = f"{self.name}.{part}" if part else self.name
        return self.graph.node(kind, list(inputs), name, **attributes)

    def constant(self, part: str, value: np.ndarray) -> str:
        """Add an array."""
        return self.graph.constant(f"{self.name}.{part}", value)

    def number(self, value: float) -> str:
        """Add a scalar, which all who want it share."""
        return self.graph.number(f"number.{value!r}", value)

    def refuse(self, why: str) -> NoReturn:
        """Raise the InputError that says why this operator cannot be written."""
        raise InputError(
            f"operator {self.node.op} of node {self.name} cannot be written as ONNX: {why}; "
            f"export the network as symbol"
        )


def value_of(text: str):
    """Return what MXNet's text of a setting means."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
