"""Nets of the comparison that the package does not name."""

from gluon_asymmnet import register_model
from gluon_asymmnet.arch import (
    BlockPlan,
    NetPlan,
    NetSpec,
    plan_net,
    round_nearest,
    round_up,
    scale_spec,
)
from gluon_asymmnet.models import mobilenetv2
from gluon_asymmnet.models.asymmnet import AsymmNet
from gluon_asymmnet.models.registry import SPECS
from gluon_asymmnet.nn.bottlenecks import ConvNorm
from gluon_asymmnet.nn.onednn import concat_channels


@register_model("mobilenetv2_blocks")
def mobilenetv2_blocks(classes: int, width: float = 1.0, dropout: float = 0.0):
    """Return MobileNetV2 of the package's blocks, so that rate 0 and 1 differ in the rate alone.

    ``get_model("mobilenetv2")`` has GluonCV's.
    """
    scale = mobilenetv2.truncating_scale(width)
    blocks = [dict(plan=plan) for _, plan in mobilenetv2.plan_stages(scale)]
    last = int(mobilenetv2.LAST * max(width, 1))
    return mobilenetv2.MobileNetV2(
        scale(mobilenetv2.STEM), blocks, last, classes=classes, dropout=dropout, use_bias=False
    )


@register_model("inverted_residuals")
def inverted_residuals(
    classes: int, table: str = "large", width: float = 1.0, factor: float = 1.0,
    dropout: float = 0.0,
):  # fmt: skip
    """Return AsymmNet at rate 0, ``widened`` by a factor."""
    plan = plan_net(widened(SPECS[f"asymmnet_{table}"], width, factor), rate=0, stem="scaled")
    return AsymmNet(plan, classes=classes, dropout=dropout)


def widened(spec: NetSpec, width: float, factor: float) -> NetSpec:
    """Scale a table by ``width``, then by ``factor`` to the nearest multiples of 8."""
    spec = scale_spec(spec, width)
    blocks = tuple(
        block._replace(
            expanded=round_nearest(block.expanded, factor), out=round_nearest(block.out, factor)
        )
        for block in spec.blocks
    )
    stem, squeeze = (round_nearest(channels, factor) for channels in (spec.stem, spec.squeeze))
    return spec._replace(stem=stem, blocks=blocks, squeeze=squeeze)


@register_model("asymmnet_one_side")
def asymmnet_one_side(
    classes: int, width: float = 1.0, factor: float = 1.0, dropout: float = 0.0
):  # fmt: skip
    """Return AsymmNet-Large whose blocks concatenate their input on one side only.

    Of the ``E`` channels of a block, ``C`` are its input and ``E - C`` are computed; the depthwise
    convolution sees ``E`` of them, not ``E + C``.
    """
    plan = one_side_plan(plan_net(widened(SPECS["asymmnet_large"], width, factor), stem="scaled"))
    net = AsymmNet(plan, classes=classes, dropout=dropout)
    for block, row in zip(net.features.blocks, plan.blocks):
        if row.expand_channels:
            with block.name_scope():
                block.expand = InputAndExpansion(
                    row.in_channels, row.expand_channels, act=row.act, prefix="expand_"
                )
    return net


def one_side_plan(plan: NetPlan) -> NetPlan:
    """Return a plan of rate 1 without the second copy of each block's input."""
    return plan._replace(blocks=tuple(_without_copy(block) for block in plan.blocks))


def _without_copy(block: BlockPlan) -> BlockPlan:
    if not block.rate:
        return block
    channels = block.depthwise_channels - block.in_channels
    hidden = round_up(channels // 4) if block.se_hidden else 0
    return block._replace(rate=0, depthwise_channels=channels, se_hidden=hidden)


class InputAndExpansion(ConvNorm):
    """The input's channels, then those computed from it: ``(N, C, H, W) -> (N, E, H, W)``."""

    def hybrid_forward(self, F, x):
        """Return the concatenation."""
        return concat_channels(F, [x, super().hybrid_forward(F, x)], self.graph_mode)
