"""DiCENet: convolutions along every dimension of a feature map, and their fusion.

Source: arXiv:1906.03516; channels, kernels and order of layers are those of the authors'
sacmehta/EdgeNets (``nn_layers/dice.py``, ``model/classification/dicenet.py``).  One difference: map
sizes are fixed when the net is built, where their code resizes maps of another size at run time.
"""

import math
from typing import Optional

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.head import Classifier, GlobalMean
from gluon_asymmnet.nn.bottlenecks import ChannelShuffle, ConvNorm, NormFactory
from gluon_asymmnet.nn.onednn import (
    TRAINING,
    GraphModeMixin,
    channel_mean,
    concat_channels,
    scale_channels,
)

nn = mx.gluon.nn

# width: channels of the stem, of the first stage's input, of the three stages, of the last layer
WIDTHS = {
    0.2: (16, 16, 32, 64, 128, 1024),
    0.5: (24, 24, 48, 96, 192, 1024),
    0.75: (24, 24, 86, 172, 344, 1024),
    1.0: (24, 24, 116, 232, 464, 1024),
    1.25: (24, 24, 144, 288, 576, 1024),
    1.5: (24, 24, 176, 352, 704, 1024),
    1.75: (24, 24, 210, 420, 840, 1024),
    2.0: (24, 24, 244, 488, 976, 1024),
    2.4: (24, 24, 278, 556, 1112, 1280),
}
REPEATS = (3, 7, 3)  # units per stage after the strided one
STRIDE = 32

Size = tuple[int, int]  # rows and columns


class PReLU(mx.gluon.HybridBlock):
    """``x`` where positive, elsewhere ``x`` times a learnt slope per channel.

    Shapes: ``(N, C, H, W) -> (N, C, H, W)``.

    MXNet's operator is not used: in a hybridized net its gradient of a slope is multiplied by the
    slope (MXNet 1.9.1 overwrites the input of that gradient with the gradient of x).
    """

    def __init__(self, channels: int, *, prefix=None, params=None):
        super().__init__(prefix=prefix, params=params)
        with self.name_scope():
            self.alpha = self.params.get("alpha", shape=(channels,), init=mx.init.Constant(0.25))

    def hybrid_forward(self, F, x, alpha):
        slopes = F.reshape(alpha, shape=(1, -1, 1, 1))
        return F.relu(x) - F.broadcast_mul(F.relu(-x), slopes)


class ConvNormPReLU(mx.gluon.HybridBlock):
    """Convolution, batch normalisation, and a ReLU with a learnt slope per channel."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int = 1, stride: int = 1, groups: int = 1,
        *, prefix=None, params=None,
    ):  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        with self.name_scope():
            self.conv = ConvNorm(in_channels, channels, kernel, stride, groups, prefix="")
            self.act = PReLU(channels, prefix="prelu_")

    def hybrid_forward(self, F, x):
        return self.act(self.conv(x))


class DimConv(GraphModeMixin, mx.gluon.HybridBlock):
    """Depthwise 3 x 3 convolutions along each of a map's three dimensions, one filter per slice.

    A slice of the channels has the sides H and W, one of the rows C and W, one of the columns H and
    C.  If the number of rows or columns differs from the number of filters, the map is resized
    along that side, and the result is resized back: bilinearly to enlarge (corners aligned), by
    averaging to shrink.

    Shapes: ``(N, C, H, W) -> (N, 3*C, H, W)``: along the channels, the rows, the columns.

    Args:
        channels: C.
        size: H and W.
        filters: number of filters for rows and columns; ``size`` by default.
    """

    def __init__(
        self, channels: int, size: Size, filters: Optional[Size] = None, *, prefix=None, params=None
    ):
        super().__init__(prefix=prefix, params=params)
        filters = filters or size
        self.size = size
        self.filtered = ((filters[0], size[1]), (size[0], filters[1]))
        with self.name_scope():
            self.depth = _slice_conv(channels, "depth_")
            self.height = _slice_conv(filters[0], "height_")
            self.width = _slice_conv(filters[1], "width_")

    def hybrid_forward(self, F, x):
        by_rows, by_columns = self.filtered
        views = [
            self.depth(x),
            self._along(F, x, self.height, by_rows, (0, 2, 1, 3)),
            self._along(F, x, self.width, by_columns, (0, 3, 2, 1)),
        ]
        return concat_channels(F, views, self.graph_mode)

    def _along(self, F, x, conv, filtered: Size, axes):
        x = F.transpose(_resized(F, x, self.size, filtered), axes)
        return _resized(F, F.transpose(conv(x), axes), filtered, self.size)


def _slice_conv(slices: int, prefix: str):
    return nn.Conv2D(
        slices, 3, padding=1, groups=slices, use_bias=False, in_channels=slices, prefix=prefix
    )


def _resized(F, x, size: Size, to: Size):
    if to == size:
        return x
    if to > size:  # one side differs
        return F.contrib.BilinearResize2D(x, height=to[0], width=to[1])
    return F.contrib.AdaptiveAvgPooling2D(x, output_size=to)


class DimFuse(GraphModeMixin, mx.gluon.HybridBlock):
    """Fuse the three outputs of ``DimConv`` per channel, then across channels.

    Local: a weighted sum of a channel's three maps.  Global: a 3 x 3 convolution in
    ``gcd(in_channels, channels)`` groups, scaled by a gate computed from the channel means.

    Shapes: ``(N, 3*in_channels, H, W) -> (N, channels, H, W)``.
    """

    def __init__(self, in_channels: int, channels: int, *, prefix=None, params=None):
        super().__init__(prefix=prefix, params=params)
        hidden = in_channels // 4
        groups = math.gcd(in_channels, channels)
        with self.name_scope():
            self.shuffle = ChannelShuffle(3)
            self.local = ConvNormPReLU(
                3 * in_channels, in_channels, groups=in_channels, prefix="local_"
            )
            self.reduce = nn.Conv2D(
                hidden, 1, use_bias=False, in_channels=in_channels, prefix="reduce_"
            )
            self.restore = nn.Conv2D(
                channels, 1, use_bias=False, in_channels=hidden, prefix="restore_"
            )
            self.spatial = ConvNormPReLU(in_channels, channels, 3, 1, groups, prefix="spatial_")

    def hybrid_forward(self, F, x):
        x = self.local(self.shuffle(x))
        gate = F.sigmoid(self.restore(F.relu(self.reduce(channel_mean(F, x, self.graph_mode)))))
        x = self.spatial(x)
        if self.graph_mode == TRAINING:
            return scale_channels(F, x, gate)
        return F.broadcast_mul(x, gate)


class DiceUnit(mx.gluon.HybridBlock):
    """``DimConv``, normalised and activated, then ``DimFuse``.

    Shapes: ``(N, in_channels, H, W) -> (N, channels, H, W)``; see ``DimConv`` for the arguments.
    """

    def __init__(
        self, in_channels: int, channels: int, size: Size, filters: Optional[Size] = None,
        *, prefix=None, params=None,
    ):  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        with self.name_scope():
            self.conv = DimConv(in_channels, size, filters, prefix="conv_")
            self.norm = NormFactory()(3 * in_channels)
            self.act = PReLU(3 * in_channels, prefix="prelu_")
            self.fuse = DimFuse(in_channels, channels, prefix="fuse_")

    def hybrid_forward(self, F, x):
        return self.fuse(self.act(self.norm(self.conv(x))))


class StridedDice(GraphModeMixin, mx.gluon.HybridBlock):
    """Halve the sides and double the channels: a depthwise branch beside a pooled DiCE unit.

    Shapes: ``(N, C, 2*H, 2*W) -> (N, 2*C, H, W)``.

    Args:
        channels: C.
        size, filters: of the output, see ``DimConv``.
    """

    def __init__(
        self, channels: int, size: Size, filters: Optional[Size] = None, *, prefix=None, params=None
    ):
        super().__init__(prefix=prefix, params=params)
        with self.name_scope():
            self.left = nn.HybridSequential(prefix="left_")
            with self.left.name_scope():
                self.left.add(
                    ConvNormPReLU(channels, channels, 3, 2, channels, prefix="0_"),
                    ConvNormPReLU(channels, channels, prefix="1_"),
                )
            self.right = nn.HybridSequential(prefix="right_")
            with self.right.name_scope():
                self.right.add(
                    nn.AvgPool2D(3, 2, 1),
                    DiceUnit(channels, channels, size, filters, prefix="dice_"),
                    ConvNormPReLU(channels, channels, prefix="1_"),
                )
            self.shuffle = ChannelShuffle(2)

    def hybrid_forward(self, F, x):
        return self.shuffle(concat_channels(F, [self.left(x), self.right(x)], self.graph_mode))


class ShuffleDice(GraphModeMixin, mx.gluon.HybridBlock):
    """Keep the first half of the channels, apply a DiCE unit to the others, and shuffle.

    Shapes: ``(N, in_channels, H, W) -> (N, channels, H, W)``; ``in_channels`` even; see ``DimConv``
    for ``size`` and ``filters``.
    """

    def __init__(
        self, in_channels: int, channels: int, size: Size, filters: Optional[Size] = None,
        *, prefix=None, params=None,
    ):  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        self.kept = in_channels // 2
        made = channels - self.kept
        with self.name_scope():
            self.conv = ConvNormPReLU(in_channels - self.kept, made, prefix="conv_")
            self.dice = DiceUnit(made, made, size, filters, prefix="dice_")
            self.shuffle = ChannelShuffle(2)

    def hybrid_forward(self, F, x):
        left = F.slice_axis(x, axis=1, begin=0, end=self.kept)
        right = F.slice_axis(x, axis=1, begin=self.kept, end=None)
        right = self.dice(self.conv(right))
        return self.shuffle(concat_channels(F, [left, right], self.graph_mode))


class DiCENet(Classifier):
    """The classifier.

    Shapes: ``(N, 3, input_size, input_size) -> (N, classes)``, logits.

    Args:
        channels: a row of ``WIDTHS``.
        input_size: rows and columns of the images, pixels.
        filter_size: image size that determines the number of filters along rows and columns.
    """

    def __init__(
        self, channels: tuple[int, ...], *, input_size: int, filter_size: int, classes: int,
        dropout: float, prefix=None, params=None,
    ):  # fmt: skip
        stem, entering, *stages, last = channels
        super().__init__(last, classes=classes, dropout=dropout, prefix=prefix, params=params)
        self.input_size = input_size
        with self.features.name_scope():
            self.features.add(
                ConvNormPReLU(3, stem, 3, 2, prefix="stem_"),
                nn.MaxPool2D(3, 2, 1),
            )
            stride = 4
            for stage, (out, repeats) in enumerate(zip(stages, REPEATS)):
                stride *= 2
                size, filters = ((side // stride,) * 2 for side in (input_size, filter_size))
                self.features.add(
                    StridedDice(entering, size, filters, prefix=f"stage{stage}_strided_")
                )
                arriving = 2 * entering
                for index in range(repeats):
                    self.features.add(
                        ShuffleDice(arriving, out, size, filters, prefix=f"stage{stage}_{index}_")
                    )
                    arriving = out
                entering = out
            self.features.add(
                GlobalMean(),
                nn.Conv2D(last, 1, groups=4, use_bias=False, in_channels=out, prefix="last_"),
            )

    def forward(self, x, *args):
        """See the class.  Raises: InputError for images of another size."""
        size = self.input_size
        if isinstance(x, mx.nd.NDArray) and x.shape[2:] != (size, size):
            raise InputError(
                f"this DiCENet takes images of {size} x {size} pixels, got "
                f"{' x '.join(map(str, x.shape[2:]))}: build it with another input_size, and "
                f"filter_size={size} to keep its weights"
            )
        return super().forward(x, *args)


def build(
    *, width: float = 1.0, classes: int = 1000, dropout: Optional[float] = None,
    input_size: int = 224, prefix: Optional[str] = None, filter_size: Optional[int] = None,
):  # fmt: skip
    """Build DiCENet.

    Args:
        width: one of ``WIDTHS``.
        dropout: probability before the classifier; 0.2 above width 1, else 0.1, by default.
        input_size: side of the images, pixels, a multiple of 32.
        filter_size: image size that determines the number of filters along rows and columns, and so
            the number of parameters; a multiple of 32, ``input_size`` by default.  To use weights
            at another ``input_size``, give the size they were trained with.

    Raises: InputError for another width or size.
    """
    if width not in WIDTHS:
        raise InputError(f"DiCENet has the widths {', '.join(map(str, WIDTHS))}, got {width!r}")
    sizes = {"input_size": input_size, "filter_size": filter_size or input_size}
    for name, size in sizes.items():
        if not isinstance(size, int) or size < STRIDE or size % STRIDE:
            raise InputError(
                f"{name} must be a multiple of {STRIDE} pixels: DiCENet has filters for rows and "
                f"columns; got {size!r}"
            )
    if dropout is None:
        dropout = 0.2 if width > 1 else 0.1
    return DiCENet(WIDTHS[width], **sizes, classes=classes, dropout=dropout, prefix=prefix)
