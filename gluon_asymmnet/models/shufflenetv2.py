"""ShuffleNet V2, optionally with regular 3 x 3 convolutions for ``compress`` to decompose."""

from typing import Optional

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.nn.bottlenecks import ChannelShuffle, ConvNorm
from gluon_asymmnet.nn.onednn import GraphModeMixin, concat_channels

nn = mx.gluon.nn

STEM = 24
UNITS = (4, 8, 4)  # of stages 2, 3, 4; the first of each halves the resolution
# width -> channels of stages 2, 3, 4, and of the last 1 x 1 convolution
CHANNELS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
REGULAR = ("none", "right", "both")


class ShuffleUnit(GraphModeMixin, mx.gluon.HybridBlock):
    """Half of the channels go through three convolutions, then all channels are shuffled.

    With stride 2 both branches read all channels, the left one with two convolutions.  Only the
    1 x 1 convolutions are followed by a ReLU.

    Shapes: ``(N, in_channels, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride))``.

    Args:
        in_channels: equal to ``channels`` with stride 1.
        regular: branches whose 3 x 3 convolution is not depthwise: one of ``REGULAR``.

    Source: arXiv:1807.11164, figure 3 c and d.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, regular: str = "none",
        *, prefix=None, params=None,
    ):  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        half = channels // 2
        self._kept = in_channels // 2 if stride == 1 else 0
        right_in = half if stride == 1 else in_channels
        with self.name_scope():
            self.left = None
            if stride == 2:
                self.left = nn.HybridSequential(prefix="left_")
                with self.left.name_scope():
                    groups = 1 if regular == "both" else in_channels
                    self.left.add(
                        ConvNorm(in_channels, in_channels, 3, 2, groups, prefix="spatial_"),
                        ConvNorm(in_channels, half, act="relu", prefix="project_"),
                    )
            self.right = nn.HybridSequential(prefix="right_")
            with self.right.name_scope():
                groups = half if regular == "none" else 1
                self.right.add(
                    ConvNorm(right_in, half, act="relu", prefix="reduce_"),
                    ConvNorm(half, half, 3, stride, groups, prefix="spatial_"),
                    ConvNorm(half, half, act="relu", prefix="project_"),
                )
            self.shuffle = ChannelShuffle(2, prefix="shuffle_")

    def hybrid_forward(self, F, x):
        if self.left is None:
            left = F.slice_axis(x, axis=1, begin=0, end=self._kept)
            x = F.slice_axis(x, axis=1, begin=self._kept, end=None)
        else:
            left = self.left(x)
        return self.shuffle(concat_channels(F, [left, self.right(x)], self.graph_mode))


class ShuffleNetV2(mx.gluon.HybridBlock):
    """The classifier.  Shapes: ``(N, 3, H, W) -> (N, classes)``, logits; any H and W of at least 1.

    Source: arXiv:1807.11164, table 5; at width 1 GluonCV's ``shufflenet_v2``.
    """

    def __init__(
        self, channels, classes: int, dropout: float, regular: str, *, prefix=None, params=None
    ):
        super().__init__(prefix=prefix, params=params)
        *stages, last = channels
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="features_")
            with self.features.name_scope():
                self.features.add(
                    ConvNorm(3, STEM, 3, 2, act="relu", prefix="stem_"),
                    nn.MaxPool2D(3, 2, 1, prefix="pool_"),
                )
                before = STEM
                for number, (out, units) in enumerate(zip(stages, UNITS), start=2):
                    stage = nn.HybridSequential(prefix=f"stage{number}_")
                    with stage.name_scope():
                        for unit in range(units):
                            arriving, stride = (out, 1) if unit else (before, 2)
                            stage.add(
                                ShuffleUnit(arriving, out, stride, regular, prefix=f"{unit}_")
                            )
                    self.features.add(stage)
                    before = out
                self.features.add(
                    ConvNorm(before, last, act="relu", prefix="last_"),
                    nn.GlobalAvgPool2D(prefix="mean_"),
                )
                if dropout:
                    self.features.add(nn.Dropout(dropout, prefix="dropout_"))
            self.output = nn.Dense(classes, in_units=last, prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.features(x))


def build(
    *, width: float, classes: int, dropout: Optional[float], input_size: int,
    prefix: str, regular: str = "none",
) -> ShuffleNetV2:  # fmt: skip
    """Build ShuffleNet V2.

    Args:
        width: 0.5, 1, 1.5 or 2, the paper's networks; their channels are not proportional.
        dropout: none by default, as published.
        regular: ``both``: every 3 x 3 depthwise convolution becomes a regular one with equal
            channels; ``right``: those of the left branch of units with stride 2 stay depthwise.

    Raises: InputError for another width or ``regular``.

    Inferred: the network of the Depth-wise Decomposition paper (arXiv:1910.09455) is ``both``; its
    full text was not available.
    """
    if width not in CHANNELS:
        raise InputError(
            f"width of ShuffleNet V2 must be one of {', '.join(map(str, CHANNELS))}, got {width}"
        )
    if regular not in REGULAR:
        raise InputError(f"regular must be one of {', '.join(REGULAR)}, got {regular!r}")
    return ShuffleNetV2(CHANNELS[width], classes, dropout or 0, regular, prefix=prefix)
