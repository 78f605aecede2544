"""Layouts: the names of a network's parameters in six kinds of files.

All have the same arrays in the same order, so a conversion only renames them:

- ``ours``: attribute paths of this package's net;
- ``released``: the authors' ``models/asymmnet.py``;
- ``published``: their checkpoint, which their own code cannot load (and GluonCV's MobileNetV3);
- ``torch``: a state_dict of their PyTorch port, whose classifier is a Linear layer;
- ``torch-ours``: a state_dict of :mod:`gluon_asymmnet.torch`, ours but for the norms' names;
- ``exported``: ours with underscores, as arguments of an exported symbol.
"""

from collections.abc import Mapping
from typing import NamedTuple

from gluon_asymmnet.arch import ConvLayer, NetPlan, conv_layers


class Entry(NamedTuple):
    """One array of a network."""

    name: str
    shape: tuple[int, ...]


class _Layout(NamedTuple):
    """Paths of a network's modules.

    ``{i3}`` is the index of the block plus 3, ``{n3}`` the number of blocks plus 3.
    """

    stem: tuple[str, str]  # convolution, normalisation
    block: str
    children: dict[str, str]  # our name of a block's child -> its name in this layout
    conv_norm: tuple[str, str]  # convolution and normalisation inside a block's child
    squeeze: tuple[str, str]
    hidden: str
    output: str
    norm_names: tuple[str, ...]
    linear_output: bool = False  # the classifier's weight has two dimensions


_GLUON_NORM = ("gamma", "beta", "running_mean", "running_var")
_TORCH_NORM = ("weight", "bias", "running_mean", "running_var")
_RELEASED = _Layout(
    stem=("features.0", "features.1"),
    block="features.{i3}",
    children={
        "expand": "expand",
        "depthwise": "dw_conv",
        "se.reduce": "se.conv1",
        "se.restore": "se.conv2",
        "project": "pw_conv_linear",
    },
    conv_norm=("conv", "bn"),
    squeeze=("features.{n3}", "features.{n4}"),
    hidden="features.{n7}",
    output="output.0",
    norm_names=_GLUON_NORM,
)
_OURS = _Layout(
    stem=("features.stem.conv", "features.stem.norm"),
    block="features.blocks.{i}",
    children={name: name for name in _RELEASED.children},
    conv_norm=("conv", "norm"),
    squeeze=("features.squeeze.conv", "features.squeeze.norm"),
    hidden="features.hidden",
    output="output",
    norm_names=_GLUON_NORM,
)
_LAYOUTS = {
    "ours": _OURS,
    "released": _RELEASED,
    "published": _RELEASED._replace(
        children={**_RELEASED.children, "depthwise": "conv1", "project": "conv2"}
    ),
    "torch": _RELEASED._replace(
        stem=("first_block.0", "first_block.1"),
        block="asymm_block.{i}",
        children={**_RELEASED.children, "se.reduce": "se.out.0", "se.restore": "se.out.2"},
        squeeze=("last_block.0", "last_block.1"),
        hidden="last_block.4",
        output="output",
        norm_names=_TORCH_NORM,
        linear_output=True,
    ),
    "torch-ours": _OURS._replace(norm_names=_TORCH_NORM),
}
LAYOUTS = tuple(_LAYOUTS)


class Format(NamedTuple):
    """A kind of file with a layout of names."""

    container: str  # "params", "state_dict", "safetensors" or "npz"
    layout: str


FORMATS = {
    "ours": Format("params", "ours"),
    "released": Format("params", "released"),
    "published": Format("params", "published"),
    "torch": Format("state_dict", "torch"),
    "torch-ours": Format("state_dict", "torch-ours"),
    "safetensors": Format("safetensors", "ours"),
    "npz": Format("npz", "ours"),
}
_SHOWN = 4  # names listed of each kind of difference


def entries(plan: NetPlan, classes: int = 1000, layout: str = "ours") -> list[Entry]:
    """Return the arrays of a network in file order, with the names of ``layout``."""
    table, count = _LAYOUTS[layout], len(plan.blocks)
    return [e for layer in conv_layers(plan, classes) for e in _layer_entries(table, layer, count)]


def exported_names(prefix: str, plan: NetPlan, classes: int = 1000) -> list[str]:
    """Return the argument names of an exported symbol in the same order."""
    return [prefix + e.name.replace(".", "_") for e in entries(plan, classes)]


def differences(expected: Mapping[str, tuple], found: Mapping[str, tuple]) -> str:
    """Describe how a file's shapes differ from a net's; an empty text if they are equal.

    Args:
        expected, found: shapes by name, of the net and of the file.
    """
    kinds = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "wrongly shaped": [
            f"{name} is {found[name]} in the file, {shape} in the net"
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ],
    }
    return "; ".join(f"{len(all_)} {kind}: {_some(all_)}" for kind, all_ in kinds.items() if all_)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _layer_entries(table: _Layout, layer: ConvLayer, blocks: int) -> list[Entry]:
    conv, norm = _modules(table, layer, blocks)
    kernel = (layer.kernel, layer.kernel)
    shape = (layer.channels, layer.in_channels // layer.groups, *kernel)
    if layer.path == "output" and table.linear_output:
        shape = shape[:2]
    found = [Entry(f"{conv}.weight", shape)]
    if layer.bias:
        found.append(Entry(f"{conv}.bias", (layer.channels,)))
    if layer.norm:
        found += [Entry(f"{norm}.{name}", (layer.channels,)) for name in table.norm_names]
    return found


def _modules(table: _Layout, layer: ConvLayer, blocks: int) -> tuple[str, str]:
    """Return the paths of the convolution and of the normalisation behind it."""
    if layer.path.startswith("features.blocks."):
        _, _, index, child = layer.path.split(".", 3)
        path = table.block.format(i=index, i3=int(index) + 3) + "." + table.children[child]
        return (f"{path}.{table.conv_norm[0]}" if layer.norm else path), (
            f"{path}.{table.conv_norm[1]}"
        )
    field = getattr(table, layer.path.rsplit(".", 1)[-1])
    conv, norm = field if isinstance(field, tuple) else (field, "")
    numbers = {"n3": blocks + 3, "n4": blocks + 4, "n7": blocks + 7}
    return conv.format(**numbers), norm.format(**numbers)
