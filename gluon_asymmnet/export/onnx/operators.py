"""The converter of each operator of MXNet, opsets 13 to 17; those of layers are in ``layers``.

Shapes are known except for the batch.  Every reshaping operator is therefore a Reshape to the shape
that MXNet inferred, whatever the special codes of its settings mean.
"""

import math
from functools import partial
from typing import Optional

import numpy as np

from gluon_asymmnet.export.onnx.graph import Converter, Operator
from gluon_asymmnet.export.onnx.layers import LAYERS
from gluon_asymmnet.export.onnx.trace import HARD_SWISH, Shape

_END = np.iinfo(np.int64).max


def convert(operator: Operator) -> list[str]:
    """Add an operator to its graph and return its outputs; InputError if it is not supported."""
    converter = OPERATORS.get(operator.node.op)
    if converter is None:
        operator.refuse(f"it is not one of the {len(OPERATORS)} supported operators")
    outputs = converter(operator)
    if operator.unread_settings:
        operator.refuse(f"its setting {operator.unread_settings[0]} is not supported")
    return [outputs] if isinstance(outputs, str) else outputs


# ------------------------------------------------------------------------------ element by element


def _identity(o: Operator) -> str:
    return o.input()


def _dropout(o: Operator) -> str:
    if o.setting("mode", "training") != "training":
        o.refuse("it drops values at inference as well")
    o.skip("p", "axes")
    return o.input()


def _cast(o: Operator) -> str:
    if o.setting("dtype") != "float32":
        o.refuse("only float32 is supported")
    return o.input()


def _unary(kind: str, o: Operator) -> str:
    return o.emit(kind, o.input())


def _binary(kind: str, o: Operator) -> str:
    return o.emit(kind, *o.inputs)


def _square(o: Operator) -> str:
    return o.emit("Mul", o.input(), o.input())


def _scalar(kind: str, o: Operator, *, first: bool = False) -> str:
    pair = [o.input(), o.graph.number(float(o.setting("scalar", 0)))]
    return o.emit(kind, *(pair[::-1] if first else pair))


def _add_n(o: Operator) -> str:
    return o.emit("Sum", *o.inputs)


_ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softrelu": "Softplus",
                "softsign": "Softsign"}  # fmt: skip


def _activation(o: Operator) -> str:
    return o.emit(_ACTIVATIONS[o.setting("act_type")], o.input())


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


def _hard_sigmoid(o: Operator) -> str:
    alpha, beta = o.setting("alpha", 0.2), o.setting("beta", 0.5)
    if o.node.is_hard_sigmoid:
        return o.graph.activation("hard_sigmoid", o.input(), o.name)
    return o.emit("HardSigmoid", o.input(), alpha=alpha, beta=beta)


def _hard_swish(o: Operator) -> str:
    return o.graph.activation("hard_swish", o.input(), o.name)


def _clip(o: Operator) -> str:
    low, high = (float(o.setting(name)) for name in ("a_min", "a_max"))
    return o.graph.clip(o.input(), low, high, o.name)


def _softmax(o: Operator) -> str:
    if o.setting("temperature") not in (None, 1) or o.setting("use_length", False):
        o.refuse("a temperature or lengths are not supported")
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
    if kind == "ReduceSum":  # the only one whose axes are an input at opset 13
        return o.emit(kind, o.input(), o.constant("axes", np.int64(axes)), keepdims=int(keep))
    return o.emit(kind, o.input(), axes=axes, keepdims=int(keep))


def _reshape(*settings: str) -> Converter:
    """Return the converter of an operator that only changes the shape, as its settings say."""

    def convert_reshape(o: Operator) -> str:
        o.skip(*settings)
        before, shape = o.shapes[0], o.output_shapes[0]
        if None in before and None not in shape:
            o.refuse(f"the number of images is built into its shape, {shape}")
        if shape.count(None) > 1:
            o.refuse("more than one axis of its result depends on the batch")
        if shape == before:
            return o.input()
        sizes = [-1 if size is None else size for size in shape]
        if shape[0] is before[0] is None and _fixed(shape) == _fixed(before):
            sizes[0] = 0  # keeps the batch
        return o.emit("Reshape", o.input(), o.constant("shape", np.int64(sizes)))

    return convert_reshape


def _flatten(o: Operator) -> str:
    return o.emit("Flatten", o.input(), axis=1) if len(o.shapes[0]) > 2 else o.input()


def _fixed(shape: Shape) -> int:
    return math.prod(size for size in shape if size is not None)


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
    return o.emit("Concat", *o.inputs, axis=o.setting("dim", 1) % len(o.shapes[0]))


def _slice_axis(o: Operator) -> str:
    return _sliced(o, [(o.setting("axis"), o.setting("begin"), o.setting("end"), 1)])


def _slice(o: Operator) -> str:
    begin, end, step = (o.setting(name) or () for name in ("begin", "end", "step"))
    begin, end, step = ([*([v] if isinstance(v, int) else v)] for v in (begin, end, step))
    step += [None] * (len(begin) - len(step))
    return _sliced(o, [(a, b, e, s or 1) for a, (b, e, s) in enumerate(zip(begin, end, step))])


def _sliced(o: Operator, parts: list[tuple]) -> str:
    """Slice axes; ``parts`` are (axis, begin, end, step), with None for the whole axis."""
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
    sizes = [1 if squeezed else shape[axis] for shape in o.output_shapes]
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
    indices = o.array(1).astype(np.int64)
    indices = indices % size if mode == "wrap" else np.clip(indices, 0, size - 1)
    return o.emit("Gather", o.input(), o.constant("indices", indices), axis=axis)


def _pad(o: Operator) -> str:
    widths, mode = o.setting("pad_width"), o.setting("mode")
    pads = o.constant("pads", np.int64([*widths[::2], *widths[1::2]]))
    value = o.graph.number(float(o.setting("constant_value", 0)))
    return o.emit("Pad", o.input(), pads, *([value] if mode == "constant" else []), mode=mode)


# --------------------------------------------------------------- broadcasts and products


def _broadcast_like(o: Operator) -> str:
    if o.setting("lhs_axes") or o.setting("rhs_axes"):
        o.refuse("its settings lhs_axes and rhs_axes are not supported")
    return o.emit("Expand", o.input(0), o.emit("Shape", o.input(1), part="shape"))


def _broadcast_to(o: Operator) -> str:
    o.skip("shape", "axis", "size")
    before, after = o.shapes[0], o.output_shapes[0]
    if any(a is None is not b for b, a in zip(before, after)):
        o.refuse("it repeats along the batch")
    sizes = np.int64([a or 1 for a in after])  # 1 keeps the size
    return o.emit("Expand", o.input(), o.constant("shape", sizes))


def _all(value: float, o: Operator) -> str:
    """Return an array of one value in the shape of the input."""
    return o.emit("Expand", o.graph.number(value), o.emit("Shape", o.input(), part="shape"))


def _product(o: Operator) -> str:
    """``batch_dot``, or a ``dot`` that is a product of matrices; either input may be transposed."""
    pair, ranks = o.inputs, [len(shape) for shape in o.shapes]
    swapped = [o.setting(name, False) for name in ("transpose_a", "transpose_b")]
    o.skip("forward_stype")
    if o.node.op == "dot" and (ranks[1] != 2 or (swapped[0] and ranks[0] != 2)):
        o.refuse("it is not a product of matrices")
    for index, rank in enumerate(ranks):
        if swapped[index]:
            perm = [*range(rank - 2), rank - 1, rank - 2]
            pair[index] = o.emit("Transpose", pair[index], part=f"swapped{index}", perm=perm)
    return o.emit("MatMul", *pair)


OPERATORS: dict[str, Converter] = {
    **LAYERS,
    "Activation": _activation,
    "BlockGrad": _identity,
    "Cast": _cast,
    "Concat": _concat,
    "Dropout": _dropout,
    "Flatten": _flatten,
    HARD_SWISH: _hard_swish,
    "LeakyReLU": _leaky,
    "Pad": _pad,
    "Reshape": _reshape("shape", "reverse"),
    "SliceChannel": _split,
    "SwapAxis": _swap_axes,
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
