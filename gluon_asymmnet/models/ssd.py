"""Single-shot detector (SSD) on our backbones, with the interface of GluonCV's SSD.

GluonCV's own class does not fit: its ``FeatureExpander`` fixes the initialisation and normalisation
of the added layers, it cannot be cast, and its ``reset_class`` does not support depthwise-separable
heads.  Its decoders, a few lines each, are not imported either: importing GluonCV fails beside a
current PyTorch.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Optional, Union

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.ssd_box_coder import decode
from gluon_asymmnet.models.ssd_spec import (
    NMS_IOU,
    NMS_KEPT,
    NMS_TOP,
    SCORE_THRESHOLD,
    DetectorSpec,
    anchors,
    plan_detector,
)
from gluon_asymmnet.nn import ConvNorm, NormFactory

nn = mx.gluon.nn

ClassMap = Union[Mapping, Sequence[str]]


class ExtraLayer(mx.gluon.HybridBlock):
    """The layers of one extra map: 1 x 1 to half the channels, then 3 x 3 with stride 2.

    Shapes: ``(N, in_channels, H, W) -> (N, channels, ceil(H / 2), ceil(W / 2))``.
    Source: arXiv:1512.02325, figure 2; separable as in arXiv:1801.04381, section 6.2.
    """

    def __init__(
        self, in_channels: int, channels: int, separable: bool, norm: NormFactory, *, prefix=None
    ):
        super().__init__(prefix=prefix)
        half = channels // 2
        with self.name_scope():
            self.reduce = ConvNorm(in_channels, half, 1, 1, 1, "relu", norm, prefix="reduce_")
            self.depthwise = (
                ConvNorm(half, half, 3, 2, half, "relu", norm, prefix="depthwise_")
                if separable
                else None
            )
            kernel, stride = (1, 1) if separable else (3, 2)
            self.expand = ConvNorm(
                half, channels, kernel, stride, 1, "relu", norm, prefix="expand_"
            )

    def hybrid_forward(self, F, x):
        """See the class."""
        x = self.reduce(x)
        if self.depthwise is not None:
            x = self.depthwise(x)
        return self.expand(x)


class MultiScaleFeatures(mx.gluon.HybridBlock):
    """All feature maps of a detector, finest first: the backbone's, then the extra ones."""

    def __init__(self, spec: DetectorSpec, backbone, norm: NormFactory, *, prefix=None):
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.backbone = backbone.feature_maps(*spec.maps)
            self.extras = nn.HybridSequential(prefix="extras_")
            in_channels = self.backbone.info[-1].channels
            with self.extras.name_scope():
                for number, channels in enumerate(spec.extras):
                    self.extras.add(
                        ExtraLayer(in_channels, channels, spec.head == "ssdlite", norm,
                              prefix=f"{number}_")
                    )  # fmt: skip
                    in_channels = channels

    def hybrid_forward(self, F, x):
        """Return the maps of images ``(N, 3, H, W)``."""
        maps = list(self.backbone(x))
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps


class PredictionHead(mx.gluon.HybridBlock):
    """The values of every box of one map.

    Shapes: ``(N, in_channels, H, W) -> (N, H * W * values)``: cell by cell.
    """

    def __init__(
        self, in_channels: int, values: int, separable: bool, norm: NormFactory, *, prefix=None
    ):
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.depthwise = (
                ConvNorm(in_channels, in_channels, 3, 1, in_channels, "relu", norm,
                         prefix="depthwise_")
                if separable
                else None
            )  # fmt: skip
            self.conv = _output_conv(in_channels, values, separable)

    def hybrid_forward(self, F, x):
        """See the class."""
        if self.depthwise is not None:
            x = self.depthwise(x)
        return F.flatten(F.transpose(self.conv(x), (0, 2, 3, 1)))


def _output_conv(in_channels: int, values: int, separable: bool):
    kernel = 1 if separable else 3
    return nn.Conv2D(
        values, kernel, 1, kernel // 2, in_channels=in_channels, prefix="conv_",
        weight_initializer=mx.init.Xavier(),
    )  # fmt: skip


class _ConstantInit(mx.init.Initializer):
    """Initialises an array with given values; unlike Gluon's Constant without a registry."""

    def __init__(self, values: np.ndarray):
        super().__init__()
        self._values = values

    def _init_weight(self, _, array):
        array[:] = self._values


class SSD(mx.gluon.HybridBlock):
    """Single-shot detector.  ``net(x)`` with x ``(N, 3, H, W)``, normalised RGB:

    - in training: class logits ``(N, A, classes + 1)``, background first; encoded offsets
      ``(N, A, 4)``; anchors ``(1, A, 4)``, centres and sizes in pixels;
    - otherwise: ids ``(N, n, 1)``, -1 in rows of padding; scores ``(N, n, 1)``; corners
      ``(N, n, 4)`` in pixels of x; by falling score, at most ``post_nms``.

    H and W are ``spec.size``, or any others: each map then has as many anchors as its cells need,
    with the steps and the sizes in pixels of the own size, as in GluonCV.

    Args:
        spec: the detector's specification.
        backbone: a classifier of ``spec.backbone``; its parameters are shared, not copied.
        classes: class names, without the background.
        norm_layer, norm_kwargs: replacement for batch normalisation in the added layers.
    """

    constants = ("anchors",)  # computed from the spec, not read from files

    def __init__(
        self,
        spec: DetectorSpec,
        backbone,
        classes: Sequence[str],
        *,
        norm_layer=None,
        norm_kwargs: Optional[dict] = None,
        prefix: Optional[str] = None,
    ):
        super().__init__(prefix=prefix or f"{spec.id}_")
        norm, self.spec = NormFactory(norm_layer, norm_kwargs), spec
        self.classes = check_class_names(classes)
        self.set_nms()
        self._graph_kind = (False, False)  # training, own input size; see forward
        self._maps = plan_detector(spec)
        with self.name_scope():
            self.features = MultiScaleFeatures(spec, backbone, norm, prefix="features_")
            self.class_predictors = self._heads(self.num_classes + 1, norm, "class_")
            self.box_predictors = self._heads(4, norm, "box_")
            # All anchors of the own size, so that exported graphs hold them as one array.  Not
            # Gluon's Constant: it registers a class under its address, and warns when an address
            # is used again.
            anchor_boxes = anchors(spec, self._maps)[None]
            self.anchors = self.params.get(
                "anchors", shape=anchor_boxes.shape, init=_ConstantInit(anchor_boxes),
                grad_req="null",
            )  # fmt: skip
        for block in (self.features.extras, self.class_predictors, self.box_predictors):
            for param in block.collect_params(".*weight").values():
                param.init = param.init or mx.init.MSRAPrelu(slope=0)

    def _heads(self, values: int, norm: NormFactory, prefix: str):
        """One head for each map, with ``values`` values for each of its boxes."""
        separable, block = self.spec.head == "ssdlite", nn.HybridSequential(prefix=prefix)
        with block.name_scope():
            for number, plan in enumerate(self._maps):
                values_here = len(plan.boxes) * values
                block.add(
                    PredictionHead(plan.channels, values_here, separable, norm, prefix=f"{number}_")
                )
        return block

    @property
    def num_classes(self) -> int:
        """Number of classes, without the background."""
        return len(self.classes)

    def set_nms(
        self, nms_thresh: float = NMS_IOU, nms_topk: int = NMS_TOP, post_nms: int = NMS_KEPT
    ) -> None:
        """Set the suppression of overlapping boxes of the same class.

        Args:
            nms_thresh: IoU above which the box with the lower score is suppressed; outside (0, 1):
                no suppression.
            nms_topk: boxes per image, all classes together, that take part; -1: all.
            post_nms: boxes per image that are returned; -1: all.
        """
        self._clear_cached_op()
        self.nms_thresh, self.nms_topk, self.post_nms = nms_thresh, nms_topk, post_nms

    def forward(self, x, *args):
        """See the class."""
        # A compiled graph has the outputs of training or those of inference, and the anchors of the
        # own size as one array or computed for any size; it is dropped when that changes.  With
        # GluonCV's class the caller has to hybridize again.  Training has the anchors of any size,
        # so that training at several sizes keeps its graph.  The size of a symbol is not known.
        training, side = mx.autograd.is_training(), self.spec.size
        own_size = not training and isinstance(x, mx.nd.NDArray) and x.shape[2:] == (side, side)
        if self._graph_kind != (training, own_size):
            self._clear_cached_op()
        self._graph_kind = (training, own_size)
        return super().forward(x, *args)

    def save_params(self, filename: str) -> None:
        """Save the parameters; Gluon's old name for ``save_parameters``, which GluonCV calls.

        Gluon's own method needs names that begin with the net's prefix; the backbone's do not.
        """
        self.save_parameters(filename)

    def cast(self, dtype) -> None:
        """Cast all but the anchors: from 256 on half precision has steps of a quarter pixel."""
        self._clear_cached_op()
        for child in self._children.values():
            child.cast(dtype)

    def hybrid_forward(self, F, x, anchors):
        """See the class."""
        maps = self.features(x)
        logits, offsets = self._predict(F, maps)
        training, own_size = self._graph_kind
        if not own_size:
            anchors = self._anchors_for(F, maps, anchors)
        if training:
            # stop_gradient: the anchors depend on the shape of the maps only
            return [logits, offsets, F.stop_gradient(anchors)]
        return self._suppress(F, *scores_and_corners(F, logits, offsets, anchors))

    def heads(self, F, x):
        """Return logits ``(N, A, classes + 1)`` and offsets ``(N, A, 4)``."""
        return self._predict(F, self.features(x))

    def _predict(self, F, maps):
        """Return logits and offsets from the feature maps."""
        # a negative axis, see nn.onednn.concat_channels
        logits, offsets = (
            F.concat(*(head(m) for head, m in zip(heads, maps)), dim=-1)
            for heads in (self.class_predictors, self.box_predictors)
        )
        return (
            F.reshape(logits, shape=(0, -1, self.num_classes + 1)),
            F.reshape(offsets, shape=(0, -1, 4)),
        )

    def _anchors_for(self, F, maps, own):
        """Return the anchors ``(1, A, 4)`` of feature maps of any size.

        At the own size they are equal to ``own``, to the bit.
        """
        parts, first = [], 0
        for plan, feature_map in zip(self._maps, maps):
            cell = F.slice_axis(own, axis=1, begin=first, end=first + len(plan.boxes))
            parts.append(_grid_anchors(F, feature_map, cell, len(plan.boxes), plan.step))
            first += plan.side**2 * len(plan.boxes)
        return F.concat(*parts, dim=1)

    def _suppress(self, F, scores, corners):
        """Suppress overlapping boxes of the same class, among one row for each class and box."""
        scores = F.transpose(scores, (0, 2, 1))
        numbers = F.reshape(F.arange(self.num_classes), shape=(1, -1, 1))
        kept = scores > SCORE_THRESHOLD
        ids = (F.broadcast_add(F.zeros_like(scores), numbers) + 1) * kept - 1
        rows = F.concat(
            F.reshape(ids, shape=(0, -1, 1)),
            F.reshape(scores * kept, shape=(0, -1, 1)),
            F.tile(corners, reps=(1, self.num_classes, 1)),
            dim=-1,
        )
        if 0 < self.nms_thresh < 1:
            rows = F.contrib.box_nms(
                rows, overlap_thresh=self.nms_thresh, topk=self.nms_topk,
                valid_thresh=SCORE_THRESHOLD, id_index=0, score_index=1, coord_start=2,
            )  # fmt: skip
            if self.post_nms > 0:
                rows = F.slice_axis(rows, axis=1, begin=0, end=self.post_nms)
        return tuple(
            F.slice_axis(rows, axis=2, begin=begin, end=end)
            for begin, end in ((0, 1), (1, 2), (2, 6))
        )

    def raw(self) -> "RawSSD":
        """Return a block that outputs all boxes, without suppression, for export."""
        return RawSSD(self)

    def reset_class(self, classes: Sequence[str], reuse_weights: Optional[ClassMap] = None) -> None:
        """Change the classes.

        Box heads and the weights of the background are kept.  A new class starts with fresh weights
        or with those of an old class.

        Args:
            classes: the new names.
            reuse_weights: names that keep their weights, or {new: old} with names or positions.

        Raises: InputError for an unknown class.
        """
        new, old = check_class_names(classes), self.classes
        rows = {0: 0}  # background
        rows.update(
            {_position(n, new, "new") + 1: _position(o, old, "old") + 1
             for n, o in _new_old_pairs(reuse_weights)}
        )  # fmt: skip
        self._clear_cached_op()
        self.classes = new
        for head, plan in zip(self.class_predictors, self._maps):
            _replace_output_conv(head, len(plan.boxes), len(old) + 1, len(new) + 1, rows)


def _grid_anchors(F, feature_map, cell, count: int, step: float):
    """Return anchors ``(1, H * W * count, 4)`` for a map ``(N, C, H, W)``.

    Args:
        cell: ``(1, count, 4)``, the anchors of one cell, of which only the sizes are used.
        count: anchors of each cell.
        step: pixels between two cells.
    """
    plane = F.slice_axis(F.slice_axis(feature_map, axis=0, begin=0, end=1), axis=1, begin=0, end=1)
    plane = F.zeros_like(F.cast(plane, "float64"))  # anchors() computes in double precision, too
    x, y = (
        F.reshape(F.contrib.arange_like(plane, start=step / 2, step=step, axis=axis), shape=shape)
        for axis, shape in ((3, (1, 1, 1, -1)), (2, (1, 1, -1, 1)))
    )
    centres = F.concat(F.broadcast_add(plane, x), F.broadcast_add(plane, y), dim=1)
    centres = F.reshape(F.transpose(centres, (0, 2, 3, 1)), shape=(1, -1, 1, 2))
    centres = F.tile(F.cast(centres, "float32"), reps=(1, 1, count, 1))
    sizes = F.expand_dims(F.slice_axis(cell, axis=-1, begin=2, end=4), axis=1)
    sizes = F.broadcast_add(F.zeros_like(centres), sizes)
    return F.reshape(F.concat(centres, sizes, dim=-1), shape=(1, -1, 4))


class RawSSD(mx.gluon.HybridBlock):
    """A detector without suppression; it shares the detector's parameters.

    Shapes: ``(N, 3, size, size)`` -> scores ``(N, A, classes)``, without the background's, and
    corners ``(N, A, 4)`` in pixels.

    The caller suppresses overlapping boxes: MXNet's ONNX export would suppress them across classes,
    with only a warning.
    """

    def __init__(self, detector: SSD):
        super().__init__(prefix=detector.prefix, params=detector.params)
        self.detector, self.anchors = detector, detector.anchors

    def hybrid_forward(self, F, x, anchors):
        """Return scores and corners."""
        return scores_and_corners(F, *self.detector.heads(F, x), anchors)


def scores_and_corners(F, logits, offsets, anchors):
    """Return scores ``(N, A, classes)`` and corners ``(N, A, 4)``, single precision.

    The softmax includes the background, whose score is dropped.
    """
    corners = decode(F, offsets, anchors)
    scores = F.softmax(F.cast(logits, "float32"), axis=-1)
    return F.slice_axis(scores, axis=-1, begin=1, end=None), corners


def check_class_names(classes: Sequence[str]) -> list[str]:
    """Return class names as a list; InputError if there are none or duplicates."""
    names = [classes] if isinstance(classes, str) else list(classes or ())
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"classes must be names, at least one, got {classes!r}")
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise InputError(f"classes: {', '.join(duplicates)} is given more than once")
    return names


def _new_old_pairs(reuse: Optional[ClassMap]) -> Iterable[tuple]:
    if reuse is None:
        return ()
    return reuse.items() if isinstance(reuse, Mapping) else ((name, name) for name in reuse)


def _position(key: Union[str, int], names: list[str], which: str) -> int:
    if isinstance(key, str) and key in names:
        return names.index(key)
    if not isinstance(key, str) and 0 <= key < len(names):
        return int(key)
    raise InputError(f"{key!r} is not one of the {which} classes: {', '.join(names)}")


def _replace_output_conv(
    head: PredictionHead, boxes: int, old: int, new: int, rows: Mapping[int, int]
) -> None:
    """Change a class head to ``new`` values per box; copy the ``rows`` {new: old} of each box."""
    before = head.conv
    in_channels, kernel = before.weight.shape[1], before.weight.shape[2]
    with head.name_scope():
        after = _output_conv(in_channels, boxes * new, kernel == 1)
    after.cast(before.weight.dtype)
    if before.weight._data is not None:
        after.initialize(ctx=before.weight.list_ctx())
        for name in ("weight", "bias"):
            source, target = getattr(before, name), getattr(after, name)
            values = target.data(target.list_ctx()[0]).asnumpy()
            shape = values.shape[1:]
            values = values.reshape(boxes, new, *shape)
            known = source.data(source.list_ctx()[0]).asnumpy().reshape(boxes, old, *shape)
            values[:, list(rows)] = known[:, list(rows.values())]
            target.set_data(mx.nd.array(np.reshape(values, (boxes * new, *shape))))
    head.conv = after
