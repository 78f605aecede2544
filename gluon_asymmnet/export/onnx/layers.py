"""Converters of layers, opsets 13 to 17: convolution, normalisation, pooling, resizing."""

import numpy as np

from gluon_asymmnet.export.onnx.graph import Converter, Operator
from gluon_asymmnet.export.onnx.trace import Shape, norm_parameters

_LAYOUTS = (None, "NCW", "NCHW")


def _convolution(o: Operator) -> str:
    kernel = o.setting("kernel")
    _check_layout(o)
    o.skip("no_bias")  # seen from the number of inputs
    ones, pad = (1,) * len(kernel), o.setting("pad") or (0,) * len(kernel)
    stride, dilation = o.setting("stride") or ones, o.setting("dilate") or ones
    if kernel != ones and o.shapes[0][2:] == o.output_shapes[0][2:] == dilation == ones:
        # A single tap meets the only pixel.  OpenCV 4.9 misreads such a depthwise convolution.
        tap = o.array(1)[(..., *(slice(p, p + 1) for p in pad))]
        weight = o.constant("tap", np.float32(tap))
        kernel, stride, pad = ones, ones, (0,) * len(ones)
    else:
        weight = o.input(1)
    bias = [o.input(i) for i in range(2, len(o.node.inputs))]
    return o.emit(
        "Conv", o.input(), weight, *bias, kernel_shape=kernel, strides=stride, dilations=dilation,
        pads=[*pad, *pad], group=o.setting("num_group", 1),
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
    gamma, *_, epsilon = norm_parameters(o.node, [o.array(i) for i in range(1, 5)])
    o.skip("eps", "fix_gamma")
    scale = o.constant("gamma", gamma)  # not o.input(1): fix_gamma may replace it by 1
    return o.emit(
        "BatchNormalization", o.input(), scale, *(o.input(i) for i in (2, 3, 4)), epsilon=epsilon
    )


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
    axes = list(zip(_sides(o, o.shapes[0]), _sides(o, o.output_shapes[0]), kernel, stride, pad))
    # Pixels of the last window beyond the padded map; some with "full", which rounds up.
    # Not ONNX's ceil_mode: its divisor there has changed from version to version.
    beyond = [max(0, (n - 1) * s + k - (side + 2 * p)) for side, n, k, s, p in axes]
    if any(b >= k for b, k in zip(beyond, kernel)):
        o.refuse("a window of it covers nothing but padding")
    pads = [*pad, *(p + b for p, b in zip(pad, beyond))]
    settings = {"kernel_shape": kernel, "strides": stride, "pads": pads}
    if kind == "max":
        return o.emit(op, o.input(), **settings)
    # MXNet counts the pixels of the padding, not those beyond.  Not by ONNX's count_include_pad,
    # which would count both, and which OpenCV does not read.
    if not (with_padding and any(pad)):
        return o.emit(op, o.input(), **settings)
    y = o.emit(op, o.input(), **settings, part="pool")
    return o.emit("Mul", y, o.constant("correction", _correction(o, axes)))


def _correction(o: Operator, axes) -> np.ndarray:
    """Return each window's share of the map in what MXNet counts, ``(1, 1, rows, columns)``.

    Args:
        axes: for each, the map's side, the number of windows, kernel, stride and padding.
    """
    shares = []
    for side, n, k, s, p in axes:
        first = np.arange(n) * s  # of each window, in the padded map
        counted = np.minimum(first + k, side + 2 * p) - first
        inside = np.minimum(first + k, p + side) - np.maximum(first, p)
        if inside.min() <= 0:
            o.refuse("a window of it covers nothing but padding")
        shares.append(np.float32(inside / counted))
    return np.multiply.outer(*shares)[np.newaxis, np.newaxis]


def _sides(o: Operator, shape: Shape) -> Shape:
    if None in shape[1:]:
        o.refuse("the size of its map depends on the batch")
    return shape[2:]


def _adaptive_pooling(o: Operator) -> str:
    o.skip("output_size")
    before, after = _sides(o, o.shapes[0]), _sides(o, o.output_shapes[0])
    if after == (1, 1):
        return o.emit("GlobalAveragePool", o.input())
    if any(b % a for b, a in zip(before, after)):
        o.refuse(f"{before} does not divide into {after} windows")
    windows = [b // a for b, a in zip(before, after)]
    return o.emit("AveragePool", o.input(), kernel_shape=windows, strides=windows)


def _nearest(o: Operator) -> str:
    if o.setting("sample_type") != "nearest" or len(o.shapes) != 1:
        o.refuse("only nearest-neighbour upsampling of one map is supported")
    scale = o.setting("scale")
    scales = o.constant("scales", np.float32([1, 1, scale, scale]))
    return o.emit("Resize", o.input(), "", scales, mode="nearest", nearest_mode="floor",
                  coordinate_transformation_mode="asymmetric")  # fmt: skip


def _bilinear(o: Operator) -> str:
    o.skip("height", "width", "scale_height", "scale_width", "mode")
    sides = o.constant("sides", np.int64(_sides(o, o.output_shapes[0])))
    bounds = (o.constant(n, np.int64([v])) for n, v in (("begin", 0), ("end", 2)))
    batch = o.emit("Slice", o.emit("Shape", o.input(), part="shape"), *bounds, part="batch")
    sizes = o.emit("Concat", batch, sides, part="sizes", axis=0)
    corners = "align_corners" if o.setting("align_corners", True) else "half_pixel"
    return o.emit("Resize", o.input(), "", "", sizes, mode="linear",
                  coordinate_transformation_mode=corners)  # fmt: skip


LAYERS: dict[str, Converter] = {
    "BatchNorm": _batch_norm,
    "Convolution": _convolution,
    "FullyConnected": _fully_connected,
    "Pooling": _pooling,
    "UpSampling": _nearest,
    "_contrib_AdaptiveAvgPooling2D": _adaptive_pooling,
    "_contrib_BilinearResize2D": _bilinear,
}
