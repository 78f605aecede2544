"""The detectors as data: which maps they look at, and which boxes stand on each cell of a map.

Nothing is written twice: the sides of the maps follow from the size of the picture, the distance
of their cells from the sides, the boxes from both.  GluonCV writes the steps beside the maps, and
where the two disagree (``ssd_300_mobilenet0.25``) a quarter of the picture has all the boxes.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from gluon_asymmnet.arch import ConvLayer, conv_layers, feature_info
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.registry import SPECS, parse_name, plan_model

if TYPE_CHECKING:
    import numpy as np  # loaded where it is used: the flags of train_ssd.py come from here

SIZES = (300, 320, 512)  # pixels
HEADS = ("ssd", "ssdlite")
DATASETS = ("voc", "custom")

# Divisors of the coded offsets (dx, dy, dw, dh).  Source: the authors' Caffe code of SSD; the paper
# does not give them.
VARIANCES = (0.1, 0.1, 0.2, 0.2)
# Natural logarithm of the most by which a box is larger than its anchor, where it is decoded:
# infinite boxes, which a little trained net gives, would be nan in an overlap.
MOST_GROWTH = 10.0

_THREE = (1, 2, 1 / 2)
_FIVE = (1, 2, 1 / 2, 3, 1 / 3)


class DetectorSpec(NamedTuple):
    """A detector.  The defaults are all detectors of ``DETECTORS``; sizes are shares of ``size``.

    The finest map has stride 8, as in the paper; GluonCV's and MobileNetV3's mobile detectors start
    at 16.  An object of 24 to 36 pixels meets a box it overlaps by half in every place on c3, and
    on c4 only in 6 of 10.  On the digits, ``ssd_300_asymmnet_small`` from random weights, 14 epochs
    of 592 pictures, everything else equal: mAP 0.75 with c3 and 0.25 without, at 23 and 24
    pictures a second.  ``maps=("c4", "squeeze")`` with one scale and ratio less is a valid spec.
    """

    backbone: str  # a model's plain name
    size: int = 300  # height and width of the picture, pixels
    head: str = "ssd"  # predictors: 3 x 3 convolutions; "ssdlite": depthwise and pointwise
    width: float = 1.0
    rate: int = 1
    maps: tuple[str, ...] = ("c3", "c4", "squeeze")  # of the backbone, finest first
    extras: tuple[int, ...] = (512, 256, 256, 128)  # channels of the maps after, each half as wide
    # One more than maps, the last only ends the one before.  Source: arXiv:1512.02325, those of
    # SSD512, which has seven maps, too: 0.07 for the first (3.4), then 0.15 to 0.9 evenly (2.2).
    scales: tuple[float, ...] = (0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05)
    # Width over height, 1 first.  Source: the same, 3.1: four boxes on the first and last two maps.
    ratios: tuple[tuple[float, ...], ...] = (_THREE, *[_FIVE] * 4, _THREE, _THREE)


class MapPlan(NamedTuple):
    """One map that boxes stand on."""

    channels: int
    side: int  # cells
    step: float  # pixels from cell to cell
    boxes: np.ndarray  # (k, 2) float64: width and height, pixels, of the boxes on every cell


class DetectorName(NamedTuple):
    """What the name of a detector says."""

    spec: DetectorSpec
    dataset: str  # "voc", or "custom": the caller names the classes


DETECTORS = {
    f"{head}_{size}_{backbone}": DetectorSpec(backbone, size, head)
    for head in HEADS
    for size in SIZES
    for backbone in SPECS
}


def list_detectors() -> list[str]:
    """Return the names that ``get_detector`` knows, without a width."""
    return [f"{name}_{dataset}" for name in DETECTORS for dataset in DATASETS]


def parse_detector(name: str) -> DetectorName:
    """Read ``ssd_300_asymmnet_large_voc``, ``ssdlite_320_asymmnet_small_0.5_custom`` and the like.

    The width, and rate, stand behind the backbone as in the names of classifiers.
    """
    match = re.fullmatch(
        rf"({'|'.join(HEADS)})_(\d+)_(.+)_({'|'.join(DATASETS)})", str(name).lower()
    )
    if match:
        head, size, backbone, dataset = match.groups()
        try:
            variant = parse_name(backbone)
            found = DETECTORS[f"{head}_{size}_{variant.name}"]
            return DetectorName(found._replace(width=variant.width, rate=variant.rate), dataset)
        except (InputError, KeyError):
            pass  # the message below knows the nearest detector, too
    close = difflib.get_close_matches(str(name).lower(), list_detectors(), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise InputError(
        f"unknown detector {name!r}: expected HEAD_SIZE_BACKBONE_DATASET with {', '.join(HEADS)}; "
        f"{', '.join(map(str, SIZES))}; {', '.join(sorted(SPECS))}, with a width as suffix if "
        f"wanted (asymmnet_large_0.5); {', '.join(DATASETS)}{hint}"
    )


def get_detector_spec(name: str) -> DetectorSpec:
    """Return the spec of a detector by its name."""
    return parse_detector(name).spec


def detector_id(spec: DetectorSpec) -> str:
    """Return the full name of a detector, e.g. ``ssd_300_asymmnet_small_w0.5_r1``."""
    return f"{spec.head}_{spec.size}_{spec.backbone}_w{spec.width}_r{spec.rate}"


def plan_detector(spec: DetectorSpec) -> tuple[MapPlan, ...]:
    """Take every decision about the maps, finest first.

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
        MapPlan(channels, side, spec.size / side, _cell_boxes(*scales, ratios) * spec.size)
        for (channels, side), scales, ratios in zip(
            maps, zip(spec.scales, spec.scales[1:]), spec.ratios
        )
    )


def _backbone_maps(spec: DetectorSpec) -> list[tuple[int, int]]:
    """Channels and side of the backbone's maps."""
    _, plan = plan_model(spec.backbone, width=spec.width, rate=spec.rate)
    offered = {info.name: info for info in feature_info(plan)}
    unknown = [name for name in spec.maps if name not in offered]
    if unknown or not spec.maps:
        raise InputError(
            f"{spec.backbone} has no maps {list(unknown)}: choose from {', '.join(offered)}"
        )
    return [(offered[n].channels, math.ceil(spec.size / offered[n].stride)) for n in spec.maps]


def detector_layers(spec: DetectorSpec, classes: int) -> Iterator[ConvLayer]:
    """Yield the convolutions of a detector of so many classes, at their paths in ``ssd.SSD``."""
    _, plan = plan_model(spec.backbone, width=spec.width, rate=spec.rate)
    blocks = backbone_blocks(spec)
    parts = {"stem", *(f"blocks.{index}" for index in range(blocks))}
    parts |= {"squeeze"} & set(spec.maps)
    for layer in conv_layers(plan):
        place = layer.path.split(".")[1:]
        if place and ".".join(place[: 2 if place[0] == "blocks" else 1]) in parts:
            yield layer._replace(path=".".join(("features.backbone", *place)))
    maps, separable = plan_detector(spec), spec.head == "ssdlite"
    for number, channels in enumerate(spec.extras):
        path, half = f"features.extras.{number}", channels // 2
        before = maps[len(spec.maps) + number - 1].channels
        yield ConvLayer(f"{path}.reduce", before, half, 1, 1, 1, False, True, False)
        if separable:
            yield ConvLayer(f"{path}.depthwise", half, half, 3, 2, half, False, True, False)
        kernel, stride = (1, 1) if separable else (3, 2)
        yield ConvLayer(f"{path}.expand", half, channels, kernel, stride, 1, False, True, False)
    for kind, values in (("class", classes + 1), ("box", 4)):
        for number, here in enumerate(maps):
            path, wide = f"{kind}_predictors.{number}", here.channels
            if separable:
                yield ConvLayer(f"{path}.depthwise", wide, wide, 3, 1, wide, False, True, False)
            yield ConvLayer(
                f"{path}.conv", wide, len(here.boxes) * values, 1 if separable else 3, 1, 1,
                True, False, False,
            )  # fmt: skip


def backbone_blocks(spec: DetectorSpec) -> int:
    """Return how many blocks of the backbone the detector's maps need."""
    _, plan = plan_model(spec.backbone, width=spec.width, rate=spec.rate)
    last = max(info.block for info in feature_info(plan) if info.name in spec.maps)
    return min(last + 1, len(plan.blocks))


def _cell_boxes(scale: float, following: float, ratios: tuple[float, ...]) -> np.ndarray:
    """``(k, 2)``: a square, one between this scale and the next, and the other ratios.

    Source: arXiv:1512.02325, section 2.2, in the order of GluonCV's SSDAnchorGenerator.
    """
    import numpy as np

    if ratios[0] != 1:
        raise InputError(f"the first ratio must be 1, got {ratios[0]}")
    between = math.sqrt(scale * following)
    others = [(scale * math.sqrt(r), scale / math.sqrt(r)) for r in ratios[1:]]
    return np.array([(scale, scale), (between, between), *others])


def anchors(spec: DetectorSpec, maps: tuple[MapPlan, ...] | None = None) -> np.ndarray:
    """Return the boxes that predictions start from.

    Not clipped: near the border a box reaches outside, as the paper and GluonCV have it.

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
