"""An ONNX file in 8 bits: ranges measured on pictures, then QuantizeLinear and DequantizeLinear.

ONNX Runtime's own ``quantize_static`` measures the ranges again for every file it writes, and here
one is written for each block that may stay in float; what it does beyond is little.  Needs no
MXNet.
"""

import copy
from collections.abc import Iterable

import numpy as np

from gluon_asymmnet.utils.extras import load_extra

# What ONNX Runtime has 8-bit kernels for; any other node stays in float.
_OPERATORS = ("Conv", "Relu", "Clip", "Concat", "Add", "Mul", "HardSigmoid", "GlobalAveragePool")
_LEVELS = 255
_CHUNK = 8  # pictures at once while ranges are measured


def measure_ranges(model, images: np.ndarray, threads: int = 0) -> dict[str, tuple[float, float]]:
    """Return the least and the greatest value of every tensor, 0 included.

    Args:
        model: ``onnx.ModelProto`` in float, one input.
        images: ``(n, 3, S, S)`` float32, preprocessed.
    """
    onnx, runtime = load_extra("onnx"), load_extra("onnxruntime")
    shown = copy.deepcopy(model)
    known = {output.name for output in model.graph.output}
    shown.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(made)
        for node in model.graph.node
        for made in node.output
        if made not in known
    )
    options = runtime.SessionOptions()
    # nothing fused away: every tensor is asked for
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    source, names = model.graph.input[0].name, [o.name for o in session.get_outputs()]
    ranges: dict[str, tuple[float, float]] = {}
    for first in range(0, len(images), _CHUNK):
        chunk = images[first : first + _CHUNK]
        values = zip([source, *names], [chunk, *session.run(None, {source: chunk})])
        for name, value in values:
            if value.dtype != np.float32:  # a shape
                continue
            low, high = ranges.get(name, (0.0, 0.0))  # 0 must be exact: convolutions pad with it
            ranges[name] = min(low, float(value.min())), max(high, float(value.max()))
    return ranges


def quantized(model, ranges: dict[str, tuple[float, float]], kept: Iterable[str] = ()):
    """Return a copy of ``model`` that computes in 8 bits all but the nodes named in ``kept``.

    Activations are unsigned, which is what VNNI multiplies fastest; weights are signed and scaled
    per output channel; biases have 32 bits.

    Args:
        model: ``onnx.ModelProto`` in float, opset 13 or later (scales per channel).
        ranges: of its tensors, from ``measure_ranges``.
    """
    onnx = load_extra("onnx")
    model, kept = copy.deepcopy(model), frozenset(kept)
    graph = model.graph
    nodes = [n for n in graph.node if n.op_type in _OPERATORS and n.name not in kept]
    constants = {w.name: onnx.numpy_helper.to_array(w) for w in graph.initializer}
    rounded = _Rounding(onnx, ranges)
    for node in nodes:
        if node.op_type == "Conv":
            rounded.convolution(node, constants)
    # The result of a convolution before a ReLU is not rounded: the two become one operation.
    joined = {n.input[0] for n in nodes if n.op_type in ("Relu", "Clip")}
    made_by_conv = {n.output[0] for n in nodes if n.op_type == "Conv"}
    tensors = {t for n in nodes for t in (*n.input, *n.output) if t in ranges}
    rounded.activations(graph, tensors - (joined & made_by_conv))
    used = {name for node in graph.node for name in node.input}
    left = [w for w in graph.initializer if w.name in used]
    del graph.initializer[:]
    graph.initializer.extend([*left, *rounded.constants])
    onnx.checker.check_model(model)
    return model


class _Rounding:
    """The nodes that round, and their constants."""

    def __init__(self, onnx, ranges):
        self._onnx, self._ranges = onnx, ranges
        self.constants: list = []
        self._before: list = []  # nodes that read constants only

    def convolution(self, node, constants: dict) -> None:
        """Let a convolution read its weights, in place, from 8 bits and its bias from 32."""
        weight = constants[node.input[1]]
        largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        scale = (np.maximum(largest, 1e-12) / 127).astype(np.float32)
        levels = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1)))
        node.input[1] = self._read(node.input[1], levels.astype(np.int8), scale)
        if len(node.input) > 2:
            bias_scale = scale * self._grid(node.input[0])[0]
            levels = np.clip(np.rint(constants[node.input[2]] / bias_scale), -(2**31), 2**31 - 1)
            node.input[2] = self._read(node.input[2], levels.astype(np.int32), bias_scale)

    def activations(self, graph, tensors: set[str]) -> None:
        """Round each tensor once, where it is made; all who read it read the rounded one."""
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
                if made in outputs:  # the name outside stays
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
        scale, zero = self._grid(name)
        grid = [self._constant(f"{name}.scale", np.float32(scale)),
                self._constant(f"{name}.zero", np.uint8(zero))]  # fmt: skip
        make = self._onnx.helper.make_node
        return [
            make("QuantizeLinear", [tensor, *grid], [f"{name}.levels"], f"{name}.quantize"),
            make("DequantizeLinear", [f"{name}.levels", *grid], [f"{name}.rounded"],
                 f"{name}.dequantize"),
        ]  # fmt: skip

    def _grid(self, tensor: str) -> tuple[float, int]:
        """Step and level of 0 of an activation."""
        low, high = self._ranges[tensor]
        scale = max(high - low, 1e-12) / _LEVELS
        return scale, round(-low / scale)

    def _read(self, name: str, levels: np.ndarray, scale: np.ndarray) -> str:
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
