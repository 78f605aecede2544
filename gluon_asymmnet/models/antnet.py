"""ANTNet: MobileNetV2 with attention in the expanded space and grouped projections.

Source: arXiv:1904.03775.  The authors published no code; table and block are from
dhananjaisharma10/ANTNet, the official result table from yyxiongzju/ANTNets.

Inferred:
- batch normalisation, and no biases but the classifier's, as in MobileNetV2; the third-party code
  has biases and no normalisation.
- the first block's projection is not grouped: only so does the cost of two groups differ from that
  of one as in the official table, by 55M multiply-adds.
- channels scale to the nearest multiple of 8, and the last convolution's only upwards, as in
  MobileNetV2's code.
- no dropout: nothing found tells of one.
"""

from typing import Optional

from gluon_asymmnet.arch import round_nearest
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.mobilenetv2 import LAST, STEM, MobileNetV2, plan_stages

REDUCTIONS = (8, 8, 12, 16, 24, 32, 64)  # of the attention, per stage


def build(
    *, width: float = 1.0, rate: int = 0, classes: int = 1000, dropout: Optional[float] = None,
    input_size: int = 224, prefix: Optional[str] = None, groups: int = 1,
):  # fmt: skip
    """Build ANTNet.

    Args:
        groups: of the projecting 1 x 1 convolutions, but the first block's.

    Raises: InputError if the groups do not divide the channels of a block.
    """
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        raise InputError(f"groups must be a whole number from 1 on, got {groups!r}")

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
