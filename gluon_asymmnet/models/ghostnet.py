"""GhostNet, plain and with asymmetrical bottlenecks.

Source: arXiv:1911.11907, table 1, and models/ghostnet.py of Spark001/AsymmNet, with equal parameter
counts.  That file differs from gluoncv2's net by the convolution before the classifier, with bias
and without normalisation, and by MobileNetV3's hard sigmoid.  Unlike GhostNet's own code, both have
3 x 3 depthwise convolutions with ReLU in all shortcuts.
"""

import math
from fractions import Fraction
from typing import NamedTuple, Optional

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.arch import round_nearest
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.head import Classifier, GlobalMean
from gluon_asymmnet.nn import ConvNorm
from gluon_asymmnet.nn.activations import activation
from gluon_asymmnet.nn.attention import attention_in_bottleneck
from gluon_asymmnet.nn.onednn import GraphModeMixin, concat_channels

nn = mx.gluon.nn

STEM, LAST, HIDDEN = 16, 960, 1280


class Unit(NamedTuple):
    """A row of the table, at width 1.0."""

    channels: int
    expansion: str  # multiplies the input channels; an exact decimal
    kernel: int  # of the depthwise convolution, which exists at stride 2 only
    stride: int
    attention: bool  # squeeze-and-excite


UNITS = (
    Unit(16, "1", 3, 1, False),
    Unit(24, "3", 3, 2, False),
    Unit(24, "3", 3, 1, False),
    Unit(40, "3", 5, 2, True),
    Unit(40, "3", 5, 1, True),
    Unit(80, "6", 3, 2, False),
    Unit(80, "2.5", 3, 1, False),
    Unit(80, "2.3", 3, 1, False),
    Unit(80, "2.3", 3, 1, False),
    Unit(112, "6", 3, 1, True),
    Unit(112, "6", 3, 1, True),
    Unit(160, "6", 5, 2, True),
    Unit(160, "6", 5, 1, False),
    Unit(160, "6", 5, 1, True),
    Unit(160, "6", 5, 1, False),
    Unit(160, "6", 5, 1, True),
)


class GhostModule(GraphModeMixin, mx.gluon.HybridBlock):
    """Half of the channels from a 1 x 1 convolution, the others from these by a depthwise 3 x 3.

    Shapes: ``(N, in_channels, H, W) -> (N, channels, H, W)``; ``channels`` is even.
    """

    def __init__(self, in_channels: int, channels: int, act: Optional[str], *, prefix=None):
        super().__init__(prefix=prefix)
        half = channels // 2
        with self.name_scope():
            self.primary = ConvNorm(in_channels, half, act=act, prefix="primary_")
            self.cheap = ConvNorm(half, half, 3, 1, half, act, prefix="cheap_")

    def hybrid_forward(self, F, x):
        x = self.primary(x)
        return concat_channels(F, [x, self.cheap(x)], self.graph_mode)


class GhostUnit(GraphModeMixin, mx.gluon.HybridBlock):
    """Bottleneck of two Ghost modules, the first of which expands the channels.

    At rate r the first module computes ``E - r*C`` of the ``E`` channels, and r copies of the input
    are concatenated on each side, as in ``AsymmBottleneck``; the rest of the unit has ``E + r*C``.

    Inferred: this combination of the paper's block and a Ghost unit.  arXiv:2104.07770 calls its
    block a drop-in replacement; the released code has no such GhostNet.

    Shapes: ``(N, C, H, W) -> (N, out, ceil(H / s), ceil(W / s))``, s the stride.

    Args:
        in_channels, expanded, out: C, ``E + r*C`` and the output channels.
        kernel, stride: of the depthwise convolution, which exists at stride 2 only.
        rate: copies of the input concatenated on each side; 0: GhostNet.
        attention, settings: see ``nn.attention.attention``.
    """

    def __init__(
        self, in_channels: int, expanded: int, out: int, kernel: int, stride: int, rate: int,
        attention: Optional[str], settings: dict, *, prefix=None,
    ):  # fmt: skip
        super().__init__(prefix=prefix)
        self.rate = rate
        with self.name_scope():
            self.expand = GhostModule(
                in_channels, expanded - 2 * rate * in_channels, "relu", prefix="expand_"
            )
            self.depthwise = (
                ConvNorm(expanded, expanded, kernel, stride, expanded, prefix="depthwise_")
                if stride > 1
                else None
            )
            self.wide_attention, self.out_attention = attention_in_bottleneck(
                attention, expanded, out, settings
            )
            self.project = GhostModule(expanded, out, None, prefix="project_")
            self.shortcut = None
            if stride > 1 or in_channels != out:
                self.shortcut = nn.HybridSequential(prefix="shortcut_")
                with self.shortcut.name_scope():
                    self.shortcut.add(
                        ConvNorm(
                            in_channels, in_channels, 3, stride, in_channels, "relu",
                            prefix="depthwise_",
                        ),
                        ConvNorm(in_channels, out, prefix="project_"),
                    )  # fmt: skip

    def hybrid_forward(self, F, x):
        copies = [x] * self.rate
        y = self.expand(x)
        if copies:
            y = concat_channels(F, [*copies, y, *copies], self.graph_mode)
        for layer in (self.depthwise, self.wide_attention, self.project, self.out_attention):
            if layer is not None:
                y = layer(y)
        return y + (x if self.shortcut is None else self.shortcut(x))


def build(
    *, width: float = 1.0, rate: int = 0, classes: int = 1000, dropout: Optional[float] = None,
    input_size: int = 224, prefix: Optional[str] = None, attention: Optional[str] = "se",
    attention_settings: Optional[dict] = None,
):  # fmt: skip
    """Build GhostNet.

    Args:
        rate: copies of the input concatenated on each side of the computed channels, 0 to 2.
        dropout: 0.2 by default.
        attention, attention_settings: of the units with squeeze-and-excite in the table; see
            ``nn.attention.attention``.

    Raises: InputError if a unit cannot be built at this width or rate.
    """
    if attention == "se":
        attention_settings = {"divisor": 1, **(attention_settings or {})}
    last = round_nearest(LAST, max(width, 1), 4)
    net = Classifier(
        HIDDEN, classes=classes, dropout=0.2 if dropout is None else dropout, prefix=prefix
    )
    with net.features.name_scope():
        channels = round_nearest(STEM, width, 4)
        net.features.add(ConvNorm(3, channels, 3, 2, 1, "relu", prefix="stem_"))
        for index, unit in enumerate(UNITS):
            out = round_nearest(unit.channels, width, 4)
            expanded = math.ceil(channels * Fraction(unit.expansion))
            copies = rate if expanded > channels else 0
            if expanded % 2:
                raise InputError(
                    f"at width {width} unit {index} of GhostNet would have {expanded} channels, "
                    f"which do not halve; take a width such as 0.5, 0.75, 1.0 or 1.3"
                )
            if expanded <= copies * channels:
                raise InputError(
                    f"unit {index} of GhostNet has {expanded} channels, all of them copies of its "
                    f"input at rate {rate}: take a rate of at most {(expanded - 1) // channels}"
                )
            net.features.add(
                GhostUnit(
                    channels, expanded + copies * channels, out, unit.kernel, unit.stride, copies,
                    attention if unit.attention else None,
                    attention_settings if unit.attention else {}, prefix=f"{index}_",
                )
            )  # fmt: skip
            channels = out
        net.features.add(
            ConvNorm(channels, last, act="relu", prefix="last_"),
            GlobalMean(),
            nn.Conv2D(HIDDEN, 1, in_channels=last, prefix="hidden_"),
            activation("relu"),
        )
    return net
