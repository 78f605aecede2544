"""The ONNX graph of a planned network, made from the architecture and NumPy arrays.

A classifier's; ``detector_graph`` makes a detector's of the same parts.

Not by way of mx2onnx: its files carry every weight as a graph input, which keeps runtimes from
folding anything, 46 batch normalisations, a hard-swish of four nodes, and the opset that the
installed ``onnx`` happens to have.  Needs no MXNet.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet import __version__
from gluon_asymmnet.arch import BlockPlan, ConvLayer, NetPlan, conv_layers
from gluon_asymmnet.card import Card
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.nn.folding import fold_all
from gluon_asymmnet.utils.extras import load_extra
from gluon_asymmnet.weights.layouts import differences, entries

INPUT, OUTPUT, BATCH = "data", "logits", "batch"
CARD_KEY = "card"
# Of either kind of card, under keys of their own.
_NUMBERS = ("input_size", "crop_ratio", "nms_thresh", "nms_topk", "post_nms", "least_score")
OPSETS = range(13, 18)
HARD_SWISHES = ("op", "hardsigmoid", "clip")
_HARD_SWISH_SINCE = 14  # opset that brought the HardSwish operator
_FIRST_IR = 4  # before it, weights had to be graph inputs as well


class OnnxForm(NamedTuple):
    """Which of the equivalent files to write.

    ``hard_swish``: ``op``, one HardSwish node, the default where the opset has it (14 on);
    ``hardsigmoid``, x * HardSigmoid(x), the default at 13, as fast in ONNX Runtime and slower in
    OpenVINO, which does not fuse it; ``clip``, x * Clip(x + 3, 0, 6) / 6, the pattern that
    converters for phones look for, with the gates of squeeze-and-excite in the same manner.
    """

    opset: int = 13
    ir_version: int = 8
    hard_swish: Optional[str] = None

    @property
    def chosen_hard_swish(self) -> str:
        """The form that was asked for, or the best the opset allows."""
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
        if self.ir_version not in range(_FIRST_IR, latest_ir + 1):
            raise InputError(
                f"ir_version must be {_FIRST_IR} to {latest_ir}, got {self.ir_version!r}"
            )


def build_graph(
    plan: NetPlan, arrays: Mapping[str, np.ndarray], card: Card, form: Optional[OnnxForm] = None
):
    """Return the ``onnx.ModelProto`` of a network, checked by ``onnx`` itself.

    Input ``data`` is ``(batch, 3, S, S)`` float32, normalised, S the card's ``input_size``; output
    ``logits`` is ``(batch, classes)``; ``batch`` is free.  Nodes are named after the modules of
    the Gluon net.  Batch normalisation is folded into the convolutions in float64.  The card
    stands in ``metadata_props``.

    Args:
        plan: every channel count and decision.
        arrays: the network's arrays under this package's own names, as ``compat.layouts`` lists.
        card: classes, input size and preprocessing.

    Raises:
        InputError: for group normalisation, or a form that cannot be written.
        FormatError: if arrays are missing or of another shape.
    """
    onnx, form = load_extra("onnx"), form or OnnxForm()
    form.check(onnx.IR_VERSION)
    if card.norm != "batch":
        raise InputError(
            f"only batch normalisation folds into an ONNX file, this network has {card.norm} "
            f"normalisation: export it as symbol"
        )
    check_arrays({e.name: e.shape for e in entries(plan, card.classes)}, arrays)
    graph = PlannedGraph(conv_layers(plan, card.classes), arrays, form, card.input_size)
    _trace(graph, plan)
    return to_model(graph, {OUTPUT: [card.classes]}, card, form)


def to_model(graph: "Graph", outputs: Mapping[str, list[int]], card, form: OnnxForm):
    """Return the checked ``onnx.ModelProto`` of a graph; ``outputs``: their shapes by name."""
    onnx = load_extra("onnx")
    model = _to_onnx(graph, outputs, card, form)
    set_card(model, card)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return model


def set_card(model, card) -> None:
    """Put the card into ``metadata_props``, and what runtimes need of it under keys of its own."""
    onnx = load_extra("onnx")
    metadata = {
        CARD_KEY: card.text(),
        **{name: str(getattr(card, name)) for name in _NUMBERS if hasattr(card, name)},
        "rgb_mean": ",".join(map(str, card.rgb_mean)),
        "rgb_std": ",".join(map(str, card.rgb_std)),
    }
    if card.class_names:
        metadata["class_names"] = "\n".join(card.class_names)
    onnx.helper.set_model_props(model, metadata)


def check_arrays(expected: Mapping[str, tuple], arrays: Mapping[str, np.ndarray]) -> None:
    """Raise FormatError unless the arrays have the expected names and shapes."""
    problems = differences(expected, {name: array.shape for name, array in arrays.items()})
    if problems:
        raise FormatError(f"the arrays do not fit the network: {problems}")


# ------------------------------------------------------------------------------ the network


def _trace(graph: "PlannedGraph", plan: NetPlan) -> None:
    """Follow the network, as ``nn/asymmnet.py`` does."""
    *_, x = trace_blocks(graph, "features", plan.blocks)
    x = graph.conv("features.squeeze", x, "hard_swish")
    x = graph.node("GlobalAveragePool", [x], "features.mean")
    x = graph.conv("features.hidden", x)
    x = graph.activation("hard_swish", x, "features.hidden_act")
    graph.node("Flatten", [graph.conv("output", x)], OUTPUT, axis=1)


def trace_blocks(graph: "PlannedGraph", path: str, blocks: Sequence[BlockPlan]) -> list[str]:
    """Follow stem and blocks of a network; return the map of every block."""
    x, maps = graph.conv(f"{path}.stem", INPUT, "hard_swish"), []
    for index, block in enumerate(blocks):
        x = _block(graph, f"{path}.blocks.{index}", block, x)
        maps.append(x)
    return maps


def _block(graph: "PlannedGraph", path: str, block: BlockPlan, x: str) -> str:
    """One bottleneck, as ``nn/bottlenecks.py`` does it."""
    y = graph.conv(f"{path}.expand", x, block.act) if block.expand_channels else x
    if block.rate:
        copies = [x] * block.rate
        y = graph.node("Concat", [*copies, y, *copies], f"{path}.join", axis=1)
    if block.shuffle_groups:
        y = graph.shuffle(f"{path}.shuffle", y, block.depthwise_channels, block.shuffle_groups)
    y = graph.conv(f"{path}.depthwise", y, block.act)
    if block.se_hidden:
        y = _squeeze_excite(graph, f"{path}.se", y)
    y = graph.conv(f"{path}.project", y)
    return graph.node("Add", [x, y], f"{path}.add") if block.shortcut else y


def _squeeze_excite(graph: "PlannedGraph", path: str, x: str) -> str:
    gate = graph.node("GlobalAveragePool", [x], f"{path}.mean")
    gate = graph.activation("relu", graph.conv(f"{path}.reduce", gate), f"{path}.relu")
    gate = graph.activation("hard_sigmoid", graph.conv(f"{path}.restore", gate), f"{path}.gate")
    return graph.node("Mul", [x, gate], f"{path}.scale")


# ------------------------------------------------------------------------------ nodes


class _Node(NamedTuple):
    op: str
    inputs: list[str]
    outputs: list[str]
    name: str
    attributes: dict


class Graph:
    """Nodes in order and weights by name, not yet in ONNX's own classes."""

    def __init__(self, form: OnnxForm):
        self._hard_swish = form.chosen_hard_swish
        self.nodes: list[_Node] = []
        self.weights: dict[str, np.ndarray] = {}

    def node(self, op: str, inputs: list[str], name: str, **attributes) -> str:
        """Add a node and return its output, which has its name."""
        self.nodes.append(_Node(op, inputs, [name], name, attributes))
        return name

    def split(self, x: str, sizes: Sequence[int], name: str, axis: int) -> list[str]:
        """Add a Split and return its outputs."""
        outputs = [f"{name}.{i}" for i in range(len(sizes))]
        inputs = [x, self.constant(f"{name}.sizes", np.int64(sizes))]
        self.nodes.append(_Node("Split", inputs, outputs, name, {"axis": axis}))
        return outputs

    def rename(self, tensor: str, name: str) -> None:
        """Give a tensor, and the node of which it is the only output, another name."""
        for i, node in enumerate(self.nodes):
            node_name = name if node.outputs == [tensor] else node.name
            inputs, outputs = (
                [name if n == tensor else n for n in names] for names in (node.inputs, node.outputs)
            )
            self.nodes[i] = node._replace(inputs=inputs, outputs=outputs, name=node_name)

    def constant(self, name: str, value) -> str:
        """Add an array unless it is there, and return its name."""
        self.weights.setdefault(name, value)
        return name

    def activation(self, kind: str, x: str, name: str) -> str:
        """Add ``relu``, ``hard_sigmoid`` or ``hard_swish`` in the form that was asked for."""
        if kind == "relu":
            return self.node("Relu", [x], name)
        if self._hard_swish == "clip":
            y = self.node("Add", [x, self.number("three", 3)], f"{name}.shift")
            bounds = [self.number("zero", 0), self.number("six", 6)]
            y = self.node("Clip", [y, *bounds], f"{name}.clip")
            if kind == "hard_swish":
                y = self.node("Mul", [x, y], f"{name}.scale")
            return self.node("Div", [y, self.number("six", 6)], name)
        if kind == "hard_sigmoid":
            return self.node("HardSigmoid", [x], name, alpha=1 / 6, beta=0.5)
        if self._hard_swish == "op":
            return self.node("HardSwish", [x], name)
        gate = self.node("HardSigmoid", [x], f"{name}.gate", alpha=1 / 6, beta=0.5)
        return self.node("Mul", [x, gate], name)

    def number(self, name: str, value: float) -> str:
        """Add a scalar unless it is there, and return its name."""
        return self.constant(name, np.float32(value).reshape(()))


class PlannedGraph(Graph):
    """The graph of a network whose convolutions ``arch.py`` lists."""

    def __init__(
        self, layers: Iterable[ConvLayer], arrays: Mapping[str, np.ndarray], form: OnnxForm,
        input_size: int,
    ):  # fmt: skip
        super().__init__(form)
        self._layers = {layer.path: layer for layer in layers}
        self._arrays = fold_all(arrays)
        self._size = input_size  # side of the map made last, pixels

    def conv(self, path: str, x: str, act: Optional[str] = None) -> str:
        """Add the convolution at ``path`` with what normalises and activates its result."""
        layer = self._layers[path]
        name = f"{path}.conv" if layer.norm else path
        held = [n for n in (f"{name}.weight", f"{name}.bias") if n in self._arrays]
        inputs = [x, *(self.constant(n, self._arrays[n].astype(np.float32)) for n in held)]
        kernel, stride = layer.kernel, layer.stride
        self._size = -(-self._size // stride)
        y = self.node(
            "Conv", inputs, name, kernel_shape=[kernel] * 2, strides=[stride] * 2,
            pads=[kernel // 2] * 4, group=layer.groups,
        )  # fmt: skip
        return self.activation(act, y, f"{path}.act") if act else y

    def shuffle(self, name: str, x: str, channels: int, groups: int) -> str:
        """Add a channel shuffle.  In a Reshape, 0 keeps the batch."""
        apart = np.int64([0, groups, channels // groups, self._size**2])
        together = np.int64([0, channels, self._size, self._size])
        y = self.node("Reshape", [x, self.constant(f"{name}.apart", apart)], f"{name}.split")
        y = self.node("Transpose", [y], f"{name}.deal", perm=[0, 2, 1, 3])
        return self.node("Reshape", [y, self.constant(f"{name}.together", together)], name)


def _to_onnx(graph: Graph, outputs: Mapping[str, list[int]], card, form: OnnxForm):
    onnx = load_extra("onnx")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    shape = [BATCH, 3, card.input_size, card.input_size]
    return helper.make_model(
        helper.make_graph(
            [helper.make_node(n.op, n.inputs, n.outputs, n.name, **n.attributes)
             for n in graph.nodes],
            card.model,
            [helper.make_tensor_value_info(INPUT, float32, shape)],
            [helper.make_tensor_value_info(name, float32, [BATCH, *shape])
             for name, shape in outputs.items()],
            [onnx.numpy_helper.from_array(w, name) for name, w in graph.weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", form.opset)],
        ir_version=form.ir_version,
        producer_name="gluon_asymmnet",
        producer_version=__version__,
    )  # fmt: skip
