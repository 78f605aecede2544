"""Find the regular convolutions of a Gluon net, and replace them by factored ones."""

import json
from collections.abc import Mapping
from typing import NamedTuple, Optional

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError

nn = mx.gluon.nn

ALL = "*"  # in place of a path: all layers of ``worthwhile``


class Layer(NamedTuple):
    """A regular k x k convolution, and the layers that read it and nothing else."""

    path: str  # as in ``net._collect_params_with_prefix``, without the parameter
    reads_image: bool
    norm: Optional[str] = None  # path of the batch normalisation behind it
    relu: bool = False  # whether a ReLU follows, behind the normalisation if there is one
    pointwise: Optional[str] = None  # path of the 1 x 1 convolution behind the normalisation
    pointwise_norm: Optional[str] = None  # path of the normalisation behind that


class FactoredConv(mx.gluon.HybridBlock):
    """A k x k convolution and a 1 x 1 convolution in place of a regular one.

    Shapes: those of the convolution it replaces.

    Args:
        conv: the ``Conv2D`` it replaces: window, channels and activation are taken from it.
        maps: channels between the two.
        groups: of the first: its input channels, or 1.
        bias: whether the second has one.
    """

    def __init__(self, conv, maps: int, groups: int, bias: bool):
        super().__init__(prefix=conv.prefix)
        with self.name_scope():
            self.spatial = _spatial(conv, maps, groups, prefix="spatial_")
            self.pointwise = nn.Conv2D(
                conv._channels, 1, use_bias=bias, in_channels=maps, prefix="pointwise_"
            )
            self.act = conv.act

    def hybrid_forward(self, F, x):
        """See the class."""
        x = self.pointwise(self.spatial(x))
        return x if self.act is None else self.act(x)


def _spatial(conv, maps: int, groups: int, prefix: str):
    """Return a convolution with the kernel, stride, padding and dilation of another, no bias."""
    settings = conv._kwargs
    return nn.Conv2D(
        maps, settings["kernel"], settings["stride"], settings["pad"], settings["dilate"],
        groups=groups, use_bias=False, in_channels=conv.weight.shape[1], prefix=prefix,
    )  # fmt: skip


def block_at(net, path: str):
    """Return the block at a path such as ``features.3.0.right.1.conv``; None if there is none."""
    for name in path.split("."):
        if net is not None:
            net = net._children.get(name)
    return net


def find_layers(net) -> list[Layer]:
    """Return the regular convolutions with a kernel above 1 x 1, from input to output.

    Convolutions that are used at several places are left out.
    """
    symbol = net(mx.sym.var("data"))
    graph = json.loads(symbol.tojson())
    nodes = graph["nodes"]
    paths = {p.name: n.rpartition(".")[0] for n, p in net._collect_params_with_prefix().items()}
    readers: list[list[int]] = [[] for _ in nodes]
    for index, node in enumerate(nodes):
        for source, *_ in node["inputs"]:
            readers[source].append(index)
    for index, *_ in graph["heads"]:
        readers[index].append(-1)

    def behind(index: Optional[int], op: str) -> Optional[int]:
        """The node that alone reads another, if it is of this kind."""
        if index is None or len(readers[index]) != 1 or readers[index][0] < 0:
            return None
        reader = readers[index][0]
        return reader if nodes[reader]["op"] == op else None

    def path_at(index: Optional[int]) -> Optional[str]:
        return None if index is None else paths.get(nodes[nodes[index]["inputs"][1][0]]["name"])

    found = []
    for index, node in enumerate(nodes):
        if node["op"] != "Convolution" or not _is_regular(block_at(net, path_at(index) or "")):
            continue
        if len(readers[node["inputs"][1][0]]) > 1:
            continue
        norm = behind(index, "BatchNorm")
        act = behind(index if norm is None else norm, "Activation")
        pointwise = behind(norm, "Convolution")
        if pointwise is not None and not _is_pointwise(block_at(net, path_at(pointwise) or "")):
            pointwise = None
        found.append(
            Layer(
                path_at(index),
                reads_image=nodes[node["inputs"][0][0]]["name"] == "data",
                norm=path_at(norm),
                relu=act is not None and nodes[act]["attrs"]["act_type"] == "relu",
                pointwise=path_at(pointwise),
                pointwise_norm=path_at(behind(pointwise, "BatchNorm")),
            )
        )
    return found


def worthwhile(net) -> list[Layer]:
    """Return the regular convolutions of which a depthwise form at m = 1 costs less.

    Those that read the image are left out, too: of its three channels there is little to save.
    """
    found = []
    for layer in find_layers(net):
        n, _, height, width = block_at(net, layer.path).weight.shape
        taps = height * width
        if not layer.reads_image and taps * n > taps + n:
            found.append(layer)
    return found


def _is_regular(block) -> bool:
    return isinstance(block, nn.Conv2D) and block._kwargs["num_group"] == 1 and (
        block._kwargs["kernel"] != (1, 1)
    )  # fmt: skip


def _is_pointwise(block) -> bool:
    if not isinstance(block, nn.Conv2D):
        return False
    settings = block._kwargs
    return settings["num_group"] == 1 and settings["pad"] == (0, 0) and (
        settings["kernel"] == settings["stride"] == settings["dilate"] == (1, 1)
    )  # fmt: skip


def factorize(net, layers: Mapping[str, Mapping]) -> None:
    """Replace regular convolutions of a net by factored ones, without weights.

    Args:
        layers: forms, as ``place`` takes them, by paths of convolutions; the form at ``ALL`` is
            for all layers of ``worthwhile`` that are not named.

    Raises: InputError for a path without a regular convolution, or a form that does not fit.
    """
    forms = {path: form for path, form in layers.items() if path != ALL}
    if ALL in layers:
        forms = {**{layer.path: layers[ALL] for layer in worthwhile(net)}, **forms}
    for path, form in forms.items():
        place(net, path, form)


def place(net, path: str, form: Mapping) -> None:
    """Replace a regular convolution by new ones, not initialised.

    Args:
        path: of the convolution.
        form: ``{"multiplier": m}`` for a depthwise one and a 1 x 1, or ``{"rank": d}`` for a
            regular one of d channels and a 1 x 1; with ``"bias"`` if the 1 x 1 shall have one
            (default: as the convolution it replaces).  A depthwise one whose 1 x 1 is merged into
            the one behind it has ``"norm"`` and ``"pointwise"``, the paths of the normalisation
            between and of that; ``"bias"`` is then of the latter.

    Raises: InputError if there is no such convolution, or the form does not fit it.
    """
    conv = block_at(net, path)
    if not _is_regular(conv):
        known = ", ".join(layer.path for layer in find_layers(net)) or "none"
        raise InputError(
            f"{path} is not a regular k x k convolution; those of the net are: {known}"
        )
    _check_form(net, path, form, conv)
    channels = conv.weight.shape[1]
    maps, groups = (
        (form["rank"], 1) if "rank" in form else (channels * form["multiplier"], channels)
    )
    if "norm" not in form:
        bias = form.get("bias", conv.bias is not None)
        _replace(net, path, FactoredConv(conv, maps, groups, bias))
        return
    norm, pointwise = (block_at(net, form[part]) for part in ("norm", "pointwise"))
    _replace(net, path, _spatial(conv, maps, groups, conv.prefix))
    settings = norm._kwargs
    _replace(
        net, form["norm"],
        type(norm)(
            settings["axis"], settings["momentum"], settings["eps"], in_channels=maps,
            prefix=norm.prefix,
        ),
    )  # fmt: skip
    bias = form.get("bias", pointwise.bias is not None)
    into = nn.Conv2D(
        pointwise._channels, 1, use_bias=bias, in_channels=maps, prefix=pointwise.prefix
    )
    into.act = pointwise.act
    _replace(net, form["pointwise"], into)


_KEYS = {"multiplier", "rank", "bias", "norm", "pointwise"}


def _check_form(net, path: str, form: Mapping, conv) -> None:
    unknown = set(form) - _KEYS
    if unknown:
        raise InputError(
            f"{path} has {sorted(unknown)[0]!r}; a form takes {', '.join(sorted(_KEYS))}"
        )
    if ("multiplier" in form) == ("rank" in form):
        raise InputError(f"{path} needs a multiplier or a rank, one of them, got {dict(form)}")
    what = "multiplier" if "multiplier" in form else "rank"
    shape = conv.weight.shape
    # above it a multiplier saves nothing: see ``compress.decomposition.largest_multiplier``
    most = min(shape[2] * shape[3], shape[0]) if what == "multiplier" else shape[0]
    value = form[what]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InputError(f"{path}: {what} must be a whole number from 1 to {most}, got {value!r}")
    if not isinstance(form.get("bias", False), bool):
        raise InputError(f"{path}: bias must be true or false, got {form['bias']!r}")
    if "norm" not in form and "pointwise" not in form:
        return
    if what == "rank" or "norm" not in form or "pointwise" not in form:
        raise InputError(f"{path}: norm and pointwise go together, and with a multiplier")
    for part, kind in (("norm", nn.BatchNorm), ("pointwise", nn.Conv2D)):
        block = block_at(net, str(form[part]))
        if not isinstance(block, kind) or _inputs_of(block) != shape[0]:
            raise InputError(
                f"{path}: {form[part]} is not a {kind.__name__} of {shape[0]} channels"
            )


def _inputs_of(block) -> int:
    return block.weight.shape[1] if isinstance(block, nn.Conv2D) else block.gamma.shape[0]


def _replace(net, path: str, block) -> None:
    above, _, name = path.rpartition(".")
    parent = block_at(net, above) if above else net
    parent._children[name] = block
    if name in vars(parent):
        object.__setattr__(parent, name, block)  # Block's own refuses one of another type
    net.hybridize(False)  # graphs compiled before are not those of the new blocks
