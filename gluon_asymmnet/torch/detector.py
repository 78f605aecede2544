"""The detector (SSD) in PyTorch, up to the suppression of boxes: for converters that start there.

The modules have the names of the Gluon blocks, as in ``gluon_asymmnet.torch``.
"""

# ruff: noqa: D102 - forward is documented in its class

from collections.abc import Sequence
from typing import Optional

import numpy as np
import torch
from torch import nn

from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.models.ssd_spec import (
    MAX_LOG_SCALE,
    VARIANCES,
    DetectorSpec,
    anchors,
    parse_detector,
    plan_detector,
)
from gluon_asymmnet.torch import AsymmNetFeatures, ConvNorm, feature_maps, map_names
from gluon_asymmnet.weights.convert import read_arrays

_NORM = {"weight": "gamma", "bias": "beta"}  # PyTorch's name -> Gluon's
_ANCHORS = "anchors"  # in Gluon's files; computed here


def ssd(name: str, *, classes: Optional[Sequence[str]] = None) -> "SSD":
    """Build a detector in PyTorch with fresh weights; the counterpart of ``get_detector``.

    Args:
        name: as for ``get_detector``: ``ssd_300_asymmnet_large_voc``, ``ssdlite_320_..._custom``.
        classes: names, for ``_custom``; ``_voc`` has VOC's 20.

    Raises: InputError for an unknown name, or missing classes.
    """
    spec, dataset = parse_detector(name)
    if dataset == "voc":
        from gluon_asymmnet.data.boxes.voc import VOC_CLASSES  # this needs OpenCV

        classes = VOC_CLASSES
    elif classes is None:
        raise InputError(f"{name} needs the names of its classes: classes=['cat', 'dog']")
    return SSD(spec, len(classes))


def load_detector(net: "SSD", path) -> None:
    """Load Gluon's parameters of the same detector, from ``.params`` or another format of them.

    Raises:
        FormatError: the file is damaged or holds another detector; the net is unchanged.
        FileNotFoundError: the file does not exist.
    """
    found, own = read_arrays(path), net.state_dict()
    found.pop(_ANCHORS, None)
    wanted = {name: _gluon_name(net, name) for name in own if not name.endswith("batches_tracked")}
    missing = [name for name in wanted.values() if name not in found]
    unexpected = [name for name in found if name not in set(wanted.values())]
    wrong = [
        f"{theirs} has {found[theirs].shape}, expected {tuple(own[ours].shape)}"
        for ours, theirs in wanted.items()
        if theirs in found and found[theirs].shape != tuple(own[ours].shape)
    ]
    if missing or unexpected or wrong:
        faults = [*(f"{name} is missing" for name in missing),
                  *(f"{name} is unexpected" for name in unexpected), *wrong]  # fmt: skip
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise FormatError(f"{path}: not this detector: {'; '.join(faults[:3])}{more}")
    with torch.no_grad():
        for ours, theirs in wanted.items():
            values = np.array(found[theirs], found[theirs].dtype.newbyteorder("="))
            own[ours].copy_(torch.from_numpy(values))


def _gluon_name(net: nn.Module, name: str) -> str:
    owner, _, kind = name.rpartition(".")
    is_norm = isinstance(net.get_submodule(owner), nn.BatchNorm2d)
    return f"{owner}.{_NORM.get(kind, kind)}" if is_norm else name


class ExtraLayer(nn.Module):
    """The layers of one extra map: 1 x 1 to half the channels, then 3 x 3 with stride 2.

    Shapes: ``(N, in_channels, H, W) -> (N, channels, ceil(H / 2), ceil(W / 2))``.
    """

    def __init__(self, in_channels: int, channels: int, separable: bool):
        super().__init__()
        half = channels // 2
        self.reduce = ConvNorm(in_channels, half, act="relu")
        self.depthwise = ConvNorm(half, half, 3, 2, half, "relu") if separable else None
        kernel, stride = (1, 1) if separable else (3, 2)
        self.expand = ConvNorm(half, channels, kernel, stride, act="relu")

    def forward(self, x):
        x = self.reduce(x)
        return self.expand(x if self.depthwise is None else self.depthwise(x))


class PredictionHead(nn.Module):
    """The values of every box of one map.

    Shapes: ``(N, in_channels, H, W) -> (N, H * W * values)``: cell by cell.
    """

    def __init__(self, in_channels: int, values: int, separable: bool):
        super().__init__()
        self.depthwise = (
            ConvNorm(in_channels, in_channels, 3, 1, in_channels, "relu") if separable else None
        )
        kernel = 1 if separable else 3
        self.conv = nn.Conv2d(in_channels, values, kernel, padding=kernel // 2)

    def forward(self, x):
        x = x if self.depthwise is None else self.depthwise(x)
        return self.conv(x).permute(0, 2, 3, 1).flatten(1)


class SSD(nn.Module):
    """Single-shot detector without suppression, for inference.

    Shapes: ``(N, 3, size, size)``, normalised RGB -> scores ``(N, A, classes)``, without the
    background's, and corners ``(N, A, 4)`` in pixels; the outputs of the ONNX file.
    ``predict.nms.suppress`` suppresses overlapping boxes.

    Args:
        spec: the detector's specification.
        classes: their number, without the background.
    """

    def __init__(self, spec: DetectorSpec, classes: int):
        super().__init__()
        if classes < 1:
            raise InputError(f"a detector needs at least one class, got {classes}")
        self.spec, self.classes = spec, classes
        maps, separable = plan_detector(spec), spec.head == "ssdlite"
        plan = spec.backbone_spec.plan()
        backbone = AsymmNetFeatures(plan, [map_names(plan).index(name) for name in spec.maps])
        self._places = backbone.places
        self.features = nn.Module()
        self.features.backbone = backbone.features
        before = [maps[len(spec.maps) - 1].channels, *spec.extras]
        self.features.extras = nn.ModuleList(
            ExtraLayer(*channels, separable) for channels in zip(before, spec.extras)
        )
        self.class_predictors, self.box_predictors = (
            nn.ModuleList(
                PredictionHead(m.channels, len(m.boxes) * values, separable) for m in maps
            )
            for values in (classes + 1, 4)
        )
        boxes = torch.from_numpy(anchors(spec, maps))
        self.register_buffer(_ANCHORS, boxes[None], persistent=False)

    def forward(self, x):
        maps = feature_maps(self.features.backbone, self._places, x)
        for extra in self.features.extras:
            maps.append(extra(maps[-1]))
        logits, offsets = (
            torch.cat([head(m) for head, m in zip(heads, maps)], 1).unflatten(1, (-1, values))
            for heads, values in (
                (self.class_predictors, self.classes + 1), (self.box_predictors, 4),
            )
        )  # fmt: skip
        return logits.softmax(-1)[:, :, 1:], self._decode(offsets)

    def _decode(self, offsets):
        """Return corners; the order of operations is that of ``models.ssd_box_coder.decode``."""
        centre, size = self.anchors[..., :2], self.anchors[..., 2:]
        shift, growth = offsets[..., :2], offsets[..., 2:]
        centre = shift * (size * VARIANCES[0]) + centre
        half = (growth * VARIANCES[2]).clamp(max=MAX_LOG_SCALE).exp() * (size / 2)
        return torch.cat([centre - half, centre + half], -1)
