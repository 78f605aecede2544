"""The ONNX graph of any network, operator by operator from what MXNet traces of it.

For networks that ``arch.py`` does not plan; ``onnx_graph`` has the parts, and says why mx2onnx is
no choice.  What becomes of each operator stands in ``onnx_operators`` and ``onnx_layers``.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Optional

from gluon_asymmnet.card import DETECTOR, Card
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.export.onnx.context import Operator, value_of
from gluon_asymmnet.export.onnx.detector_graph import BOXES, SCORES
from gluon_asymmnet.export.onnx.graph import OUTPUT, Graph, OnnxForm, to_model
from gluon_asymmnet.export.onnx.layers import norm_arrays
from gluon_asymmnet.export.onnx.operators import HARD_SWISH, is_hard_sigmoid, write
from gluon_asymmnet.export.onnx.trace import INPUT, VARIABLE, Shape, Trace, TracedNode, trace
from gluon_asymmnet.nn.folding import fold
from gluon_asymmnet.utils.extras import load_extra


def build_symbol_graph(net, card: Card, form: Optional[OnnxForm] = None):
    """Return the ``onnx.ModelProto`` of a network, checked by ``onnx`` itself.

    Input and output are those of ``onnx_graph.build_graph``.  Nodes have the names they have in
    MXNet.  Batch normalisation is folded, in float64, into a convolution that nothing else reads;
    else it is a node.  What is computed from parameters alone is computed here.

    Args:
        net: a HybridBlock or SymbolBlock with its parameters, ``(N, 3, S, S) -> (N, classes)``.
        card: classes, input size and preprocessing.

    Raises: InputError for a form that cannot be written, or an operator that is not known here or
        is used in a way that ONNX does not have; it names the operator and the node.
    """
    onnx, form = load_extra("onnx"), form or OnnxForm()
    form.check(onnx.IR_VERSION)
    if card.kind == DETECTOR:
        graph, shapes = walk(net, card.input_size, form, (SCORES, BOXES))
        return to_model(
            graph, {n: list(s[1:]) for n, s in zip((SCORES, BOXES), shapes)}, card, form
        )
    graph, (shape,) = walk(net, card.input_size, form)
    if shape != (None, card.classes):
        raise InputError(f"the network gives {shape}, expected logits (batch, {card.classes})")
    return to_model(graph, {OUTPUT: [card.classes]}, card, form)


def walk(
    net, input_size: int, form: OnnxForm, names: Sequence[str] = (OUTPUT,)
) -> tuple[Graph, list[Shape]]:
    """Return the graph of a network, and the shapes of its outputs, which get these names."""
    traced = trace(net, input_size, reserved=names)
    if len(traced.outputs) != len(names):
        raise InputError(f"the network gives {len(traced.outputs)} outputs, expected {len(names)}")
    join_hard_swishes(traced)
    fold_norms(traced)
    graph = Graph(form)
    tensors = {(number, 0): INPUT for number, node in enumerate(traced.nodes)
               if node.op == VARIABLE and (number, 0) not in traced.arrays}  # fmt: skip
    for number in traced.live:
        outputs = write(Operator(graph, traced, number, tensors))
        tensors.update({(number, i): name for i, name in enumerate(outputs)})
    for entry, name in zip(traced.outputs, names):
        graph.rename(tensors[entry], name)
    return graph, [traced.shapes[entry] for entry in traced.outputs]


def fold_norms(traced: Trace) -> None:
    """Make a convolution and the normalisation that alone reads it one convolution, in place."""
    readers = _readers(traced)
    for number in traced.live:
        norm = traced.nodes[number]
        source = norm.inputs[0][0] if norm.inputs else number
        conv = traced.nodes[source]
        if (norm.op, conv.op) != ("BatchNorm", "Convolution") or readers[source, 0] > 1:
            continue
        held = [traced.arrays.get(entry) for entry in conv.inputs[1:]]
        values = [traced.arrays.get(entry) for entry in norm.inputs[1:]]
        axis = value_of(norm.settings.get("axis", "1"))
        if axis != 1 or any(array is None for array in (*held, *values)):
            continue
        *values, epsilon = norm_arrays(norm.settings, values)
        weight, *bias = held
        folded = fold(weight, *values, epsilon, *bias)
        inputs = [conv.inputs[0]]
        for part, array in zip(("weight", "bias"), folded):  # they are this convolution's alone
            inputs.append((len(traced.nodes), 0))
            traced.nodes.append(TracedNode(VARIABLE, f"{conv.name}.{part}", {}, ()))
            traced.arrays[inputs[-1]] = array
        settings = {**conv.settings, "no_bias": "False"}
        traced.nodes[number] = conv._replace(settings=settings, inputs=tuple(inputs))


def join_hard_swishes(traced: Trace) -> None:
    """Make one operator of ``x * hard_sigmoid(x)``, which ``OnnxForm`` can write in three ways."""
    readers = _readers(traced)
    for number in traced.live:
        node = traced.nodes[number]
        if node.op not in ("elemwise_mul", "broadcast_mul"):
            continue
        for x, gate in (node.inputs, node.inputs[::-1]):
            gating = traced.nodes[gate[0]]
            if is_hard_sigmoid(gating) and gating.inputs == (x,) and readers[gate] == 1:
                traced.nodes[number] = node._replace(op=HARD_SWISH, settings={}, inputs=(x,))
                break


def _readers(traced: Trace) -> Counter:
    """Count how often each result is read."""
    read = [entry for number in traced.live for entry in traced.nodes[number].inputs]
    return Counter([*read, *traced.outputs])
