"""AddressNet: grouped 1 x 1 convolutions with shifts, which need no arithmetic, between them.

Source: arXiv:1809.08458 and its poster at WACV 2019; the authors published no code.

From the poster: the shifts, the order within a block, 4 groups, the shortcuts, and the table of the
ImageNet model.

Inferred:

- batch normalisation and ReLU after the first 1 x 1 convolution, batch normalisation after the
  second, ReLU after the concatenation or sum; the stem is a 3 x 3 convolution with
  batch normalisation and ReLU.
- the pooling of a strided shortcut is ShuffleNet's, 3 x 3, and the second 1 x 1 convolution has the
  stride, as in ShiftNet.
- the expansion multiplies the input channels of a block.
- the branch of a strided block computes the output channels that its shortcut does not supply.
- the CIFAR models are ShiftResNet's, with 6n + 2 layers and 16, 32, 64 channels; an expansion of 9
  is close to the published 0.14M parameters and 37.3M operations, but not equal.
- Enhanced AddressNet: no source defines it.  Here it has shortcut shifts in place of sums, with the
  second half of the block's input, so that the number of channels does not change.
- no dropout; widths other than 1 scale channels up to multiples of 8.
"""

from typing import NamedTuple, Optional

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.arch import round_up
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.head import Classifier, GlobalMean
from gluon_asymmnet.nn.bottlenecks import ConvNorm
from gluon_asymmnet.nn.shift import AddressShift, ChannelShift, ShortcutShift

nn = mx.gluon.nn

GROUPS = 4
# (channels, stride of the first block, expansion of each block)
IMAGENET = (
    (96, 2, (4, 3, 3, 3)),
    (192, 2, (3, 2, 2, 2, 2)),
    (384, 2, (2, 2, 2, 2, 2, 2)),
    (768, 2, (2, 2, 2, 2)),
)
IMAGENET_STEM = 32


class AddressPlan(NamedTuple):
    """The dimensions of one block."""

    in_channels: int
    hidden: int  # channels between the two 1 x 1 convolutions
    out: int
    stride: int


class AddressBlock(mx.gluon.HybridBlock):
    """Grouped 1 x 1 convolution, channel shift, address shift, grouped 1 x 1 convolution.

    The shortcut is added at stride 1; at stride 2 it is pooled and concatenated.

    Shapes: ``(N, in_channels, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))``.

    Args:
        plan: the block's channels and stride.
        shift: the mode of ``AddressShift``.
        enhanced: at stride 1 concatenate the second half of the input instead of adding all of it.
    """

    def __init__(
        self, plan: AddressPlan, shift: str = "flat", *, enhanced: bool = False, prefix=None,
        params=None,
    ):  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        in_channels, hidden, out, stride = plan
        self.pooled = stride == 2
        carried = in_channels if self.pooled else in_channels // 2 if enhanced else 0
        self.dropped = in_channels - carried
        with self.name_scope():
            self.expand = ConvNorm(in_channels, hidden, groups=GROUPS, act="relu", prefix="expand_")
            self.channel_shift = ChannelShift(hidden, GROUPS)
            self.address_shift = AddressShift(hidden, shift)
            self.project = ConvNorm(
                hidden, out - carried, stride=stride, groups=GROUPS, prefix="project_"
            )
            self.join = ShortcutShift() if carried else None

    def hybrid_forward(self, F, x):
        y = self.project(self.address_shift(self.channel_shift(self.expand(x))))
        if self.join is None:
            return F.relu(x + y)
        if self.pooled:
            x = F.Pooling(x, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="avg")
        else:
            x = F.slice_axis(x, axis=1, begin=self.dropped, end=None)
        return self.join(x, y)


class AddressNet(Classifier):
    """The classifier.

    Shapes: ``(N, 3, H, W) -> (N, classes)``, logits; any H and W.

    Args:
        plans: the blocks.
        stem_stride: stride of the first convolution.
        shift, enhanced: see ``AddressBlock``.
    """

    def __init__(
        self, plans: list[AddressPlan], *, stem_stride: int, shift: str, enhanced: bool,
        classes: int, dropout: float, prefix=None, params=None,
    ):  # fmt: skip
        super().__init__(
            plans[-1].out, classes=classes, dropout=dropout, prefix=prefix, params=params
        )
        with self.features.name_scope():
            self.features.add(
                ConvNorm(3, plans[0].in_channels, 3, stem_stride, act="relu", prefix="stem_")
            )
            for index, plan in enumerate(plans):
                self.features.add(
                    AddressBlock(plan, shift, enhanced=enhanced, prefix=f"block{index}_")
                )
            self.features.add(GlobalMean())


def plan_blocks(stem: int, stages) -> list[AddressPlan]:
    """Return the blocks of the stages; ``stem`` is the number of channels of the first convolution.

    Args:
        stages: rows like those of ``IMAGENET``.

    Raises: InputError if a strided block adds no channels, or groups do not divide channels.
    """
    plans, channels = [], stem
    for out, stride, expansions in stages:
        for expansion in expansions:
            plan = AddressPlan(channels, expansion * channels, out, stride)
            if stride == 2 and out <= channels:
                raise InputError(
                    f"a strided block concatenates its input with its branch: {channels} channels "
                    f"must become more, not {out}"
                )
            if any(c % (2 * GROUPS) for c in plan[:3]):
                raise InputError(
                    f"half-groups of {GROUPS} groups need multiples of {2 * GROUPS} channels, got "
                    f"{channels}, {plan.hidden} and {out}"
                )
            plans.append(plan)
            channels, stride = out, 1
    return plans


def build(
    *, width: float = 1.0, classes: int = 1000, dropout: Optional[float] = None,
    input_size: int = 224, prefix: Optional[str] = None, depth: Optional[int] = None,
    channels: tuple[int, ...] = (16, 32, 64), expansion: int = 9, shift: str = "flat",
    enhanced: bool = False,
):  # fmt: skip
    """Build AddressNet for ImageNet or, with a depth, for CIFAR.

    Args:
        depth: layers of the CIFAR model, 6n + 2: stem, three stages of n blocks, classifier.
        channels, expansion: of the stages of the CIFAR model.
        shift: ``flat``, the paper's, or ``zero``; see ``AddressShift``.
        enhanced: shortcut shifts in place of sums.

    Raises: InputError for settings that cannot be combined.
    """
    stem, stem_stride, stages = IMAGENET_STEM, 2, IMAGENET
    if depth is not None:
        _check_cifar(depth, channels, expansion)
        stem, stem_stride, expansions = channels[0], 1, (expansion,) * ((depth - 2) // 6)
        stages = tuple((out, 2 if i else 1, expansions) for i, out in enumerate(channels))
    if not isinstance(enhanced, bool):
        raise InputError(f"enhanced is true or false, got {enhanced!r}")
    sized = [(round_up(out, width), *rest) for out, *rest in stages]
    return AddressNet(
        plan_blocks(round_up(stem, width), sized), stem_stride=stem_stride, shift=shift,
        enhanced=enhanced, classes=classes, dropout=dropout or 0, prefix=prefix,
    )  # fmt: skip


def _check_cifar(depth, channels, expansion) -> None:
    if not isinstance(depth, int) or depth < 8 or depth % 6 != 2:
        raise InputError(f"depth must be 6n + 2: 8, 14, 20 and so on; got {depth!r}")
    if not isinstance(channels, (list, tuple)) or not all(
        isinstance(c, int) and c > 0 for c in channels
    ) or len(channels) != 3:  # fmt: skip
        raise InputError(f"channels must be those of 3 stages, e.g. [16, 32, 64]; got {channels!r}")
    if not isinstance(expansion, int) or expansion < 1:
        raise InputError(f"expansion must be a whole number, at least 1, got {expansion!r}")
