"""Detector specifications: feature maps and anchor boxes.

The side of each map follows from the input size, the step between its cells from the side, and the
anchors from both.  GluonCV specifies the steps separately; where they contradict the maps
(``ssd_300_mobilenet0.25``), all anchors lie in a quarter of the image.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from gluon_asymmnet.arch import feature_info
from gluon_asymmnet.errors import InputError, did_you_mean
from gluon_asymmnet.models.registry import SPECS, ModelSpec

if TYPE_CHECKING:
    import numpy as np  # imported where it is used: the flags of train_ssd.py come from here

SIZES = (300, 320, 512)  # pixels
HEADS = ("ssd", "ssdlite")
DATASETS = ("voc", "custom")

# Divisors of the encoded offsets (dx, dy, dw, dh).  Source: the authors' Caffe code of SSD; the
# paper does not give them.
VARIANCES = (0.1, 0.1, 0.2, 0.2)
# Upper limit of the natural logarithm of a decoded box's size over its anchor's: a barely trained
# net would give infinite boxes, whose overlaps are nan.
MAX_LOG_SCALE = 10.0

SCORE_THRESHOLD = 0.01  # applied before suppression, as in the paper (3.1) and GluonCV
NMS_IOU, NMS_TOP, NMS_KEPT = 0.45, 400, 100  # GluonCV's values; the paper keeps 200

_THREE = (1, 2, 1 / 2)
_FIVE = (1, 2, 1 / 2, 3, 1 / 3)


class DetectorSpec(NamedTuple):
    """A detector; the defaults are those of all ``DETECTORS``.  Scales are relative to ``size``.

    The finest map has stride 8, as in the paper; GluonCV's and MobileNetV3's mobile detectors start
    at stride 16.  An object of 24 to 36 pixels overlaps some anchor by half at every position with
    c3, and at 6 of 10 positions without.  On the digits (``ssd_300_asymmnet_small`` from random
    weights, 14 epochs of 592 images): mAP 0.75 with c3 and 0.25 without, at 23 and 24 images per
    second.  ``maps=("c4", "squeeze")`` with one scale and ratio less is a valid spec.
    """

    backbone: str  # name of a model, without width and rate
    size: int = 300  # height and width of the input, pixels
    head: str = "ssd"  # 3 x 3 convolutions; "ssdlite": depthwise and pointwise ones
    width: float = 1.0
    rate: int = 1
    maps: tuple[str, ...] = ("c3", "c4", "squeeze")  # backbone maps, finest first
    extras: tuple[int, ...] = (512, 256, 256, 128)  # channels of the extra maps
    # One more than maps: the last is only used by the map before.  Source: arXiv:1512.02325, the
    # scales of SSD512, which has seven maps too: 0.07 (section 3.4), then 0.15 to 0.9 (2.2).
    scales: tuple[float, ...] = (0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05)
    # Width over height, 1 first; four anchors on the first and the last two maps (section 3.1).
    ratios: tuple[tuple[float, ...], ...] = (_THREE, *[_FIVE] * 4, _THREE, _THREE)

    @property
    def id(self) -> str:
        """The full name, e.g. ``ssd_300_asymmnet_small_w0.5_r1``."""
        return f"{self.head}_{self.size}_{self.backbone_spec.id}"

    @property
    def backbone_spec(self) -> ModelSpec:
        """The classifier whose feature maps the detector takes."""
        return ModelSpec(self.backbone, self.width, self.rate)


class FeatureMapPlan(NamedTuple):
    """One feature map with its anchors."""

    channels: int
    side: int  # cells
    step: float  # input pixels between cells
    boxes: np.ndarray  # (k, 2) float64: width and height, pixels, of the anchors of every cell


class DetectorName(NamedTuple):
    """A detector's name, parsed."""

    spec: DetectorSpec
    dataset: str  # "voc", or "custom": the caller names the classes


DETECTORS = {
    f"{head}_{size}_{backbone}": DetectorSpec(backbone, size, head, rate=int(net.asymmetric))
    for head in HEADS
    for size in SIZES
    for backbone, net in SPECS.items()
}


def list_detectors() -> list[str]:
    """Return the detector names without width suffixes."""
    return [f"{name}_{dataset}" for name in DETECTORS for dataset in DATASETS]


def parse_detector(name: str) -> DetectorName:
    """Parse a name such as ``ssd_300_asymmnet_large_voc`` or ``ssdlite_320_..._0.5_custom``.

    Width and rate follow the backbone's name as in the names of classifiers.

    Raises: InputError for an unknown name; the message suggests the nearest one.
    """
    match = re.fullmatch(
        rf"({'|'.join(HEADS)})_(\d+)_(.+)_({'|'.join(DATASETS)})", str(name).lower()
    )
    if match:
        head, size, backbone, dataset = match.groups()
        try:
            model = ModelSpec.parse(backbone)
            found = DETECTORS[f"{head}_{size}_{model.name}"]
            return DetectorName(found._replace(width=model.width, rate=model.rate), dataset)
        except (InputError, KeyError):
            pass  # the message below names the nearest detector
    hint = did_you_mean(str(name).lower(), list_detectors())
    raise InputError(
        f"unknown detector {name!r}: expected HEAD_SIZE_BACKBONE_DATASET with {', '.join(HEADS)}; "
        f"{', '.join(map(str, SIZES))}; {', '.join(sorted(SPECS))}, optionally with a "
        f"width (asymmnet_large_0.5); {', '.join(DATASETS)}{hint}"
    )


def plan_detector(spec: DetectorSpec) -> tuple[FeatureMapPlan, ...]:
    """Compute the feature maps and their anchors, finest first.

    Raises: InputError for a head, map or number of scales that cannot be built.
    """
    maps = _backbone_maps(spec)
    for channels in spec.extras:
        maps.append((channels, math.ceil(maps[-1][1] / 2)))
    if spec.head not in HEADS:
        raise InputError(f"head must be one of {', '.join(HEADS)}, got {spec.head!r}")
    if len(spec.scales) != len(maps) + 1 or len(spec.ratios) != len(maps):
        raise InputError(
            f"{len(maps)} maps take {len(maps) + 1} scales and {len(maps)} tuples of ratios, "
            f"got {len(spec.scales)} and {len(spec.ratios)}"
        )
    return tuple(
        FeatureMapPlan(channels, side, spec.size / side, _cell_boxes(*scales, ratios) * spec.size)
        for (channels, side), scales, ratios in zip(
            maps, zip(spec.scales, spec.scales[1:]), spec.ratios
        )
    )


def _backbone_maps(spec: DetectorSpec) -> list[tuple[int, int]]:
    """Return channels and side of each backbone map."""
    plan = spec.backbone_spec.plan()
    offered = {info.name: info for info in feature_info(plan)}
    unknown = [name for name in spec.maps if name not in offered]
    if unknown or not spec.maps:
        raise InputError(
            f"{spec.backbone} has no maps {list(unknown)}: choose from {', '.join(offered)}"
        )
    return [(offered[n].channels, math.ceil(spec.size / offered[n].stride)) for n in spec.maps]


def _cell_boxes(scale: float, following: float, ratios: tuple[float, ...]) -> np.ndarray:
    """Return ``(k, 2)``: the square of this scale, that between it and the next, other ratios.

    Source: arXiv:1512.02325, section 2.2, in the order of GluonCV's SSDAnchorGenerator.
    """
    import numpy as np

    if ratios[0] != 1:
        raise InputError(f"the first ratio must be 1, got {ratios[0]}")
    between = math.sqrt(scale * following)
    others = [(scale * math.sqrt(r), scale / math.sqrt(r)) for r in ratios[1:]]
    return np.array([(scale, scale), (between, between), *others])


def anchors(spec: DetectorSpec, maps: tuple[FeatureMapPlan, ...] | None = None) -> np.ndarray:
    """Return the anchor boxes of all maps.

    Anchors near the border are not clipped, as in the paper and GluonCV.

    Returns: ``(A, 4)`` float32, centres ``(cx, cy, w, h)``, pixels; map by map, row by row.
    """
    import numpy as np

    rows = []
    for plan in maps or plan_detector(spec):
        centres = (np.arange(plan.side) + 0.5) * plan.step
        cy, cx, kind = np.meshgrid(centres, centres, np.arange(len(plan.boxes)), indexing="ij")
        widths, heights = plan.boxes.T
        rows.append(np.stack([cx, cy, widths[kind], heights[kind]], axis=-1).reshape(-1, 4))
    return np.concatenate(rows).astype(np.float32)
