"""What each operator of MXNet becomes in ONNX, opsets 13 to 17.

Shapes are known but for the batch, so that every reshaping operator, whatever its codes mean, is a
Reshape to the shape that MXNet inferred.
"""

import ast
import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count, repeat, takewhile
from typing import Callable, NoReturn, Optional, Union

import numpy as np

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.export.onnx_graph import Graph
from gluon_asymmnet.export.trace import Shape, Trace, TracedNode

HARD_SWISH = "hard_swish"  # not MXNet's: x * hard_sigmoid(x)
# Settings that do not change the result, or that the shapes already tell.
_WITHOUT_EFFECT = {
    "cudnn_off", "cudnn_tune", "is_int", "max_calib_range", "min_calib_range", "momentum",
    "num_args", "num_filter", "num_hidden", "p_value", "use_global_stats", "workspace",
}  # fmt: skip
_LAYOUTS = (None, "NCW", "NCHW")
_END = np.iinfo(np.int64).max

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
        return _value(self._settings.pop(name)) if name in self._settings else default

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
        return self.graph.number(f"number.{value:g}" if value == float(f"{value:g}")
                                 else f"number.{value!r}", value)  # fmt: skip

    def reshaped(self, x: str, shape: Shape, before: Shape, part: str = "") -> str:
        """Add a Reshape, unless the shape stays."""
        if shape == before and shape.count(None) <= 1:
            return x
        if shape.count(None) > 1:
            self.refuse("more than one axis of its result depends on the batch")
        sizes = [-1 if size is None else size for size in shape]
        if shape[:1] == before[:1] == (None,) and _fixed(shape) == _fixed(before):
            sizes[0] = 0  # the batch, kept
        target = self.constant(f"{part}_shape" if part else "shape", np.int64(sizes))
        return self.emit("Reshape", x, target, part=part)

    def refuse(self, why: str) -> NoReturn:
        """Raise the InputError that says why this operator cannot be written."""
        raise InputError(
            f"operator {self.node.op} of node {self.name} cannot be written as ONNX: {why}; "
            f"export the network as symbol"
        )


def write(operator: Operator) -> list[str]:
    """Add an operator to its graph and return its outputs; InputError if that cannot be."""
    writer = OPERATORS.get(operator.node.op)
    if writer is None:
        operator.refuse(f"it is none of the {len(OPERATORS)} that can")
    outputs = writer(operator)
    if operator.unread():
        operator.refuse(f"its setting {operator.unread()[0]} is not provided for")
    return [outputs] if isinstance(outputs, str) else outputs


def _value(text: str):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _fixed(shape: Shape) -> int:
    return math.prod(size for size in shape if size is not None)


# ------------------------------------------------------------------------------ layers


def _convolution(o: Operator) -> str:
    kernel = o.setting("kernel")
    _check_layout(o)
    o.skip("no_bias")  # the inputs tell
    ones, pad = (1,) * len(kernel), o.setting("pad") or (0,) * len(kernel)
    return o.emit(
        "Conv", *o.inputs, kernel_shape=kernel, strides=o.setting("stride") or ones,
        dilations=o.setting("dilate") or ones, pads=[*pad, *pad], group=o.setting("num_group", 1),
    )  # fmt: skip


def _check_layout(o: Operator) -> None:
    layout = o.setting("layout")
    if layout not in _LAYOUTS:
        o.refuse(f"its layout is {layout}, not {' or '.join(_LAYOUTS[1:])}")


def _batch_norm(o: Operator) -> str:
    if o.setting("output_mean_var", False):
        o.refuse("its mean and variance are outputs")
    axis, rank = o.setting("axis", 1), len(o.shapes[0])
    if axis % rank != 1:
        o.refuse(f"it normalises axis {axis}, not the channels, axis 1")
    gamma, *_, epsilon = norm_arrays(o.node.settings, [o.array(i) for i in range(1, 5)])
    o.skip("eps", "fix_gamma")
    scale = o.constant("scale", gamma)  # not o.input(1): fix_gamma says 1
    return o.emit(
        "BatchNormalization", o.input(), scale, *(o.input(i) for i in (2, 3, 4)), epsilon=epsilon
    )


def norm_arrays(settings: Mapping[str, str], arrays: Sequence[np.ndarray]) -> tuple:
    """Return gamma, beta, mean, variance and epsilon of a BatchNorm as it computes."""
    gamma, beta, mean, variance = arrays
    if _value(settings.get("fix_gamma", "True")):
        gamma = np.ones_like(gamma)
    return gamma, beta, mean, variance, float(_value(settings.get("eps", "1e-3")))


def _fully_connected(o: Operator) -> str:
    x, shape = o.input(), o.shapes[0]
    o.skip("no_bias")
    if o.setting("flatten", True) and len(shape) > 2:
        x, shape = o.emit("Flatten", x, part="rows", axis=1), shape[:2]
    if len(shape) == 2:
        return o.emit("Gemm", x, *o.inputs[1:], transB=1)
    weight = o.constant("weight", np.ascontiguousarray(o.array(1).T))
    if len(o.shapes) == 2:
        return o.emit("MatMul", x, weight)
    return o.emit("Add", o.emit("MatMul", x, weight, part="product"), o.input(2))


def _pooling(o: Operator) -> str:
    kind = o.setting("pool_type", "max")
    if kind not in ("max", "avg"):
        o.refuse(f"its pool_type is {kind}, not max or avg")
    _check_layout(o)
    convention = o.setting("pooling_convention", "valid")
    kernel, stride, pad = (o.setting(name) for name in ("kernel", "stride", "pad"))
    with_padding = o.setting("count_include_pad", True) and kind == "avg"
    op = "AveragePool" if kind == "avg" else "MaxPool"
    if o.setting("global_pool", False):
        return o.emit(f"Global{op}", o.input())
    if convention not in ("valid", "full"):
        o.refuse(f"its pooling_convention is {convention}, not valid or full")
    stride, pad = stride or (1,) * len(kernel), pad or (0,) * len(kernel)
    sizes = zip(_sides(o, o.shapes[0]), _sides(o, o.made[0]), kernel, stride, pad)
    # How far the last window goes beyond the padded map: with "full", which rounds up, somewhat.
    # Not ONNX's ceil_mode: what it divides by there has changed from version to version.
    beyond = [max(0, (n - 1) * s + k - (side + 2 * p)) for side, n, k, s, p in sizes]
    if any(b >= k for b, k in zip(beyond, kernel)):
        o.refuse("a window of it sees nothing but padding")
    x = o.input()
    if with_padding and any(pad) and any(beyond):  # MXNet counts the padding, not what is beyond
        pads = np.int64([0, 0, *pad, 0, 0, *pad])
        x, pad = o.emit("Pad", x, o.constant("pads", pads), part="pad"), (0,) * len(kernel)
    ends = [p + b for p, b in zip(pad, beyond)]
    counted = {"count_include_pad": int(with_padding and not any(beyond))} if kind == "avg" else {}
    return o.emit(op, x, kernel_shape=kernel, strides=stride, pads=[*pad, *ends], **counted)


def _sides(o: Operator, shape: Shape) -> Shape:
    if None in shape[1:]:
        o.refuse("the size of its map depends on the batch")
    return shape[2:]


def _adaptive_pooling(o: Operator) -> str:
    o.skip("output_size")
    before, after = _sides(o, o.shapes[0]), _sides(o, o.made[0])
    if after == (1, 1):
        return o.emit("GlobalAveragePool", o.input())
    if any(b % a for b, a in zip(before, after)):
        o.refuse(f"{before} does not divide into {after} windows")
    windows = [b // a for b, a in zip(before, after)]
    return o.emit("AveragePool", o.input(), kernel_shape=windows, strides=windows)


def _nearest(o: Operator) -> str:
    if o.setting("sample_type") != "nearest" or len(o.shapes) != 1:
        o.refuse("only the nearest neighbours of one map are provided for")
    scale = o.setting("scale")
    scales = o.constant("scales", np.float32([1, 1, scale, scale]))
    return o.emit("Resize", o.input(), "", scales, mode="nearest", nearest_mode="floor",
                  coordinate_transformation_mode="asymmetric")  # fmt: skip


def _bilinear(o: Operator) -> str:
    o.skip("height", "width", "scale_height", "scale_width", "mode")
    sides = o.constant("sides", np.int64(_sides(o, o.made[0])))
    bounds = (o.constant(n, np.int64([v])) for n, v in (("first", 0), ("last", 2)))
    kept = o.emit("Slice", o.emit("Shape", o.input(), part="shape"), *bounds, part="kept")
    sizes = o.emit("Concat", kept, sides, part="sizes", axis=0)
    corners = "align_corners" if o.setting("align_corners", True) else "half_pixel"
    return o.emit("Resize", o.input(), "", "", sizes, mode="linear",
                  coordinate_transformation_mode=corners)  # fmt: skip


# ------------------------------------------------------------------------------ element by element


def _identity(o: Operator) -> str:
    return o.input()


def _dropout(o: Operator) -> str:
    if o.setting("mode", "training") != "training":
        o.refuse("it drops at inference as well")
    o.skip("p", "axes")
    return o.input()


def _cast(o: Operator) -> str:
    if o.setting("dtype") != "float32":
        o.refuse("everything is float32 here")
    return o.input()


def _unary(kind: str, o: Operator) -> str:
    return o.emit(kind, o.input())


def _binary(kind: str, o: Operator) -> str:
    return o.emit(kind, *o.inputs)


def _square(o: Operator) -> str:
    return o.emit("Mul", o.input(), o.input())


def _scalar(kind: str, o: Operator, *, first: bool = False) -> str:
    pair = [o.input(), o.number(float(o.setting("scalar", 0)))]
    return o.emit(kind, *(pair[::-1] if first else pair))


def _add_n(o: Operator) -> str:
    return o.emit("Sum", *o.inputs)


_ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softrelu": "Softplus",
                "softsign": "Softsign"}  # fmt: skip


def _activation(o: Operator) -> str:
    kind = o.setting("act_type")
    if kind not in _ACTIVATIONS:
        o.refuse(f"its act_type is {kind}, none of {', '.join(_ACTIVATIONS)}")
    return o.emit(_ACTIVATIONS[kind], o.input())


def _leaky(o: Operator) -> str:
    kind, slope = o.setting("act_type", "leaky"), o.setting("slope", 0.25)
    o.skip("lower_bound", "upper_bound")
    if kind == "leaky":
        return o.emit("LeakyRelu", o.input(), alpha=slope)
    if kind == "elu":
        return o.emit("Elu", o.input(), alpha=slope)
    if kind != "prelu":
        o.refuse(f"its act_type is {kind}, not leaky, prelu or elu")
    slopes = o.array(1).reshape(-1, *[1] * (len(o.shapes[0]) - 2))  # one for each channel, or one
    return o.emit("PRelu", o.input(), o.constant("slopes", slopes))


def is_hard_sigmoid(node: TracedNode) -> bool:
    """Return whether a node is ``clip(x / 6 + 1/2, 0, 1)``."""
    alpha, beta = _hard_sigmoid_settings(node)
    return node.op == "hard_sigmoid" and abs(alpha - 1 / 6) < 1e-6 and beta == 0.5


def _hard_sigmoid_settings(node: TracedNode) -> tuple[float, float]:
    return _value(node.settings.get("alpha", "0.2")), _value(node.settings.get("beta", "0.5"))


def _hard_sigmoid(o: Operator) -> str:
    o.skip("alpha", "beta")
    if is_hard_sigmoid(o.node):
        return o.graph.activation("hard_sigmoid", o.input(), o.name)
    alpha, beta = _hard_sigmoid_settings(o.node)
    return o.emit("HardSigmoid", o.input(), alpha=alpha, beta=beta)


def _hard_swish(o: Operator) -> str:
    return o.graph.activation("hard_swish", o.input(), o.name)


def _clip(o: Operator) -> str:
    bounds = (o.number(float(o.setting(name))) for name in ("a_min", "a_max"))
    return o.emit("Clip", o.input(), *bounds)


def _softmax(o: Operator) -> str:
    if o.setting("temperature") not in (None, 1) or o.setting("use_length", False):
        o.refuse("a temperature or lengths are not provided for")
    o.skip("dtype")
    return o.emit("Softmax", o.input(), axis=o.setting("axis", -1))


# ------------------------------------------------------------------------------ axes


def _axes(setting) -> Optional[tuple[int, ...]]:
    """Return the axes of a setting; None for all."""
    if setting in (None, ()):
        return None
    return (setting,) if isinstance(setting, int) else tuple(setting)


def _reduce(kind: str, o: Operator) -> str:
    rank, axes = len(o.shapes[0]), _axes(o.setting("axis"))
    axes = sorted(a % rank for a in (range(rank) if axes is None else axes))
    if o.setting("exclude", False):
        axes = [a for a in range(rank) if a not in axes]
    keep = bool(o.setting("keepdims", False))
    if kind == "ReduceMean" and keep and axes == [*range(2, rank)] and rank > 2:
        return o.emit("GlobalAveragePool", o.input())
    if kind == "ReduceSum":  # at opset 13 the first whose axes are an input
        return o.emit(kind, o.input(), o.constant("axes", np.int64(axes)), keepdims=int(keep))
    return o.emit(kind, o.input(), axes=axes, keepdims=int(keep))


def _reshape(*settings: str) -> Writer:
    """All that only changes the shape; the settings say which, and MXNet has inferred it."""

    def write_reshape(o: Operator) -> str:
        o.skip(*settings)
        return o.reshaped(o.input(), o.made[0], o.shapes[0])

    return write_reshape


def _transpose(o: Operator) -> str:
    rank = len(o.shapes[0])
    axes = o.setting("axes") or range(rank)[::-1]
    return o.emit("Transpose", o.input(), perm=[a % rank for a in axes])


def _swap_axes(o: Operator) -> str:
    perm = [*range(len(o.shapes[0]))]
    one, other = o.setting("dim1", 0), o.setting("dim2", 0)
    perm[one], perm[other] = perm[other], perm[one]
    return o.emit("Transpose", o.input(), perm=perm)


def _concat(o: Operator) -> str:
    return o.emit("Concat", *o.inputs, axis=o.setting("dim", 1))


def _slice_axis(o: Operator) -> str:
    return _sliced(o, [(o.setting("axis"), o.setting("begin"), o.setting("end"), 1)])


def _slice(o: Operator) -> str:
    begin, end, step = (o.setting(name) or () for name in ("begin", "end", "step"))
    begin, end, step = ([*([v] if isinstance(v, int) else v)] for v in (begin, end, step))
    step += [None] * (len(begin) - len(step))
    return _sliced(o, [(a, b, e, s or 1) for a, (b, e, s) in enumerate(zip(begin, end, step))])


def _sliced(o: Operator, parts: list[tuple]) -> str:
    """Slice axes from begin to end by steps, with None for the whole."""
    parts = [part for part in parts if part[1:] not in ((None, None, 1), (0, None, 1))]
    if not parts:
        return o.input()
    axes, begins, ends, steps = zip(*parts)
    begins = [(0 if s > 0 else _END) if b is None else b for b, s in zip(begins, steps)]
    ends = [(_END if s > 0 else -_END) if e is None else e for e, s in zip(ends, steps)]
    bounds = {"begin": begins, "end": ends, "axes": axes, "steps": steps}
    return o.emit("Slice", o.input(), *(o.constant(n, np.int64(v)) for n, v in bounds.items()))


def _split(o: Operator) -> list[str]:
    axis, squeezed = o.setting("axis", 1), o.setting("squeeze_axis", False)
    o.skip("num_outputs", "indices", "sections")
    rank = len(o.shapes[0])
    axis %= rank
    if o.shapes[0][axis] is None:
        o.refuse("it splits the batch")
    sizes = [1 if squeezed else shape[axis] for shape in o.made]
    parts = o.graph.split(o.input(), sizes, o.name, axis)
    if not squeezed:
        return parts
    axes = o.constant("squeezed", np.int64([axis]))
    return [o.emit("Squeeze", x, axes, part=f"part{i}") for i, x in enumerate(parts)]


def _take(o: Operator) -> str:
    axis, mode = o.setting("axis", 0), o.setting("mode", "clip")
    size = o.shapes[0][axis]
    if size is None:
        o.refuse("it takes from the batch")
    chosen = o.array(1).astype(np.int64)
    chosen = chosen % size if mode == "wrap" else np.clip(chosen, 0, size - 1)
    return o.emit("Gather", o.input(), o.constant("chosen", chosen), axis=axis)


def _pad(o: Operator) -> str:
    widths, mode = o.setting("pad_width"), o.setting("mode")
    pads = o.constant("pads", np.int64([*widths[::2], *widths[1::2]]))
    value = o.number(float(o.setting("constant_value", 0)))
    return o.emit("Pad", o.input(), pads, *([value] if mode == "constant" else []), mode=mode)


# ------------------------------------------------------------------------------ shapes of others


def _broadcast_like(o: Operator) -> str:
    if o.setting("lhs_axes") or o.setting("rhs_axes"):
        o.refuse("axes of its own are not provided for")
    return o.emit("Expand", o.input(0), o.emit("Shape", o.input(1), part="shape"))


def _broadcast_to(o: Operator) -> str:
    o.skip("shape", "axis", "size")
    before, after = o.shapes[0], o.made[0]
    if any(a is None is not b for b, a in zip(before, after)):
        o.refuse("it makes as many as there are pictures")
    sizes = np.int64([a or 1 for a in after])  # what is 1 stays as it is
    return o.emit("Expand", o.input(), o.constant("shape", sizes))


def _all(value: float, o: Operator) -> str:
    """An array of one value, in the shape of another."""
    return o.emit("Expand", o.number(value), o.emit("Shape", o.input(), part="shape"))


def _product(o: Operator) -> str:
    pair = o.inputs
    for index, name in enumerate(("transpose_a", "transpose_b")):
        rank = len(o.shapes[index])
        if o.setting(name, False):
            perm = [*range(rank - 2), rank - 1, rank - 2]
            pair[index] = o.emit("Transpose", pair[index], part=name, perm=perm)
    o.skip("forward_stype")
    if o.node.op == "dot" and len(o.shapes[1]) != 2:
        o.refuse("its second factor is not a matrix")
    return o.emit("MatMul", *pair)


OPERATORS: dict[str, Writer] = {
    "Activation": _activation,
    "BatchNorm": _batch_norm,
    "BlockGrad": _identity,
    "Cast": _cast,
    "Concat": _concat,
    "Convolution": _convolution,
    "Dropout": _dropout,
    "Flatten": _reshape(),
    "FullyConnected": _fully_connected,
    HARD_SWISH: _hard_swish,
    "LeakyReLU": _leaky,
    "Pad": _pad,
    "Pooling": _pooling,
    "Reshape": _reshape("shape", "reverse"),
    "SliceChannel": _split,
    "SwapAxis": _swap_axes,
    "UpSampling": _nearest,
    "_contrib_AdaptiveAvgPooling2D": _adaptive_pooling,
    "_contrib_BilinearResize2D": _bilinear,
    "_copy": _identity,
    "_split_v2": _split,
    "add_n": _add_n,
    "batch_dot": _product,
    "broadcast_axis": _broadcast_to,
    "broadcast_like": _broadcast_like,
    "broadcast_to": _broadcast_to,
    "clip": _clip,
    "dot": _product,
    "expand_dims": _reshape("axis"),
    "hard_sigmoid": _hard_sigmoid,
    "ones_like": partial(_all, 1.0),
    "reshape_like": _reshape("lhs_begin", "lhs_end", "rhs_begin", "rhs_end"),
    "slice": _slice,
    "slice_axis": _slice_axis,
    "softmax": _softmax,
    "square": _square,
    "squeeze": _reshape("axis"),
    "take": _take,
    "transpose": _transpose,
    "zeros_like": partial(_all, 0.0),
}
for _name, _kind in {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "log": "Log",
    "sqrt": "Sqrt", "abs": "Abs", "negative": "Neg", "erf": "Erf", "softsign": "Softsign",
    "reciprocal": "Reciprocal",
}.items():  # fmt: skip
    OPERATORS[_name] = partial(_unary, _kind)
for _name, _kind in {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div"}.items():
    OPERATORS[f"elemwise_{_name}"] = OPERATORS[f"broadcast_{_name}"] = partial(_binary, _kind)
for _name, _kind in {"maximum": "Max", "minimum": "Min", "power": "Pow"}.items():
    OPERATORS[f"_{_name}"] = OPERATORS[f"broadcast_{_name}"] = partial(_binary, _kind)
    OPERATORS[f"_{_name}_scalar"] = partial(_scalar, _kind)
for _name, _kind in {"plus": "Add", "minus": "Sub", "mul": "Mul", "div": "Div"}.items():
    OPERATORS[f"_{_name}_scalar"] = partial(_scalar, _kind)
for _name, _kind in {"rminus": "Sub", "rdiv": "Div", "rpower": "Pow"}.items():
    OPERATORS[f"_{_name}_scalar"] = partial(_scalar, _kind, first=True)
for _name in ("mean", "sum", "max", "min"):
    OPERATORS[_name] = partial(_reduce, f"Reduce{_name.capitalize()}")
