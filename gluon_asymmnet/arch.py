"""AsymmNet's architecture tables, and ``plan_net``, which turns a table into channel counts.

No other module computes a channel count.  ``plan_net`` decides for each block whether it expands
and whether it has a shortcut; the Gluon blocks, the cost counter and the parameter layouts read
its result.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple, Optional

from gluon_asymmnet.errors import InputError

STEMS = ("authors", "scaled")
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.25, 1.5)  # the tests check the channel counts of these
MAX_WIDTH = 16
MAX_RATE = 64  # far above what any block allows: none expands its input more than 6 times


class BlockSpec(NamedTuple):
    """One row of the paper's table, at width 1.0."""

    kernel: int  # depthwise kernel, pixels, odd
    expanded: int  # nominal expansion E: computed channels plus the input reused once per rate
    out: int  # output channels
    se: bool  # squeeze-and-excite after the depthwise convolution
    act: str  # "relu" or "hard_swish"
    stride: int  # 1 or 2


class NetSpec(NamedTuple):
    """A whole network at width 1.0."""

    stem: int  # channels of the first convolution
    blocks: tuple[BlockSpec, ...]
    squeeze: int  # channels of the last convolution before the global pool; scales with the width
    hidden: int  # channels after it; does not scale
    asymmetric: bool = True  # False: the inverted residual of MobileNetV3, rate 0 only


class BlockPlan(NamedTuple):
    """All dimensions of one block, after scaling."""

    in_channels: int
    expand_channels: int  # output channels of the expanding convolution; 0: there is none
    rate: int  # copies of the input concatenated on each side; 0: none
    shuffle_groups: int  # groups of the channel shuffle after the concatenation; 0: none
    depthwise_channels: int
    kernel: int
    stride: int
    se_hidden: int  # 0: no squeeze-and-excite
    act: str
    out: int
    shortcut: bool


class NetPlan(NamedTuple):
    """All dimensions of a network, after scaling."""

    stem: int
    blocks: tuple[BlockPlan, ...]
    squeeze: int
    hidden: int


class ConvLayer(NamedTuple):
    """One convolution of a planned network: its attribute path and dimensions."""

    path: str  # attribute path of the block that holds it, e.g. "features.blocks.3.expand"
    in_channels: int
    channels: int
    kernel: int
    stride: int
    groups: int
    bias: bool
    norm: bool  # a normalisation layer follows
    pooled: bool  # its input is the 1 x 1 result of a global pool


class FeatureInfo(NamedTuple):
    """A feature map that a detector can use."""

    name: str  # "c1" to "c5": the last map of each stride; "squeeze": the map after the blocks
    stride: int  # pixels of the input per pixel of the map
    channels: int
    block: int  # index of the block that makes it; len(blocks) for "squeeze"


# The released models/asymmnet.py, get_asymmnet_cfgs; the same rows as MobileNetV3's tables 1 and 2
# (arXiv:1905.02244) as GluonCV writes them.
LARGE = NetSpec(
    stem=16,
    blocks=(
        #         k  exp  out  se     act           s
        BlockSpec(3, 16, 16, False, "relu", 1),
        BlockSpec(3, 64, 24, False, "relu", 2),
        BlockSpec(3, 72, 24, False, "relu", 1),
        BlockSpec(5, 72, 40, True, "relu", 2),
        BlockSpec(5, 120, 40, True, "relu", 1),
        BlockSpec(5, 120, 40, True, "relu", 1),
        BlockSpec(3, 240, 80, False, "hard_swish", 2),
        BlockSpec(3, 200, 80, False, "hard_swish", 1),
        BlockSpec(3, 184, 80, False, "hard_swish", 1),
        BlockSpec(3, 184, 80, False, "hard_swish", 1),
        BlockSpec(3, 480, 112, True, "hard_swish", 1),
        BlockSpec(3, 672, 112, True, "hard_swish", 1),
        BlockSpec(5, 672, 160, True, "hard_swish", 2),
        BlockSpec(5, 960, 160, True, "hard_swish", 1),
        BlockSpec(5, 960, 160, True, "hard_swish", 1),
    ),
    squeeze=960,
    hidden=1280,
)
SMALL = NetSpec(
    stem=16,
    blocks=(
        #         k  exp  out  se     act           s
        BlockSpec(3, 16, 16, True, "relu", 2),
        BlockSpec(3, 72, 24, False, "relu", 2),
        BlockSpec(3, 88, 24, False, "relu", 1),
        BlockSpec(5, 96, 40, True, "hard_swish", 2),
        BlockSpec(5, 240, 40, True, "hard_swish", 1),
        BlockSpec(5, 240, 40, True, "hard_swish", 1),
        BlockSpec(5, 120, 48, True, "hard_swish", 1),
        BlockSpec(5, 144, 48, True, "hard_swish", 1),
        BlockSpec(5, 288, 96, True, "hard_swish", 2),
        BlockSpec(5, 576, 96, True, "hard_swish", 1),
        BlockSpec(5, 576, 96, True, "hard_swish", 1),
    ),
    squeeze=576,
    hidden=1280,
)


def round_up(channels: int, width: float = 1, divisor: int = 8) -> int:
    """Return the smallest multiple of ``divisor`` that is at least ``channels * width``.

    Exact: ``width`` is read as the decimal that it prints as.  The authors compute in floating
    point, where ``ceil(200 * 2.2 / 8) * 8`` is 448 instead of 440.  Both agree at ``WIDTHS``.
    """
    exact = channels * Fraction(str(width)) / divisor
    return -(-exact.numerator // exact.denominator) * divisor


def round_nearest(channels: int, width: float = 1, divisor: int = 8) -> int:
    """Return the multiple of ``divisor`` nearest to ``channels * width``, halves rounded up.

    At least ``divisor``; the next multiple where rounding down would lose more than 10 %.  This is
    the rule of MobileNetV2's authors; AsymmNet uses ``round_up``.
    """
    exact = channels * Fraction(str(width))
    rounded = max(divisor, int(exact / divisor + Fraction(1, 2)) * divisor)
    return rounded if 10 * rounded >= 9 * exact else rounded + divisor


def scale_spec(spec: NetSpec, width: float) -> NetSpec:
    """Scale every channel count except ``hidden`` by ``width``, rounded up to multiples of 8."""
    if not isinstance(width, (int, float)) or not 0 < width <= MAX_WIDTH:
        raise InputError(f"width must be a number above 0 and at most {MAX_WIDTH}, got {width!r}")
    blocks = tuple(
        b._replace(expanded=round_up(b.expanded, width), out=round_up(b.out, width))
        for b in spec.blocks
    )
    return spec._replace(
        stem=round_up(spec.stem, width), blocks=blocks, squeeze=round_up(spec.squeeze, width)
    )


def plan_block(
    in_channels: int,
    spec: BlockSpec,
    rate: int = 1,
    *,
    shuffle_groups: int = 0,
    assumed_in_channels: Optional[int] = None,
    asymmetric: bool = True,
) -> BlockPlan:
    """Compute the dimensions of one block.

    With ``C`` input channels, ``E = spec.expanded`` and ``r = rate``, the expanding convolution
    computes ``E - r*C`` channels and the depthwise convolution sees ``E + r*C``: ``r`` copies of
    the input are concatenated on both sides.

    Args:
        in_channels: channels of the block's input.
        spec: row of the table, already scaled.
        rate: copies of the input concatenated on each side, the paper's r.
        shuffle_groups: groups of the channel shuffle after the concatenation; 0 or 1: none.
        assumed_in_channels: input channels that the authors' code assumes, where they differ from
            ``in_channels`` (their first block at widths other than 0.75 and 1).  They decide about
            expansion and shortcut.
        asymmetric: False for MobileNetV3's inverted residual, which expands where ``E != out``.

    Raises:
        InputError: if the reused channels leave nothing to compute although the block has to
            widen, or the shuffle groups do not divide the concatenated channels.

    Source: arXiv:2104.07770, figure 2; released ``models/asymmnet.py``, AsymmBottleneck.
    """
    assumed = in_channels if assumed_in_channels is None else assumed_in_channels
    reused = rate * assumed
    expands = spec.expanded > max(assumed, reused) if asymmetric else spec.expanded != spec.out
    expand_channels = spec.expanded - reused if expands else 0
    depthwise_channels = spec.expanded + reused if expands else spec.expanded
    concatenated = expand_channels + 2 * rate * in_channels if expands else in_channels
    if concatenated != depthwise_channels:
        raise InputError(
            f"cannot expand {in_channels} channels to {spec.expanded} at rate {rate}: "
            f"{rate * in_channels} are reused, so nothing is left to compute"
        )
    shuffles = shuffle_groups > 1 and expands and rate > 0
    if shuffles and depthwise_channels % shuffle_groups:
        raise InputError(
            f"shuffle_groups {shuffle_groups} does not divide the {depthwise_channels} channels "
            f"of a block; 2, 4 and 8 always do"
        )
    return BlockPlan(
        in_channels=in_channels,
        expand_channels=expand_channels,
        rate=rate if expands else 0,
        shuffle_groups=shuffle_groups if shuffles else 0,
        depthwise_channels=depthwise_channels,
        kernel=spec.kernel,
        stride=spec.stride,
        se_hidden=round_up(depthwise_channels // 4) if spec.se else 0,
        act=spec.act,
        out=spec.out,
        shortcut=spec.stride == 1 and spec.out == assumed,
    )


def plan_net(
    spec: NetSpec,
    *,
    width: float = 1.0,
    rate: int = 1,
    shuffle_groups: int = 0,
    stem: str = "authors",
) -> NetPlan:
    """Scale ``spec`` by ``width`` and compute the dimensions of every block.

    ``stem="authors"`` is the released graph.  The authors plan their first block for the 16
    channels of the unscaled stem, so it has no shortcut at widths 0.35 and 0.5 and a needless
    expansion at rate 0 and widths above 1.  ``stem="scaled"`` plans it for the channels of the
    scaled stem; so does ``"authors"`` where the authors' code cannot be built.

    Raises:
        InputError: for a width, rate, stem or shuffle that cannot be built; the message
            lists those that can.
    """
    if stem not in STEMS:
        raise InputError(f"stem must be one of {', '.join(STEMS)}, got {stem!r}")
    _check_rate(spec, rate, shuffle_groups)
    sized = scale_spec(spec, width)
    assumed = spec.stem if stem == "authors" else None
    try:
        first = plan_block(
            sized.stem, sized.blocks[0], rate, assumed_in_channels=assumed,
            asymmetric=spec.asymmetric, shuffle_groups=shuffle_groups,
        )  # fmt: skip
    except InputError:
        if assumed is None:
            raise
        return plan_net(spec, width=width, rate=rate, shuffle_groups=shuffle_groups, stem="scaled")
    blocks = [first]
    for index, block in enumerate(sized.blocks[1:], start=1):
        try:
            plan = plan_block(
                blocks[-1].out, block, rate, asymmetric=spec.asymmetric,
                shuffle_groups=shuffle_groups,
            )  # fmt: skip
        except InputError as error:
            fitting = [str(r) for r in range(rate) if _fits(sized, r)]
            raise InputError(
                f"block {index} at width {width}: {error}; rates that fit: {', '.join(fitting)}"
            ) from None
        blocks.append(plan)
    return NetPlan(sized.stem, tuple(blocks), sized.squeeze, sized.hidden)


def _check_rate(spec: NetSpec, rate: int, shuffle_groups: int) -> None:
    if isinstance(rate, bool) or not isinstance(rate, int) or not 0 <= rate <= MAX_RATE:
        raise InputError(f"rate must be a whole number from 0 to {MAX_RATE}, got {rate!r}")
    if rate and not spec.asymmetric:
        raise InputError(f"MobileNetV3 reuses nothing: its rate is 0, got {rate}; use asymmnet_*")
    if not isinstance(shuffle_groups, int) or shuffle_groups < 0:
        raise InputError(
            f"shuffle_groups must be a whole number, 0 (off) or more, got {shuffle_groups!r}"
        )
    if shuffle_groups > 1 and rate == 0:
        raise InputError(
            f"shuffle_groups {shuffle_groups} needs a rate of at least 1: "
            f"at rate 0 no channels are concatenated, so there is nothing to shuffle"
        )


def _fits(sized: NetSpec, rate: int) -> bool:
    try:
        inputs = (sized.stem, *(b.out for b in sized.blocks))
        for in_channels, block in zip(inputs, sized.blocks):
            plan_block(in_channels, block, rate)
    except InputError:
        return False
    return True


def conv_layers(plan: NetPlan, classes: int = 1000) -> Iterator[ConvLayer]:
    """Yield the convolutions of a planned network in the order of its parameters."""
    yield ConvLayer("features.stem", 3, plan.stem, 3, 2, 1, False, True, False)
    for index, block in enumerate(plan.blocks):
        yield from _block_layers(f"features.blocks.{index}", block)
    last = plan.blocks[-1].out
    yield ConvLayer("features.squeeze", last, plan.squeeze, 1, 1, 1, False, True, False)
    yield ConvLayer("features.hidden", plan.squeeze, plan.hidden, 1, 1, 1, False, False, True)
    yield ConvLayer("output", plan.hidden, classes, 1, 1, 1, True, False, True)


def _block_layers(path: str, block: BlockPlan) -> Iterator[ConvLayer]:
    channels = block.depthwise_channels
    if block.expand_channels:
        yield ConvLayer(
            f"{path}.expand", block.in_channels, block.expand_channels, 1, 1, 1, False, True, False
        )
    yield ConvLayer(
        f"{path}.depthwise", channels, channels, block.kernel, block.stride, channels,
        False, True, False,
    )  # fmt: skip
    if block.se_hidden:
        yield ConvLayer(f"{path}.se.reduce", channels, block.se_hidden, 1, 1, 1, True, False, True)
        yield ConvLayer(f"{path}.se.restore", block.se_hidden, channels, 1, 1, 1, True, False, True)
    yield ConvLayer(f"{path}.project", channels, block.out, 1, 1, 1, False, True, False)


def feature_info(plan: NetPlan) -> tuple[FeatureInfo, ...]:
    """List the maps for detectors, finest first: c1 (stride 2) to c5 (stride 32), then squeeze."""
    infos, stride = {}, 2
    for index, block in enumerate(plan.blocks):
        stride *= block.stride
        name = f"c{stride.bit_length() - 1}"
        infos[name] = FeatureInfo(name, stride, block.out, index)  # the last map of a stride wins
    squeeze = FeatureInfo("squeeze", stride, plan.squeeze, len(plan.blocks))
    return (*infos.values(), squeeze)
