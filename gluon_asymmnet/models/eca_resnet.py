"""ECA-ResNet: efficient channel attention at the end of every residual branch.

Source: arXiv:1910.03151; BangguWu/ECANet, models/eca_resnet.py.  The ResNet is GluonCV's v1b, with
the stride in the 3 x 3 convolution.
"""

from typing import NamedTuple, Optional

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.head import Classifier, GlobalMean
from gluon_asymmnet.nn import ConvNorm
from gluon_asymmnet.nn.activations import activation
from gluon_asymmnet.nn.attention import attention

nn = mx.gluon.nn


class Layout(NamedTuple):
    """The number of blocks of each stage, and whether they are bottlenecks."""

    blocks: tuple[int, int, int, int]
    bottleneck: bool


LAYOUTS = {
    18: Layout((2, 2, 2, 2), False),
    34: Layout((3, 4, 6, 3), False),
    50: Layout((3, 4, 6, 3), True),
    101: Layout((3, 4, 23, 3), True),
    152: Layout((3, 8, 36, 3), True),
}
WIDTHS = (64, 128, 256, 512)


class Residual(mx.gluon.HybridBlock):
    """Two 3 x 3 convolutions, or a bottleneck of three; ECA; the sum; ReLU.

    Shapes: ``(N, in_channels, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))``; ``out`` is
    ``channels``, fourfold in a bottleneck.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, bottleneck: bool,
        kernel: Optional[int], shared: bool, *, prefix=None,
    ):  # fmt: skip
        super().__init__(prefix=prefix)
        out = 4 * channels if bottleneck else channels
        with self.name_scope():
            self.body = nn.HybridSequential(prefix="body_")
            with self.body.name_scope():
                if bottleneck:
                    self.body.add(
                        ConvNorm(in_channels, channels, act="relu", prefix="0_"),
                        ConvNorm(channels, channels, 3, stride, act="relu", prefix="1_"),
                        ConvNorm(channels, out, prefix="2_"),
                    )
                else:
                    self.body.add(
                        ConvNorm(in_channels, channels, 3, stride, act="relu", prefix="0_"),
                        ConvNorm(channels, out, 3, prefix="1_"),
                    )
            self.attention = attention("eca", out, kernel=kernel, shared=shared)
            self.shortcut = (
                ConvNorm(in_channels, out, 1, stride, prefix="shortcut_")
                if stride > 1 or in_channels != out
                else None
            )
            self.relu = activation("relu")

    def hybrid_forward(self, F, x):
        y = self.attention(self.body(x))
        return self.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def build(
    *, width: float = 1.0, classes: int = 1000, dropout: Optional[float] = None,
    input_size: int = 224, prefix: Optional[str] = None, depth: int = 50,
    kernels: Optional[list] = None, shared: bool = True,
):  # fmt: skip
    """Build ECA-ResNet.

    Args:
        width: 1.
        dropout: none by default.
        depth: 18, 34, 50, 101 or 152.
        kernels: one per stage; default: ``eca_kernel`` of the channels, which the published models
            do not use.
        shared: see ``nn.attention.EfficientAttention``.
    """
    if width != 1:
        raise InputError(f"ECA-ResNet has the width 1.0 only, got {width!r}")
    if not isinstance(depth, int) or depth not in LAYOUTS:
        raise InputError(f"depth must be one of {', '.join(map(str, LAYOUTS))}, got {depth!r}")
    kernels = [None] * 4 if kernels is None else kernels
    if not isinstance(kernels, (list, tuple)) or len(kernels) != 4:
        raise InputError(f"kernels must be four odd numbers, one per stage, got {kernels!r}")
    layout = LAYOUTS[depth]
    last = WIDTHS[-1] * (4 if layout.bottleneck else 1)
    net = Classifier(last, classes=classes, dropout=dropout or 0, prefix=prefix)
    with net.features.name_scope():
        net.features.add(
            ConvNorm(3, 64, 7, 2, act="relu", prefix="stem_"), nn.MaxPool2D(3, 2, 1, prefix="pool_")
        )
        arriving = 64
        for stage, (channels, blocks, kernel) in enumerate(zip(WIDTHS, layout.blocks, kernels)):
            for index in range(blocks):
                stride = 2 if stage and not index else 1
                net.features.add(
                    Residual(
                        arriving, channels, stride, layout.bottleneck, kernel, shared,
                        prefix=f"stage{stage + 1}_{index}_",
                    )
                )  # fmt: skip
                arriving = 4 * channels if layout.bottleneck else channels
        net.features.add(GlobalMean())
    return net
