"""AsymmNet in PyTorch; needs the extra ``[torch]`` and no MXNet.

The modules have the names of the Gluon blocks, so a state_dict differs from a ``.params`` file only
in the norms' ``weight`` and ``bias`` (``gamma`` and ``beta`` there).  ``asymmnet convert --to
torch-ours`` writes such a file, and :func:`load_weights` reads every format.
"""

# ruff: noqa: D102 - forward is documented in its class

import importlib
import warnings
from collections.abc import Iterable, Sequence
from typing import Optional

try:
    import torch
except ModuleNotFoundError as error:
    raise ImportError(
        "gluon_asymmnet.torch needs PyTorch: pip install 'gluon_asymmnet[torch]'"
    ) from error
import numpy as np
from torch import nn

from gluon_asymmnet.arch import BlockPlan, NetPlan, feature_info
from gluon_asymmnet.arch import FeatureInfo as MapInfo
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.registry import ModelSpec
from gluon_asymmnet.utils.import_hook import when_imported
from gluon_asymmnet.weights.convert import arrays_of, classes_of, find_layout, read_arrays
from gluon_asymmnet.weights.layouts import entries

_ACTIVATIONS = {"relu": nn.ReLU, "hard_swish": nn.Hardswish}
_STEM = -1  # block index of the stem
_MSRA_PRELU_GAIN = (2 / (1 + 0.25**2)) ** 0.5  # of mx.init.MSRAPrelu, used for training


def asymmnet(
    name: str,
    *,
    width: Optional[float] = None,
    rate: Optional[int] = None,
    shuffle_groups: int = 0,
    classes: int = 1000,
    dropout: float = 0.2,
    stem: str = "authors",
    features_only: bool = False,
    out_indices: Sequence[int] = (0, 1, 2, 3, 4),
):
    """Build a network in PyTorch with fresh weights; the counterpart of ``get_model``.

    Args:
        name, width, rate, shuffle_groups, classes, dropout, stem: as for ``get_model``;
            ``stem="scaled"`` is the graph of the authors' PyTorch port.
        features_only: return an :class:`AsymmNetFeatures` instead of the classifier.
        out_indices: maps it returns: 0 to 4 for strides 2 to 32, 5 for the map ``squeeze`` after
            the blocks.

    Raises: InputError for an unknown name, or settings that cannot be built.
    """
    model = ModelSpec.parse(name, width=width, rate=rate, shuffle_groups=shuffle_groups, stem=stem)
    plan = model.plan()
    if features_only:
        return AsymmNetFeatures(plan, out_indices)
    return AsymmNet(plan, classes=classes, dropout=dropout)


def load_weights(net: nn.Module, path, *, skip_output: bool = False) -> str:
    """Load a weight file of any format of ``weights.convert``; no code in it is executed.

    Args:
        net: an :class:`AsymmNet` or :class:`AsymmNetFeatures`.
        skip_output: do not load the classifier, for fine-tuning on other classes.

    Returns: the name of the file's layout.
    Raises:
        FormatError: the file is damaged or holds another net; the message lists missing, unexpected
            and wrongly shaped arrays.  The net is unchanged.
        FileNotFoundError: the file does not exist.
    """
    found = read_arrays(path)
    layout = find_layout(path, found)
    classifies = isinstance(net, AsymmNet) and not skip_output
    classes = net.output.out_channels if classifies else classes_of(found, layout)
    arrays = arrays_of(path, found, layout, net.plan, classes)
    first = net.plan.blocks[0]
    if layout == "torch" and first.shortcut != _fits_shortcut(first):
        warnings.warn(
            f"{path} is from the authors' port, whose first block has a shortcut here; this net "
            f"has none and gives other logits: build it with stem='scaled'",
            stacklevel=2,
        )
    own = net.state_dict()
    with torch.no_grad():
        for entry, array in zip(entries(net.plan, classes, "torch-ours"), arrays):
            skipped = skip_output and entry.name.startswith("output.")
            if entry.name in own and not skipped:
                values = np.array(array.reshape(entry.shape), array.dtype.newbyteorder("="))
                own[entry.name].copy_(torch.from_numpy(values))
    return layout


def _fits_shortcut(block: BlockPlan) -> bool:
    return block.stride == 1 and block.in_channels == block.out


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalisation and an optional activation.

    Shapes: ``(N, in_channels, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride))``.
    """

    def __init__(self, in_channels, channels, kernel=1, stride=1, groups=1, act=None):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(channels)  # momentum 0.1 is MXNet's 0.9; eps is equal
        self.act = _ACTIVATIONS[act]() if act else None

    def forward(self, x):
        x = self.norm(self.conv(x))
        return x if self.act is None else self.act(x)


class SqueezeExcite(nn.Module):
    """Scale every channel by a gate that two 1 x 1 convolutions compute from the channel means.

    Shapes: ``(N, C, H, W) -> (N, C, H, W)``.
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.relu = nn.ReLU()
        self.restore = nn.Conv2d(hidden, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x):
        means = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.restore(self.relu(self.reduce(means))))


class AsymmBottleneck(nn.Module):
    """Inverted bottleneck that reuses its input in place of part of the expansion.

    ``[x]*r ++ conv1x1(x) ++ [x]*r`` -> depthwise -> squeeze-excite -> linear 1 x 1, + x if it fits.
    Shapes: ``(N, C, H, W) -> (N, plan.out, ceil(H / s), ceil(W / s))``, s the stride.
    Source: arXiv:2104.07770, figure 2.
    """

    def __init__(self, plan: BlockPlan):
        super().__init__()
        channels = plan.depthwise_channels
        self.rate = plan.rate
        self.shuffle_groups = plan.shuffle_groups
        self.shortcut = plan.shortcut
        self.expand = (
            ConvNorm(plan.in_channels, plan.expand_channels, act=plan.act)
            if plan.expand_channels
            else None
        )
        self.depthwise = ConvNorm(channels, channels, plan.kernel, plan.stride, channels, plan.act)
        self.se = SqueezeExcite(channels, plan.se_hidden) if plan.se_hidden else None
        self.project = ConvNorm(channels, plan.out)

    def forward(self, x):
        y = x if self.expand is None else self.expand(x)
        if self.rate:
            copies = [x] * self.rate
            y = torch.cat(copies + [y] + copies, 1)  # noqa: RUF005 - TorchScript takes no stars
        if self.shuffle_groups:  # channel g * C/groups + i moves to i * groups + g
            y = y.unflatten(1, (self.shuffle_groups, -1)).transpose(1, 2).flatten(1, 2)
        y = self.depthwise(y)
        if self.se is not None:
            y = self.se(y)
        y = self.project(y)
        return x + y if self.shortcut else y


class Features(nn.Module):
    """All layers before the classifier.  Shapes: ``(N, 3, H, W) -> (N, plan.hidden, 1, 1)``."""

    def __init__(self, plan: NetPlan, dropout: float):
        super().__init__()
        self.stem = ConvNorm(3, plan.stem, 3, 2, act="hard_swish")
        self.blocks = nn.Sequential(*map(AsymmBottleneck, plan.blocks))
        self.squeeze = ConvNorm(plan.blocks[-1].out, plan.squeeze, act="hard_swish")
        self.hidden = nn.Conv2d(plan.squeeze, plan.hidden, 1, bias=False)
        self.hidden_act = nn.Hardswish()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = self.squeeze(self.blocks(self.stem(x)))
        return self.dropout(self.hidden_act(self.hidden(x.mean((2, 3), keepdim=True))))


class AsymmNet(nn.Module):
    """The classifier.  Shapes: ``(N, 3, H, W) -> (N, classes)``, logits; any H and W.

    Args:
        plan: every channel count, from ``arch.plan_net``.
        classes: number of logits.
        dropout: probability before the classifier, in [0, 1).
    """

    def __init__(self, plan: NetPlan, *, classes: int = 1000, dropout: float = 0.2):
        super().__init__()
        if not isinstance(classes, int) or classes < 1:
            raise InputError(f"classes must be a whole number, at least 1, got {classes!r}")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout must be at least 0 and below 1, got {dropout!r}")
        self.plan = plan
        self.features = Features(plan, dropout)
        self.output = nn.Conv2d(plan.hidden, classes, 1)
        self.apply(_initialize)

    def forward(self, x):
        return self.output(self.features(x)).flatten(1)


class AsymmNetFeatures(nn.Module):
    """Feature maps of the stages, like timm's ``features_only``.

    Shapes: ``(N, 3, H, W) -> [(N, C_i, ceil(H / s_i), ceil(W / s_i)), ...]`` in the order of
    ``out_indices``.  ``feature_info`` lists channels C, reduction s and module of each.  Layers
    after the last map are not built.
    """

    def __init__(self, plan: NetPlan, out_indices: Sequence[int] = (0, 1, 2, 3, 4)):
        super().__init__()
        offered = _maps(plan)
        if not out_indices or not all(i in range(len(offered)) for i in out_indices):
            raise InputError(
                f"out_indices must be some of 0 to {len(offered) - 1} "
                f"({', '.join(info.name for info in offered)}), got {tuple(out_indices)}"
            )
        chosen = [offered[i] for i in out_indices]
        count = len(plan.blocks)
        self.plan = plan
        self.feature_info = FeatureInfo(
            {"num_chs": i.channels, "reduction": i.stride, "module": _module(i.block, count)}
            for i in chosen
        )
        self.places = [info.block + 1 for info in chosen]  # among stem, blocks, squeeze
        depth = max(self.places)
        self.features = nn.Module()
        self.features.stem = ConvNorm(3, plan.stem, 3, 2, act="hard_swish")
        self.features.blocks = nn.Sequential(*map(AsymmBottleneck, plan.blocks[:depth]))
        self.features.squeeze = (
            ConvNorm(plan.blocks[-1].out, plan.squeeze, act="hard_swish") if depth > count else None
        )
        self.apply(_initialize)

    def forward(self, x):
        return feature_maps(self.features, self.places, x)


def feature_maps(features: nn.Module, places: Sequence[int], x) -> list:
    """Return the maps at ``places`` among those of stem, blocks and squeeze."""
    maps = [features.stem(x)]
    for block in features.blocks:
        maps.append(block(maps[-1]))
    if features.squeeze is not None:
        maps.append(features.squeeze(maps[-1]))
    return [maps[place] for place in places]


def map_names(plan: NetPlan) -> list[str]:
    """Return the names of the maps, in the order of ``out_indices``: c1 to c5 and squeeze."""
    return [info.name for info in _maps(plan)]


class FeatureInfo:
    """Description of the maps for detectors, with the interface of timm's class."""

    def __init__(self, info: Iterable[dict]):
        self.info = list(info)  # per map: num_chs, reduction, module

    def channels(self) -> list:
        """Channels of each map."""
        return [info["num_chs"] for info in self.info]

    def reduction(self) -> list:
        """Pixels of the input per pixel of each map."""
        return [info["reduction"] for info in self.info]

    def module_name(self) -> list:
        """Path of the module in the classifier that computes each map."""
        return [info["module"] for info in self.info]


def _maps(plan: NetPlan) -> list:
    """Return c1 to c5 and squeeze; if no block has stride 2, c1 is the stem, as in timm."""
    maps = list(feature_info(plan))
    if maps[0].name != "c1":
        maps.insert(0, MapInfo("c1", 2, plan.stem, _STEM))
    return maps


def _module(block: int, count: int) -> str:
    if block == _STEM:
        return "features.stem"
    return f"features.blocks.{block}" if block < count else "features.squeeze"


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight, _MSRA_PRELU_GAIN)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


# where timm is used, before or after: a plain import would cost seconds and need it installed
when_imported("timm", lambda: importlib.import_module(f"{__name__}.timm_models").register())
