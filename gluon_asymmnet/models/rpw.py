"""Rolling-pointwise convolution (RPW), also called sliding-channel, and nets that use it.

Source: arXiv:2009.05236 and its code; see ``rpw_plan`` for the tables of the nets.
"""

from collections.abc import Sequence
from typing import Optional, Union

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.head import Classifier, GlobalMean
from gluon_asymmnet.models.rpw_plan import (
    Convolution,
    Stage,
    check_rule,
    convolutions,
    net_cost,
    plan,
    window_starts,
)
from gluon_asymmnet.nn.activations import activation
from gluon_asymmnet.nn.bottlenecks import ChannelShuffle

nn = mx.gluon.nn

MAX_GATHERED = 2**20  # channels; the largest net of the tables gathers 2,048


class RPW(mx.gluon.HybridBlock):
    """A 1 x 1 convolution in which each output reads a cyclic window of the input channels.

    The distinct windows are gathered, and a grouped convolution has one group for each::

        out[j] = sum over t < w of K[j, t] * x[(start(j) + t) mod C],    w = C / groups

    Shapes: ``(N, C, H, W) -> (N, channels, H, W)``.  ``conv.weight`` is ``(channels, w, 1, 1)``,
    ordered by window, which is the order of the outputs with the rule ``pytorch``.  With ``cuda``
    the D windows alternate: row ``d * q + i`` computes output ``i * D + d``.

    If ``(1 - overlap) * w`` is not a whole number with ``cuda``, or the number of windows does not
    divide the outputs, the window of every output is gathered separately: exact, but it needs
    memory for ``channels * w`` maps.  With 1 group this is an ordinary convolution.

    Args:
        in_channels: C.
        groups: C / w.
        overlap: share of a window that the next one repeats, in [0, 1).
        rule: positions of the windows, see ``rpw_plan.window_starts``.

    Raises: InputError for invalid windows, or more than ``MAX_GATHERED`` gathered channels.
    """

    def __init__(
        self, in_channels: int, channels: int, groups: int, overlap: float = 0.5,
        rule: str = "cuda", *, prefix=None, params=None,
    ):  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        starts = list(window_starts(in_channels, channels, groups, overlap, rule))
        if groups == 1:
            starts = [0] * channels  # a window is the whole input, wherever it starts
        width, distinct = in_channels // groups, list(dict.fromkeys(starts))
        share = channels // len(distinct)
        rolls = starts == distinct * share
        if rolls or starts == [s for s in distinct for _ in range(share)]:
            starts = distinct
        if len(starts) * width > MAX_GATHERED:
            raise InputError(
                f"{in_channels} channels in {groups} groups with an overlap of {overlap} gather "
                f"{len(starts) * width:,} maps, the limit is {MAX_GATHERED:,}: choose an overlap "
                f"with a whole step whose windows divide the {channels} outputs, often 0.5"
            )
        self.starts = tuple(starts)  # of the gathered windows
        channel = [(start + t) % in_channels for start in starts for t in range(width)]
        with self.name_scope():
            self.channel = (
                None
                if channel == list(range(in_channels))
                else self.params.get_constant("channel", channel)
            )
            self.conv = nn.Conv2D(
                channels, 1, groups=len(starts), in_channels=len(channel), use_bias=False,
                weight_initializer=mx.init.Uniform(width**-0.5), prefix="conv_",
            )  # fmt: skip
            self.deal = (
                ChannelShuffle(len(starts), prefix="deal_")
                if rolls and len(starts) > 1 and share > 1
                else None
            )

    def hybrid_forward(self, F, x, channel=None):
        if channel is not None:
            x = F.take(x, channel, axis=1)
        x = self.conv(x)
        return x if self.deal is None else self.deal(x)


def _layers(conv: Convolution, rule: str):
    """Yield a convolution, its normalisation and its activation."""
    if conv.kind == "rpw":
        yield RPW(
            conv.in_channels, conv.channels, conv.groups, conv.overlap, rule, prefix="rpw_"
        )  # fmt: skip
    else:
        yield nn.Conv2D(
            conv.channels, conv.kernel, conv.stride, conv.kernel // 2, groups=conv.groups,
            use_bias=conv.bias, in_channels=conv.in_channels, prefix=f"{conv.kind}_",
        )  # fmt: skip
    if conv.norm:
        yield nn.BatchNorm(in_channels=conv.channels, prefix=f"{conv.kind}_norm_")
        yield activation("relu")


class StagedNet(Classifier):
    """The net of a plan: ``features`` has a block per stage, each with a block per unit.

    Shapes: ``(N, 3, H, W) -> (N, classes)``, logits.

    Args:
        stages: from ``rpw_plan.plan``.
        rule: positions of all windows.
    """

    def __init__(
        self, stages: Sequence[Stage], rule: str = "cuda", *, classes: int = 10,
        dropout: float = 0.0, prefix=None, params=None,
    ):  # fmt: skip
        channels = stages[-1][-1].channels
        super().__init__(channels, classes=classes, dropout=dropout, prefix=prefix, params=params)
        self.stages, self.rule = tuple(stages), rule
        in_channels = 3
        with self.features.name_scope():
            for s, stage in enumerate(stages):
                block = nn.HybridSequential(prefix=f"stage{s}_")
                with block.name_scope():
                    for i, unit in enumerate(stage):
                        block.add(self._unit(unit, in_channels, rule, f"{i}_"))
                        in_channels = unit.channels
                self.features.add(block)
            self.features.add(GlobalMean())

    @staticmethod
    def _unit(unit, in_channels: int, rule: str, prefix: str):
        block = nn.HybridSequential(prefix=prefix)
        with block.name_scope():
            for conv in convolutions(unit, in_channels):
                block.add(*_layers(conv, rule))
            if unit.pool:
                block.add(nn.MaxPool2D(2, 2, prefix="pool_"))
        return block


def build(
    *, width: float = 1.0, classes: int = 10, dropout: Optional[float] = None,
    input_size: int = 32, prefix: Optional[str] = None, net: Union[str, list] = "vgg16",
    groups: int = 0, overlap: float = 0.5, rule: str = "cuda",
) -> StagedNet:  # fmt: skip
    """Build VGG or MobileNet for CIFAR, with or without RPW, or any net of such units.

    No dropout by default, as in the authors' code.  See ``rpw_plan.plan`` for ``net``, ``groups``
    and ``overlap``, and ``rpw_plan.window_starts`` for ``rule``.

    Raises: InputError for a net that cannot be built, or too small an image.
    """
    check_rule(rule)
    stages = plan(net, groups=groups, overlap=overlap, width=width)
    net_cost(stages, classes, input_size)  # raises if the image is too small
    return StagedNet(stages, rule, classes=classes, dropout=dropout or 0.0, prefix=prefix)
