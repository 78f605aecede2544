"""MobileNetV2, plain and with asymmetrical bottlenecks.

Source: arXiv:1801.04381, table 2, and GluonCV's net; for the asymmetrical one models/mobilenetv2.py
of Spark001/AsymmNet, with equal parameter counts.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

from gluon_asymmnet._mxnet import gluoncv, mx
from gluon_asymmnet.arch import BlockPlan, BlockSpec, plan_block
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.head import Classifier, GlobalMean
from gluon_asymmnet.nn import AsymmBottleneck, ConvNorm

STEM, LAST = 32, 1280


class Stage(NamedTuple):
    """A row of the table, at width 1.0."""

    expansion: int  # multiplies each block's input channels
    channels: int
    blocks: int
    stride: int  # of the first block


STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)


def truncating_scale(width: float) -> Callable[[int], int]:
    """Return a function that scales channels and truncates them, like GluonCV and ECA's authors."""
    smallest = STAGES[0].channels
    if smallest * width < 1:
        raise InputError(f"width must be at least {1 / smallest} for one channel, got {width}")
    return lambda channels: int(channels * width)


def plan_stages(scale: Callable[[int], int], rate: int = 0) -> list[tuple[int, BlockPlan]]:
    """Return the plan of each block with the index of its stage.

    Args:
        scale: function from the table's channels to the net's.
        rate: copies of the input concatenated on each side of the computed channels; 0:
            MobileNetV2.

    Raises: InputError for a rate that leaves no channels to compute.
    """
    plans, channels = [], scale(STEM)
    for index, stage in enumerate(STAGES):
        for stride in (stage.stride, *[1] * (stage.blocks - 1)):
            expanded, out = stage.expansion * channels, scale(stage.channels)
            spec = BlockSpec(3, expanded, out, False, "relu6", stride)
            plans.append((index, plan_block(channels, spec, rate)))
            channels = out
    return plans


class MobileNetV2(Classifier):
    """Inverted bottlenecks between two convolutions; see ``Classifier``.

    Args:
        stem, last: channels of the first and the last convolution.
        blocks: the arguments of each ``AsymmBottleneck``.
        settings: arguments of ``Classifier``.
    """

    def __init__(self, stem: int, blocks: Sequence[dict], last: int, **settings):
        super().__init__(last, **settings)
        with self.features.name_scope():
            self.features.add(ConvNorm(3, stem, 3, 2, 1, "relu6", prefix="stem_"))
            for index, block in enumerate(blocks):
                self.features.add(AsymmBottleneck(**block, prefix=f"{index}_"))
            out = blocks[-1]["plan"].out
            self.features.add(ConvNorm(out, last, act="relu6", prefix="last_"), GlobalMean())


def build(
    *, width: float = 1.0, rate: int = 0, classes: int = 1000, dropout: Optional[float] = None,
    input_size: int = 224, prefix: Optional[str] = None, attention: Optional[str] = None,
    attention_settings: Optional[dict] = None,
):  # fmt: skip
    """Build MobileNetV2; GluonCV's own features at rate 0 without attention.

    The classifier has no bias and no dropout, as in GluonCV and the code of AsymmNet's authors.

    Args:
        rate: copies of the input concatenated on each side of the computed channels, 0 to 5.
        attention, attention_settings: of every block; see ``nn.attention.attention``.
    """
    scale = truncating_scale(width)
    last = int(LAST * max(width, 1))
    settings = dict(classes=classes, dropout=dropout or 0, use_bias=False, prefix=prefix)
    if rate == 0 and attention is None and not attention_settings:
        whole = gluoncv.model_zoo.MobileNetV2(width, prefix=prefix)
        net = Classifier(last, features=whole.features, **settings)
        net.infer_shape(mx.nd.zeros((1, 3, 32, 32)))  # GluonCV defers the input channels
        return net
    extra = dict(attention=attention, attention_settings=attention_settings)
    blocks = [dict(plan=plan, **extra) for _, plan in plan_stages(scale, rate)]
    return MobileNetV2(scale(STEM), blocks, last, **settings)
