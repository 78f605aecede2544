"""Export as ONNX, compared with the network through ONNX Runtime and OpenCV.

Not by way of mx2onnx: its files carry every weight as a graph input, which keeps runtimes from
folding constants, every batch normalisation, a hard-swish of four nodes, and the opset that the
installed ``onnx`` happens to have.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet import __version__
from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import DETECTOR
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.export.folder import AnyParity, export_folder, with_costs
from gluon_asymmnet.export.onnx.graph import Graph, Operator
from gluon_asymmnet.export.onnx.joins import BEHIND, JOINS, move_joins
from gluon_asymmnet.export.onnx.operators import convert
from gluon_asymmnet.export.onnx.trace import (
    INPUT,
    VARIABLE,
    fold_norms,
    fuse_hard_sigmoid,
    fuse_hard_swish,
    trace,
)
from gluon_asymmnet.export.parity import DETECTOR_LIMIT, require
from gluon_asymmnet.predict.engines import OnnxRuntime, OpenCv
from gluon_asymmnet.saved import Saved
from gluon_asymmnet.utils.extras import load_extra

LIMIT = 1e-4  # relative: other kernels, and batch normalisation is folded
LOGITS, SCORES, BOXES = "logits", "scores", "boxes"  # names of outputs
CARD_KEY = "card"
OPSETS = range(13, 18)
HARD_SWISHES = ("op", "hardsigmoid", "clip")
_BATCH = "batch"  # name of the free axis
# Of either kind of card, under keys of their own.
_NUMBERS = ("input_size", "crop_ratio", "nms_thresh", "nms_topk", "post_nms", "least_score")
_HARD_SWISH_SINCE = 14  # the opset that introduced the HardSwish operator
_FIRST_IR = 4  # before it, weights had to be graph inputs as well


class OnnxForm(NamedTuple):
    """Which of the equivalent ONNX files to write.

    ``hard_swish``: ``op``, one HardSwish node, the default from opset 14 on; ``hardsigmoid``,
    x * HardSigmoid(x), the default at 13, as fast in ONNX Runtime and slower in OpenVINO, which
    does not fuse it; ``clip``, x * Clip(x + 3, 0, 6) / 6, the pattern that converters for phones
    look for, with the gates of squeeze-and-excite written the same way.

    ``joins``: where asymmetrical bottlenecks join their parts, see ``joins.py``.
    """

    opset: int = 13
    ir_version: int = 8
    hard_swish: Optional[str] = None
    joins: str = BEHIND

    @property
    def chosen_hard_swish(self) -> str:
        """The form that was asked for, or the best that the opset has."""
        if self.hard_swish is not None:
            return self.hard_swish
        return "op" if self.opset >= _HARD_SWISH_SINCE else "hardsigmoid"

    def check(self, latest_ir: int) -> None:
        """Raise InputError for a form that cannot be written."""
        if self.opset not in OPSETS:
            raise InputError(
                f"opset must be {OPSETS.start} to {OPSETS.stop - 1}, got {self.opset!r}"
            )
        if self.chosen_hard_swish not in HARD_SWISHES:
            raise InputError(
                f"hard_swish must be one of {', '.join(HARD_SWISHES)}, got {self.hard_swish!r}"
            )
        if self.hard_swish == "op" and self.opset < _HARD_SWISH_SINCE:
            raise InputError(
                f"the HardSwish operator came with opset {_HARD_SWISH_SINCE}, the opset asked for "
                f"is {self.opset}: raise it, or take hard_swish 'hardsigmoid' or 'clip'"
            )
        if self.joins not in JOINS:
            raise InputError(f"joins must be one of {', '.join(JOINS)}, got {self.joins!r}")
        if self.ir_version not in range(_FIRST_IR, latest_ir + 1):
            raise InputError(
                f"ir_version must be {_FIRST_IR} to {latest_ir}, got {self.ir_version!r}"
            )


def export_onnx(
    model: Saved,
    out,
    *,
    opset: int = 13,
    ir_version: int = 8,
    hard_swish: Optional[str] = None,
    joins: str = BEHIND,
    images: Optional[np.ndarray] = None,
) -> Path:
    """Write ``out/<variant>.onnx`` and ``card.json``, all or nothing.

    The file takes any batch size and carries the card in its metadata, so it can travel alone.

    Args:
        model: a classifier, or the exported symbol of one; or a detector.
        out: a folder that does not exist yet.
        opset: 13 to 17.
        ir_version: of the file format; 8 is read by every runtime since 2021.
        hard_swish: ``op`` (opset 14 on), ``hardsigmoid`` or ``clip``; the best by default.
        joins: ``before`` the depthwise convolutions, as in the network, ``behind`` them, or
            ``apart``, the fastest for large batches.
        images: ``(n, 3, S, S)`` float32 to compare on; synthetic by default.

    Raises:
        InputError: if ``out`` exists, onnx or onnxruntime is missing, the form cannot be written,
            or the network has an operator that ONNX lacks, such as group normalisation.
        RunError: if the logits of ONNX Runtime or OpenCV differ by more than 1e-4 of the largest; a
            detector's scores by 1e-3, or boxes by 1e-3 of the input's side.
    """
    form = OnnxForm(opset, ir_version, hard_swish, joins)
    return export_folder(model, out, [functools.partial(write_onnx, form=form)], images)


def write_onnx(
    model: Saved, folder: Path, images: np.ndarray, form: Optional[OnnxForm] = None
) -> dict[str, AnyParity]:
    """Write the ONNX file into ``folder``; raise RunError if it differs from the network.

    ONNX Runtime and OpenCV run it.  OpenCV lacks some operators: if it cannot run the file, the
    parity has no ``opencv``.
    """
    onnx = load_extra("onnx")
    load_extra("onnxruntime")
    proto = to_onnx(model, form)
    path = folder / f"{model.card.id}.onnx"
    onnx.save(proto, path)
    expected, limit = model.outputs_before_nms(images), limit_of(model)
    run = OnnxRuntime(path).run
    parity = {"onnxruntime": require("the ONNX file", expected, run, images, limit)}
    by_opencv = _opencv_outputs(path, images)
    if by_opencv is not None:
        parity["opencv"] = require(
            "the ONNX file in OpenCV", expected, lambda _: by_opencv, images, limit
        )
    set_card(proto, with_costs(model.card, parity, len(images)))
    onnx.save(proto, path)
    return parity


def _opencv_outputs(path: Path, images: np.ndarray) -> Optional[list[np.ndarray]]:
    """Return the outputs that OpenCV computes, or None if it cannot run the file."""
    try:
        return OpenCv(path).run(images)
    except (FormatError, RunError):
        return None


def limit_of(model: Saved) -> float:
    """Return the largest difference allowed between a network and its ONNX or OpenVINO file."""
    return DETECTOR_LIMIT if model.card.kind == DETECTOR else LIMIT


def to_onnx(model: Saved, form: Optional[OnnxForm] = None):
    """Return the ``onnx.ModelProto`` of a network, its card without parity.

    A detector's has two outputs, for A anchors: ``scores`` ``(batch, A, classes)``, without the
    background, so that column k belongs to ``class_names[k]``; ``boxes`` ``(batch, A, 4)``, corners
    (xmin, ymin, xmax, ymax) in pixels of the input, not clipped.  Suppression stays outside: ONNX's
    operator for it gives indices in an order of its own, with a dynamic shape, and has no limit
    over all classes together, so that engines would differ.
    """
    card = with_costs(model.card)
    if card.kind != DETECTOR:
        return build_model(model.net, [LOGITS], card, form)
    if isinstance(model.net, mx.gluon.SymbolBlock):
        raise InputError(
            f"{model.weights.parent} is an exported symbol, with the suppression inside: export "
            f"the run it came from"
        )
    return build_model(model.net.raw(), [SCORES, BOXES], card, form)


def build_model(net, outputs: Sequence[str], card, form: Optional[OnnxForm] = None):
    """Return the ``onnx.ModelProto`` of a network, checked by ``onnx`` itself.

    Input ``data`` is ``(batch, 3, S, S)`` float32, normalised, S the card's ``input_size``;
    ``batch`` is free.  Nodes have their names in MXNet.  The card is in ``metadata_props``.

    Args:
        net: a HybridBlock or SymbolBlock with its parameters.
        outputs: their names; the only output of a classifier is ``logits``, ``(batch, classes)``.
        card: classes, input size and preprocessing.

    Raises: InputError for a form that cannot be written, for other outputs, or for an operator that
        is unknown here or is used in a way that ONNX lacks; it names the operator and the node.
    """
    onnx, form = load_extra("onnx"), form or OnnxForm()
    form.check(onnx.IR_VERSION)
    graph = build_graph(net, outputs, card.input_size, form)
    shape = graph.outputs.get(LOGITS)
    if shape and shape != (None, card.classes):
        raise InputError(f"the network gives {shape}, expected logits (batch, {card.classes})")
    model = to_proto(graph, card, form)
    set_card(model, card)
    return model


def build_graph(net, outputs: Sequence[str], input_size: int, form: OnnxForm) -> Graph:
    """Return the graph of a network, from the operators that MXNet traces of it.

    Batch normalisation is folded, in float64, into a convolution that nothing else reads; else it
    is a node.  Results of parameters alone become weights.
    """
    traced = trace(net, input_size, reserved=outputs)
    if len(traced.outputs) != len(outputs):
        raise InputError(
            f"the network has {len(traced.outputs)} outputs, expected {', '.join(outputs)}"
        )
    fuse_hard_sigmoid(traced)
    fuse_hard_swish(traced)
    fold_norms(traced)
    graph = Graph(form.chosen_hard_swish)
    tensors = {(number, 0): INPUT for number, node in enumerate(traced.nodes)
               if node.op == VARIABLE and (number, 0) not in traced.arrays}  # fmt: skip
    for number in traced.live:
        results = convert(Operator(graph, traced, number, tensors))
        tensors.update({(number, i): name for i, name in enumerate(results)})
    move_joins(graph, {name: traced.shapes[entry] for entry, name in tensors.items()}, form.joins)
    for entry, name in zip(traced.outputs, outputs):
        graph.output(tensors[entry], name, traced.shapes[entry])
    return graph


def to_proto(graph: Graph, card, form: OnnxForm):
    """Return the checked ``onnx.ModelProto`` of a graph, without metadata."""
    onnx = load_extra("onnx")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    shapes = {INPUT: (None, 3, card.input_size, card.input_size), **graph.outputs}
    source, *results = [
        helper.make_tensor_value_info(name, float32, [size or _BATCH for size in shape])
        for name, shape in shapes.items()
    ]
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(n.op, n.inputs, n.outputs, n.name, **n.attributes)
             for n in graph.nodes],
            card.model, [source], results,
            [onnx.numpy_helper.from_array(w, name) for name, w in graph.weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", form.opset)],
        ir_version=form.ir_version,
        producer_name="gluon_asymmnet",
        producer_version=__version__,
    )  # fmt: skip
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return model


def set_card(model, card) -> None:
    """Put the card into ``metadata_props``, and its values for runtimes under their own keys."""
    onnx = load_extra("onnx")
    values = json.loads(card.text())
    metadata = {
        CARD_KEY: card.text(),
        **{name: str(values[name]) for name in _NUMBERS if name in values},
        "rgb_mean": ",".join(map(str, card.rgb_mean)),
        "rgb_std": ",".join(map(str, card.rgb_std)),
    }
    if card.class_names:
        metadata["class_names"] = "\n".join(card.class_names)
    onnx.helper.set_model_props(model, metadata)
