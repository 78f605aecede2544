"""ANTNet: MobileNetV2 with attention in the expanded space and grouped projections.

Source: arXiv:1904.03775.  The authors published no code.  Table and block are from
dhananjaisharma10/ANTNet, the official results from yyxiongzju/ANTNets.

Inferred:
- batch normalisation, and a bias in the classifier only, as in MobileNetV2; the third-party code
  has biases and no normalisation.
- the first block's projection is not grouped: this gives the difference of 55M multiply-adds
  between one and two groups in the official table.
- channels are scaled to the nearest multiple of 8, those of the last convolution only upwards, as
  in MobileNetV2's code.
- no dropout: no source mentions one.
"""

from typing import Optional

from gluon_asymmnet.arch import round_nearest
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.mobilenetv2 import LAST, STEM, MobileNetV2, plan_stages

REDUCTIONS = (8, 8, 12, 16, 24, 32, 64)  # reduction of the attention, per stage


def build(
    *, width: float = 1.0, rate: int = 0, classes: int = 1000, dropout: Optional[float] = None,
    input_size: int = 224, prefix: Optional[str] = None, groups: int = 1,
):  # fmt: skip
    """Build ANTNet.

    Args:
        groups: groups of the projecting 1 x 1 convolutions, except in the first block.

    Raises: InputError if the groups do not divide the channels of a block.
    """
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        raise InputError(f"groups must be a whole number, at least 1, got {groups!r}")

    def scale(channels: int) -> int:
        return round_nearest(channels, width)

    blocks = []
    for index, (stage, plan) in enumerate(plan_stages(scale, rate)):
        grouped = groups if index else 1
        if plan.depthwise_channels % grouped or plan.out % grouped:
            raise InputError(
                f"groups must divide {plan.depthwise_channels} and {plan.out}, the channels around "
                f"the projection of block {index} at width {width}; got {groups}"
            )
        blocks.append(
            dict(
                plan=plan,
                attention="ant",
                attention_settings={"reduction": REDUCTIONS[stage]},
                groups=grouped,
            )
        )
    return MobileNetV2(
        scale(STEM), blocks, round_nearest(LAST, max(width, 1)), classes=classes,
        dropout=dropout or 0, prefix=prefix,
    )  # fmt: skip
