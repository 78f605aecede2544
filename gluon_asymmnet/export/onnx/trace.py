"""What a network computes, as a list of MXNet's operators, for exporters that write it anew."""

import json
from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError

INPUT = "data"
VARIABLE = "null"
_BATCHES = 2, 3  # shapes are inferred for both; what differs depends on the batch

Entry = tuple[int, int]  # a node's number and which of its outputs
Shape = tuple[Optional[int], ...]  # None where the batch enters


class TracedNode(NamedTuple):
    """One operator or variable."""

    op: str
    name: str  # no other node has it
    settings: dict[str, str]  # as MXNet writes them; what is at its default may be missing
    inputs: tuple[Entry, ...]


class Trace(NamedTuple):
    """A network of one input."""

    nodes: list[TracedNode]  # each after those it reads
    outputs: tuple[Entry, ...]
    shapes: dict[Entry, Shape]
    # all that does not depend on the input: parameters, and what is computed from them alone
    arrays: dict[Entry, np.ndarray]

    @property
    def live(self) -> list[int]:
        """The operators that depend on the input and that an output depends on."""
        needed, last = set(), [number for number, _ in self.outputs]
        while last:
            number = last.pop()
            if number in needed or self.nodes[number].op == VARIABLE:
                continue
            needed.add(number)
            last += [s for s, i in self.nodes[number].inputs if (s, i) not in self.arrays]
        return sorted(needed)


def trace(net, input_size: int, reserved: Sequence[str] = ()) -> Trace:
    """Trace a network for pictures of ``input_size`` pixels and a batch of any size.

    Args:
        net: a HybridBlock or SymbolBlock with its parameters.
        reserved: names that no node may have.

    Raises: InputError if the network does not take such pictures, or not in any number.
    """
    outputs = net(mx.sym.var(INPUT))
    symbol = mx.sym.Group(list(outputs)) if isinstance(outputs, (list, tuple)) else outputs
    internals = symbol.get_internals()
    described = json.loads(symbol.tojson())
    nodes, results, live = described["nodes"], _entries(described["heads"]), set()
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
        results,
        dict(zip(entries, _shapes(internals, input_size))),
        arrays,
    )


def _entries(listed: list) -> tuple[Entry, ...]:
    return tuple((number, output) for number, output, *_ in listed)


def _arrays(net, internals, nodes: list[dict], entries: list[Entry], live: set[int]) -> dict:
    """Return the parameters, and what is computed from them alone and read by the rest."""
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
