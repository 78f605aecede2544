"""ECA-MobileNetV2: efficient channel attention on the output of every bottleneck.

Source: arXiv:1910.03151; BangguWu/ECANet, models/eca_mobilenetv2.py.
"""

from typing import Optional

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.mobilenetv2 import (
    LAST,
    STAGES,
    STEM,
    MobileNetV2,
    plan_stages,
    truncating_scale,
)


def build(
    *, width: float = 1.0, rate: int = 0, classes: int = 1000, dropout: Optional[float] = None,
    input_size: int = 224, prefix: Optional[str] = None, wide_from: int = 96,
):  # fmt: skip
    """Build ECA-MobileNetV2.

    Args:
        dropout: 0.25 by default.
        wide_from: stages with at least this number of channels at width 1 have kernel 3, the others
            kernel 1, which is one scalar for all channels.  96 in the authors' current code, 97 in
            their first release, which the published model uses.
    """
    if isinstance(wide_from, bool) or not isinstance(wide_from, int):
        raise InputError(f"wide_from must be a whole number of channels, got {wide_from!r}")
    scale = truncating_scale(width)
    blocks = [
        dict(
            plan=plan,
            attention="eca",
            attention_settings={"kernel": 3 if STAGES[stage].channels >= wide_from else 1},
        )
        for stage, plan in plan_stages(scale, rate)
    ]
    return MobileNetV2(
        scale(STEM), blocks, int(LAST * max(width, 1)), classes=classes,
        dropout=0.25 if dropout is None else dropout, prefix=prefix,
    )  # fmt: skip
