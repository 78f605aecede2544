"""ONNX in 8 bits: measure ranges on images, then insert QuantizeLinear and DequantizeLinear.

Not ONNX Runtime's ``quantize_static``: it measures the ranges again for every file, and here a file
is written for each part that may stay in float.  Needs no MXNet.
"""

import copy
from collections.abc import Iterable

import numpy as np

from gluon_asymmnet.utils.extras import load_extra

# Operators with 8-bit kernels in ONNX Runtime; any other node stays in float.
_OPERATORS = ("Conv", "Relu", "Clip", "Concat", "Add", "Mul", "HardSigmoid", "GlobalAveragePool")
_LEVELS = 255
# Largest level of a bias: half of the range, as it and the products are summed in 32 bits.
_BIAS_LEVELS = 2**30
_CHUNK = 8  # images at once while ranges are measured


def measure_ranges(model, images: np.ndarray, threads: int = 0) -> dict[str, tuple[float, float]]:
    """Return the minimum and maximum of every tensor, 0 included.

    Args:
        model: ``onnx.ModelProto`` in float, one input.
        images: ``(n, 3, S, S)`` float32, preprocessed.
    """
    onnx, runtime = load_extra("onnx"), load_extra("onnxruntime")
    exposed = copy.deepcopy(model)
    known = {output.name for output in model.graph.output}
    exposed.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(made)
        for node in model.graph.node
        for made in node.output
        if made not in known
    )
    options = runtime.SessionOptions()
    # no fusions: every tensor is an output
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        exposed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    source, names = model.graph.input[0].name, [o.name for o in session.get_outputs()]
    ranges: dict[str, tuple[float, float]] = {}
    for first in range(0, len(images), _CHUNK):
        chunk = images[first : first + _CHUNK]
        values = zip([source, *names], [chunk, *session.run(None, {source: chunk})])
        for name, value in values:
            if value.dtype != np.float32:  # a shape
                continue
            low, high = ranges.get(
                name, (0.0, 0.0)
            )  # 0 must have a level of its own: convolutions pad with it
            ranges[name] = min(low, float(value.min())), max(high, float(value.max()))
    return ranges


def quantize(model, ranges: dict[str, tuple[float, float]], in_float: Iterable[str] = ()):
    """Return a copy of ``model`` with all nodes in 8 bits but those named in ``in_float``.

    Activations are unsigned, which VNNI instructions multiply fastest; weights are signed and
    scaled per output channel; biases have 32 bits.

    Args:
        model: ``onnx.ModelProto`` in float, opset 13 or later (scales per channel).
        ranges: of its tensors, from ``measure_ranges``.
    """
    onnx = load_extra("onnx")
    model, in_float = copy.deepcopy(model), frozenset(in_float)
    graph = model.graph
    nodes = [n for n in graph.node if n.op_type in _OPERATORS and n.name not in in_float]
    constants = {w.name: onnx.numpy_helper.to_array(w) for w in graph.initializer}
    pairs = _QuantizePairs(onnx, ranges)
    for node in nodes:
        if node.op_type == "Conv":
            pairs.convolution(node, constants)
    # No pair between a convolution and its ReLU: ONNX Runtime fuses the two.
    before_relu = {n.input[0] for n in nodes if n.op_type in ("Relu", "Clip")}
    made_by_conv = {n.output[0] for n in nodes if n.op_type == "Conv"}
    tensors = {t for n in nodes for t in (*n.input, *n.output) if t in ranges}
    pairs.activations(graph, tensors - (before_relu & made_by_conv))
    used = {name for node in graph.node for name in node.input}
    left = [w for w in graph.initializer if w.name in used]
    del graph.initializer[:]
    graph.initializer.extend([*left, *pairs.constants])
    onnx.checker.check_model(model)
    return model


class _QuantizePairs:
    """The QuantizeLinear and DequantizeLinear nodes, and their constants."""

    def __init__(self, onnx, ranges):
        self._onnx, self._ranges = onnx, ranges
        self.constants: list = []
        self._before: list = []  # nodes that read constants only

    def convolution(self, node, constants: dict) -> None:
        """Store a convolution's weights in 8 bits and its bias in 32, in place."""
        weight, *bias = (constants[name] for name in node.input[1:])
        largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        scale = np.maximum(largest, 1e-12) / 127
        input_scale = self._scale_and_zero(node.input[0])[0]
        if bias:  # of a channel with tiny weights, the bias decides the scale
            scale = np.maximum(scale, np.abs(bias[0]) / (_BIAS_LEVELS * input_scale))
        scale = scale.astype(np.float32)
        levels = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1)))
        node.input[1] = self._dequantized(node.input[1], levels.astype(np.int8), scale)
        if bias:
            bias_scale = scale * input_scale
            levels = np.rint(bias[0] / bias_scale)
            node.input[2] = self._dequantized(node.input[2], levels.astype(np.int32), bias_scale)

    def activations(self, graph, tensors: set[str]) -> None:
        """Add a pair behind each tensor; all its readers read the rounded tensor."""
        nodes, source = [], graph.input[0].name
        outputs = {output.name for output in graph.output}
        if source in tensors:
            nodes += self._pair(source, source)
        for node in graph.node:
            for i, name in enumerate(node.input):
                if name in tensors:
                    node.input[i] = f"{name}.rounded"
            nodes.append(node)
            for i, made in enumerate(node.output):
                if made not in tensors:
                    continue
                if made in outputs:  # outputs keep their names
                    node.output[i] = f"{made}.exact"
                    pair = self._pair(node.output[i], made)
                    pair[1].output[0] = made
                    nodes += pair
                else:
                    nodes += self._pair(made, made)
        nodes = [copy.deepcopy(n) for n in (*self._before, *nodes)]
        del graph.node[:]
        graph.node.extend(nodes)

    def _pair(self, tensor: str, name: str) -> list:
        scale, zero = self._scale_and_zero(name)
        parameters = [
            self._constant(f"{name}.scale", np.float32(scale)),
            self._constant(f"{name}.zero", np.uint8(zero)),
        ]
        make = self._onnx.helper.make_node
        return [
            make("QuantizeLinear", [tensor, *parameters], [f"{name}.levels"], f"{name}.quantize"),
            make("DequantizeLinear", [f"{name}.levels", *parameters], [f"{name}.rounded"],
                 f"{name}.dequantize"),
        ]  # fmt: skip

    def _scale_and_zero(self, tensor: str) -> tuple[float, int]:
        """Return scale and zero point of an activation."""
        low, high = self._ranges[tensor]
        scale = max(high - low, 1e-12) / _LEVELS
        return scale, round(-low / scale)

    def _dequantized(self, name: str, levels: np.ndarray, scale: np.ndarray) -> str:
        inputs = [self._constant(f"{name}.levels", levels),
                  self._constant(f"{name}.scale", scale.astype(np.float32)),
                  self._constant(f"{name}.zero", np.zeros(len(scale), levels.dtype))]  # fmt: skip
        self._before.append(self._onnx.helper.make_node(
            "DequantizeLinear", inputs, [f"{name}.rounded"], f"{name}.dequantize", axis=0
        ))  # fmt: skip
        return f"{name}.rounded"

    def _constant(self, name: str, value) -> str:
        self.constants.append(self._onnx.numpy_helper.from_array(np.asarray(value), name))
        return name
