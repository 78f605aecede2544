"""The graph of operators that MXNet traces of a network, and its simplifications for export."""

import ast
import json
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.nn.folding import fold

INPUT = "data"
VARIABLE = "null"  # the operator of an input or parameter
HARD_SIGMOID = "hard_sigmoid"
HARD_SWISH = "hard_swish"  # x * hard_sigmoid(x); not an operator of MXNet
_BATCHES = 2, 3  # shapes are inferred for both; an axis that differs depends on the batch

Entry = tuple[int, int]  # a node's number, and which of its outputs
Shape = tuple[Optional[int], ...]  # None: depends on the batch


class TracedNode(NamedTuple):
    """One operator or variable."""

    op: str
    name: str  # unique in the graph
    settings: dict[str, str]  # in MXNet's notation; a setting with its default may be missing
    inputs: tuple[Entry, ...]

    def setting(self, name: str, default=None):
        """Return the value of a setting."""
        if name not in self.settings:
            return default
        text = self.settings[name]
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text

    @property
    def is_hard_sigmoid(self) -> bool:
        """Whether this is ``clip(x / 6 + 1/2, 0, 1)``, the gate of hard-swish."""
        alpha, beta = self.setting("alpha", 0.2), self.setting("beta", 0.5)
        return self.op == HARD_SIGMOID and abs(alpha - 1 / 6) < 1e-6 and beta == 0.5


class Trace(NamedTuple):
    """The graph of a network with one input."""

    nodes: list[TracedNode]  # in topological order
    outputs: tuple[Entry, ...]
    shapes: dict[Entry, Shape]
    # values that do not depend on the input: parameters, and results of parameters alone
    arrays: dict[Entry, np.ndarray]

    @property
    def live(self) -> list[int]:
        """The numbers of the operators between the input and the outputs."""
        needed, pending = set(), [number for number, _ in self.outputs]
        while pending:
            number = pending.pop()
            if number in needed or self.nodes[number].op == VARIABLE:
                continue
            needed.add(number)
            pending += [s for s, i in self.nodes[number].inputs if (s, i) not in self.arrays]
        return sorted(needed)

    def count_readers(self) -> Counter:
        """Count how often each entry is read; outputs of the network count as read."""
        read = [entry for number in self.live for entry in self.nodes[number].inputs]
        return Counter([*read, *self.outputs])


def trace(net, input_size: int, reserved: Sequence[str] = ()) -> Trace:
    """Trace a network for images of ``input_size`` pixels and any batch size.

    Args:
        net: a HybridBlock or SymbolBlock with its parameters.
        reserved: names that no node may have.

    Raises: InputError if the network does not take such images in batches of any size.
    """
    outputs = net(mx.sym.var(INPUT))
    symbol = mx.sym.Group(list(outputs)) if isinstance(outputs, (list, tuple)) else outputs
    internals = symbol.get_internals()
    content = json.loads(symbol.tojson())
    nodes, live = content["nodes"], set()
    entries = _entries(json.loads(internals.tojson())["heads"])
    for number, node in enumerate(nodes):
        node["inputs"] = _entries(node["inputs"])
        is_input = node["op"] == VARIABLE and node["name"] == INPUT
        if is_input or any(source in live for source, _ in node["inputs"]):
            live.add(number)
    arrays = _arrays(net, internals, nodes, entries, live)
    _make_unique(nodes, reserved)
    return Trace(
        [TracedNode(n["op"], n["name"], n.get("attrs", {}), n["inputs"]) for n in nodes],
        _entries(content["heads"]),
        dict(zip(entries, _shapes(internals, input_size))),
        arrays,
    )


def _entries(listed: list) -> tuple[Entry, ...]:
    return tuple((number, output) for number, output, *_ in listed)


def _arrays(net, internals, nodes: list[dict], entries: list[Entry], live: set[int]) -> dict:
    """Return the parameters, and the results of parameters alone that live nodes read."""
    params = {param.name: param.data() for param in net.collect_params().values()}
    arrays = {
        (number, 0): params[node["name"]].asnumpy()
        for number, node in enumerate(nodes)
        if node["op"] == VARIABLE and number not in live
    }
    read = {entry for number in live for entry in nodes[number]["inputs"]}
    computed = sorted(entry for entry in read if entry[0] not in live and entry not in arrays)
    if computed:
        group = mx.sym.Group([internals[entries.index(entry)] for entry in computed])
        used = {n: params[n].copyto(mx.cpu()) for n in group.list_inputs()}
        running = {n: used.pop(n) for n in group.list_auxiliary_states()}
        values = group.bind(mx.cpu(), used, aux_states=running).forward()
        arrays.update((entry, value.asnumpy()) for entry, value in zip(computed, values))
    return arrays


def _shapes(internals, input_size: int) -> list[Shape]:
    found = []
    for batch in _BATCHES:
        shape = (batch, 3, input_size, input_size)
        try:
            found.append(internals.infer_shape(**{INPUT: shape})[1])
        except mx.base.MXNetError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"the network does not take images {shape}: {reason}") from None
    return [tuple(a if a == b else None for a, b in zip(*pair)) for pair in zip(*found)]


def _make_unique(nodes: list[dict], reserved: Sequence[str]) -> None:
    """Number the names of blocks that are called more than once."""
    taken = set(reserved)
    for node in nodes:
        name, count = node["name"], 1
        while node["name"] in taken:
            count += 1
            node["name"] = f"{name}_{count}"
        taken.add(node["name"])


# ------------------------------------------------------------------------------ simplifications


def fold_norms(traced: Trace) -> None:
    """Fold each BatchNorm, in place, into the convolution before it if it is the only reader."""
    readers = traced.count_readers()
    for number in traced.live:
        norm = traced.nodes[number]
        source = norm.inputs[0][0] if norm.inputs else number
        conv = traced.nodes[source]
        if (norm.op, conv.op) != ("BatchNorm", "Convolution") or readers[source, 0] > 1:
            continue
        conv_arrays = [traced.arrays.get(entry) for entry in conv.inputs[1:]]
        norm_arrays = [traced.arrays.get(entry) for entry in norm.inputs[1:]]
        if norm.setting("axis", 1) != 1 or any(a is None for a in (*conv_arrays, *norm_arrays)):
            continue
        weight, *bias = conv_arrays
        folded = fold(weight, *norm_parameters(norm, norm_arrays), *bias)
        inputs = [conv.inputs[0]]
        for part, array in zip(("weight", "bias"), folded):  # other readers keep the old arrays
            inputs.append((len(traced.nodes), 0))
            traced.nodes.append(TracedNode(VARIABLE, f"{conv.name}.{part}", {}, ()))
            traced.arrays[inputs[-1]] = array
        settings = {**conv.settings, "no_bias": "False"}
        traced.nodes[number] = conv._replace(settings=settings, inputs=tuple(inputs))


def norm_parameters(norm: TracedNode, arrays: Sequence[np.ndarray]) -> tuple:
    """Return gamma, beta, mean, variance and epsilon with which a BatchNorm computes."""
    gamma, beta, mean, variance = arrays
    if norm.setting("fix_gamma", True):
        gamma = np.ones_like(gamma)
    return gamma, beta, mean, variance, float(norm.setting("eps", 1e-3))


_CLIPPED = (  # clip(x + 3, 0, 6) / 6, from the last operator to the first
    ("_div_scalar", {"scalar": 6}),
    ("clip", {"a_min": 0, "a_max": 6}),
    ("_plus_scalar", {"scalar": 3}),
)


def fuse_hard_sigmoid(traced: Trace) -> None:
    """Replace each ``clip(x + 3, 0, 6) / 6``, in place, by one ``HARD_SIGMOID`` operator."""
    readers = traced.count_readers()
    for number in traced.live:
        entry, node = (number, 0), traced.nodes[number]
        for op, settings in _CLIPPED:
            part = traced.nodes[entry[0]]
            alone = entry[0] == number or readers[entry] == 1
            if part.op != op or not alone or any(
                float(part.setting(name)) != value for name, value in settings.items()
            ):  # fmt: skip
                break
            entry = part.inputs[0]
        else:
            settings = {"alpha": repr(1 / 6), "beta": "0.5"}
            traced.nodes[number] = node._replace(
                op=HARD_SIGMOID, settings=settings, inputs=(entry,)
            )


def fuse_hard_swish(traced: Trace) -> None:
    """Replace each ``x * hard_sigmoid(x)``, in place, by one ``HARD_SWISH`` operator."""
    readers = traced.count_readers()
    for number in traced.live:
        node = traced.nodes[number]
        if node.op not in ("elemwise_mul", "broadcast_mul"):
            continue
        for x, gate in (node.inputs, node.inputs[::-1]):
            source = traced.nodes[gate[0]]
            if source.is_hard_sigmoid and source.inputs == (x,) and readers[gate] == 1:
                traced.nodes[number] = node._replace(op=HARD_SWISH, settings={}, inputs=(x,))
                break
