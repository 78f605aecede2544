"""The ONNX graph of a detector: scores and decoded boxes, without suppression.  Needs no MXNet.

Suppression stays outside: ONNX's operator for it gives indices in an order of its own, with a
dynamic shape, and takes no limit over all classes together, so that engines would differ.
"""

from collections.abc import Mapping
from typing import Optional

import numpy as np

from gluon_asymmnet.arch import ConvLayer, feature_info
from gluon_asymmnet.detector_card import DetectorCard
from gluon_asymmnet.export.onnx.graph import (
    OnnxForm,
    PlannedGraph,
    check_arrays,
    to_model,
    trace_blocks,
)
from gluon_asymmnet.models.ssd_spec import (
    MAX_LOG_SCALE,
    VARIANCES,
    DetectorSpec,
    anchors,
    backbone_blocks,
    detector_layers,
    plan_detector,
)
from gluon_asymmnet.utils.extras import load_extra

SCORES, BOXES = "scores", "boxes"
_NORM = ("gamma", "beta", "running_mean", "running_var")


def build_detector_graph(
    arrays: Mapping[str, np.ndarray], card: DetectorCard, form: Optional[OnnxForm] = None
):
    """Return the ``onnx.ModelProto`` of a detector, checked by ``onnx`` itself.

    Input ``data`` is ``(batch, 3, S, S)`` float32, normalised; ``batch`` is free.  Outputs, for A
    anchors: ``scores`` ``(batch, A, classes)``, the softmax's without the background's, so that
    column k belongs to ``class_names[k]``; ``boxes`` ``(batch, A, 4)``, corners (xmin, ymin, xmax,
    ymax) in pixels of the input, not clipped.  Else as ``onnx_graph.build_graph``.

    Args:
        arrays: the detector's arrays by their structural names; its anchors may be among them.
        card: which detector, and its classes.

    Raises:
        InputError: for a form that cannot be written.
        FormatError: if arrays are missing or of another shape.
    """
    onnx, form = load_extra("onnx"), form or OnnxForm()
    form.check(onnx.IR_VERSION)
    spec, classes = card.spec, len(card.class_names)
    layers = list(detector_layers(spec, classes))
    arrays = {name: array for name, array in arrays.items() if name != "anchors"}
    check_arrays({n: s for layer in layers for n, s in _arrays_of(layer)}, arrays)
    graph = PlannedGraph(layers, arrays, form, card.input_size)
    count = _trace(graph, spec, classes)
    return to_model(graph, {SCORES: [count, classes], BOXES: [count, 4]}, card, form)


def _arrays_of(layer: ConvLayer):
    """Yield name and shape of the arrays of a convolution."""
    name = f"{layer.path}.conv" if layer.norm else layer.path
    kernel = (layer.kernel, layer.kernel)
    yield f"{name}.weight", (layer.channels, layer.in_channels // layer.groups, *kernel)
    if layer.bias:
        yield f"{name}.bias", (layer.channels,)
    if layer.norm:
        yield from ((f"{layer.path}.norm.{part}", (layer.channels,)) for part in _NORM)


def _trace(graph: PlannedGraph, spec: DetectorSpec, classes: int) -> int:
    """Follow the detector, as ``detection/ssd.py`` does; return the number of anchors."""
    maps, boxes = _maps(graph, spec), anchors(spec)
    logits, offsets = (
        _predicted(graph, kind, spec, maps, values)
        for kind, values in (("class", classes + 1), ("box", 4))
    )
    shares = graph.node("Softmax", [logits], "class_predictors.softmax", axis=2)
    _part(graph, shares, SCORES, 1, classes + 1)
    _decode(graph, offsets, boxes)
    return len(boxes)


def _maps(graph: PlannedGraph, spec: DetectorSpec) -> list[str]:
    """All maps, finest first: those of the backbone, then the extra ones."""
    plan = spec.backbone_spec.plan()
    made = trace_blocks(graph, "features.backbone", plan.blocks[: backbone_blocks(spec)])
    if "squeeze" in spec.maps:
        made.append(graph.conv("features.backbone.squeeze", made[-1], "hard_swish"))
    at = {info.name: info.block for info in feature_info(plan)}
    maps = [made[at[name]] for name in spec.maps]
    for number in range(len(spec.extras)):
        path = f"features.extras.{number}"
        x = graph.conv(f"{path}.reduce", maps[-1], "relu")
        if spec.head == "ssdlite":
            x = graph.conv(f"{path}.depthwise", x, "relu")
        maps.append(graph.conv(f"{path}.expand", x, "relu"))
    return maps


def _predicted(
    graph: PlannedGraph, kind: str, spec: DetectorSpec, maps: list[str], values: int
) -> str:
    """What the predictors of all maps say, ``(batch, A, values)``."""
    parts = []
    for number, (x, plan) in enumerate(zip(maps, plan_detector(spec))):
        path = f"{kind}_predictors.{number}"
        if spec.head == "ssdlite":
            x = graph.conv(f"{path}.depthwise", x, "relu")
        x = graph.conv(f"{path}.conv", x)
        x = graph.node("Transpose", [x], f"{path}.transpose", perm=[0, 2, 3, 1])
        shape = np.int64([0, plan.side**2 * len(plan.boxes), values])  # 0 keeps the batch
        parts.append(
            graph.node("Reshape", [x, graph.constant(f"{path}.shape", shape)], f"{path}.rows")
        )
    return graph.node("Concat", parts, f"{kind}_predictors.concat", axis=1)


def _decode(graph: PlannedGraph, offsets: str, boxes: np.ndarray) -> None:
    """Undo ``targets.encode``; what does not depend on the picture is computed here."""
    boxes = boxes[None].astype(np.float64)
    constants = {
        "centre": boxes[..., :2],
        "shift": boxes[..., 2:] * VARIANCES[0],
        "half": boxes[..., 2:] / 2,
        "growth": np.array(VARIANCES[2]),
        "most": np.array(MAX_LOG_SCALE),
    }
    held = {n: graph.constant(f"boxes.{n}", np.float32(v)) for n, v in constants.items()}
    x = graph.node(
        "Mul", [_part(graph, offsets, "boxes.shifts", 0, 2), held["shift"]], "boxes.moved"
    )
    centre = graph.node("Add", [x, held["centre"]], "boxes.centres")
    x = graph.node(
        "Mul", [_part(graph, offsets, "boxes.growths", 2, 4), held["growth"]], "boxes.scaled"
    )
    x = graph.node("Min", [x, held["most"]], "boxes.limited")
    half = graph.node("Mul", [graph.node("Exp", [x], "boxes.grown"), held["half"]], "boxes.halves")
    corners = [
        graph.node(op, [centre, half], f"boxes.{n}") for op, n in (("Sub", "low"), ("Add", "high"))
    ]
    graph.node("Concat", corners, BOXES, axis=2)


def _part(graph: PlannedGraph, x: str, name: str, first: int, end: int) -> str:
    """Add a slice of the last of three axes."""
    bounds = [
        graph.constant(f"slice.{value}", np.int64([value]))
        for value in (first, end, 2)  # the last: the axis
    ]
    return graph.node("Slice", [x, *bounds], name)
