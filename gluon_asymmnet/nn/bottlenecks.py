"""The asymmetrical bottleneck and its building blocks."""

import inspect
from typing import Optional

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.arch import BlockPlan
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.nn.activations import activation
from gluon_asymmnet.nn.attention import SqueezeExcite, attention_in_bottleneck
from gluon_asymmnet.nn.depthwise import DepthwiseConv2D
from gluon_asymmnet.nn.onednn import (
    TRAINING,
    GraphModeMixin,
    concat_channels,
    fills_blocks,
    stops_at_avx2,
    to_plain_layout,
    to_plain_layout_with_grad,
)

nn = mx.gluon.nn


class BatchNorm(GraphModeMixin, nn.BatchNorm):
    """Gluon's batch normalisation; in the training graph it is fused with the ReLU after it."""

    before_relu = False

    @property
    def with_relu(self) -> bool:
        """Whether this layer also applies the ReLU."""
        return self.before_relu and self.graph_mode == TRAINING

    def hybrid_forward(self, F, x, gamma, beta, running_mean, running_var):
        norm = F.contrib.BatchNormWithReLU if self.with_relu else F.BatchNorm
        return norm(x, gamma, beta, running_mean, running_var, name="fwd", **self._kwargs)


class NormFactory:
    """Creates a network's normalisation layers from GluonCV's ``norm_layer, norm_kwargs``."""

    folded = False

    def __init__(self, layer=None, kwargs: Optional[dict] = None):
        self.layer = BatchNorm if layer is None else layer
        self.kwargs = dict(kwargs or {})
        parameters = inspect.signature(self.layer.__init__).parameters
        # GroupNorm alone takes no in_channels
        self._sized = "in_channels" in parameters
        unknown = [name for name in self.kwargs if name not in parameters]
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            fitting = [name for name in parameters if name not in ("self", "prefix", "params")]
            raise InputError(
                f"{self.layer.__name__} has no {unknown[0]}: it takes {', '.join(fitting)}"
            )

    def __call__(self, channels: int, *, zero_gamma: bool = False):
        kwargs = dict(self.kwargs)
        if self._sized:
            kwargs["in_channels"] = channels
        if zero_gamma:
            kwargs["gamma_initializer"] = "zeros"
        return self.layer(prefix="norm_", **kwargs)


class Folded:
    """In place of a ``NormFactory``: convolutions with bias and no normalisation layer."""

    folded = True


class ConvNorm(GraphModeMixin, mx.gluon.HybridBlock):
    """Convolution without bias, normalisation and, if named, an activation.

    Shapes: ``(N, in_channels, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride))``.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: Optional[str] = None,
        norm: Optional[NormFactory] = None,
        *,
        zero_gamma: bool = False,
        prefix=None,
        params=None,
    ):
        super().__init__(prefix=prefix, params=params)
        norm = norm or NormFactory()
        # After these convolutions oneDNN's backward pass of batch normalisation is slow,
        self._odd = kernel == 1 and not fills_blocks(channels)
        # and after these its forward pass too: ten times from 16 to 144 channels in 4 groups.
        self._odd_groups = kernel == 1 < groups and any(
            c // groups % 8 for c in (in_channels, channels)
        )
        depthwise = 1 < groups == channels == in_channels
        with self.name_scope():
            self.conv = (DepthwiseConv2D if depthwise else nn.Conv2D)(
                channels, kernel, stride, kernel // 2, groups=groups, use_bias=norm.folded,
                in_channels=in_channels, prefix="conv_",
            )  # fmt: skip
            self.norm = None if norm.folded else norm(channels, zero_gamma=zero_gamma)
            self.act = activation(act) if act else None
        if isinstance(self.norm, BatchNorm):
            # With AVX-512 not after pointwise convolutions: oneDNN's backward pass fails in some
            # nets (e.g. from 20 to 64 channels).  Not after those in groups: not measured.
            dense = groups == 1 and stops_at_avx2()
            fusible = (depthwise or dense) and fills_blocks(in_channels, channels)
            self.norm.before_relu = act == "relu" and fusible

    def hybrid_forward(self, F, x):
        if self._odd and self.graph_mode == TRAINING:
            x = to_plain_layout_with_grad(F, x)
        x = self.conv(x)
        if self._odd_groups and self.tuned_for_onednn:
            x = to_plain_layout(F, x)
        if self.norm is not None:
            x = self.norm(x)
        if self.act is None or getattr(self.norm, "with_relu", False):
            return x
        return self.act(x)


class ChannelShuffle(mx.gluon.HybridBlock):
    """Channel shuffle: interleave the channels of ``groups`` groups.

    Shapes: ``(N, C, H, W) -> (N, C, H, W)``; channel ``g * C/groups + i`` goes to
    ``i * groups + g``.  Source: arXiv:1707.01083, section 3.1.
    """

    def __init__(self, groups: int, *, prefix=None, params=None):
        super().__init__(prefix=prefix, params=params)
        self.groups = groups

    def hybrid_forward(self, F, x):
        x = F.reshape(x, shape=(0, -4, self.groups, -1, -2))
        return F.reshape(F.swapaxes(x, 1, 2), shape=(0, -3, -2))


class AsymmBottleneck(GraphModeMixin, mx.gluon.HybridBlock):
    """Inverted bottleneck that reuses its input in place of part of the expansion.

    Of the ``E`` channels of an inverted bottleneck, ``r*C`` are the input itself and only
    ``E - r*C`` are computed; the input is concatenated once more on the other side::

        [x]*r ++ conv1x1(x) ++ [x]*r   ->  E + r*C channels
        depthwise k x k -> optional squeeze-excite -> linear 1x1 -> + x if it fits

    At rate 0 this is the inverted bottleneck of MobileNetV2 and V3.

    Shapes: ``(N, C, H, W) -> (N, plan.out, ceil(H / s), ceil(W / s))``, s the stride.

    Args:
        plan: the block's dimensions, from ``arch.plan_block``.
        norm: creates the normalisation layers; batch normalisation by default.
        last_gamma: initialise the last gamma to zero in blocks with a shortcut.
        attention, attention_settings: further attention, for other model families; see
            ``nn.attention.attention``.
        groups: groups of the linear 1 x 1 convolution.

    Source: arXiv:2104.07770, figure 2.
    """

    def __init__(
        self,
        plan: BlockPlan,
        norm: Optional[NormFactory] = None,
        *,
        last_gamma: bool = False,
        attention: Optional[str] = None,
        attention_settings: Optional[dict] = None,
        groups: int = 1,
        prefix=None,
        params=None,
    ):
        super().__init__(prefix=prefix, params=params)
        channels = plan.depthwise_channels
        self.rate = plan.rate
        self.shortcut = plan.shortcut
        self._in_blocks = fills_blocks(plan.in_channels, plan.expand_channels)
        with self.name_scope():
            self.expand = (
                ConvNorm(
                    plan.in_channels, plan.expand_channels, act=plan.act, norm=norm,
                    prefix="expand_",
                )
                if plan.expand_channels
                else None
            )  # fmt: skip
            self.shuffle = (
                ChannelShuffle(plan.shuffle_groups, prefix="shuffle_")
                if plan.shuffle_groups
                else None
            )
            self.depthwise = ConvNorm(
                channels, channels, plan.kernel, plan.stride, channels, plan.act, norm,
                prefix="depthwise_",
            )  # fmt: skip
            self.se = (
                SqueezeExcite(channels, plan.se_hidden, prefix="se_") if plan.se_hidden else None
            )
            self.project = ConvNorm(
                channels, plan.out, groups=groups, norm=norm,
                zero_gamma=last_gamma and plan.shortcut, prefix="project_",
            )  # fmt: skip
            self.wide_attention, self.out_attention = attention_in_bottleneck(
                attention, channels, plan.out, attention_settings
            )

    def hybrid_forward(self, F, x):
        y = x if self.expand is None else self.expand(x)
        if self.rate:
            copies = [x] * self.rate
            y = concat_channels(
                F, [*copies, y, *copies], self.graph_mode, in_blocks=self._in_blocks
            )
        if self.shuffle is not None:
            y = self.shuffle(y)
        y = self.depthwise(y)
        if self.se is not None:
            y = self.se(y)
        if self.wide_attention is not None:
            y = self.wide_attention(y)
        y = self.project(y)
        if self.out_attention is not None:
            y = self.out_attention(y)
        return x + y if self.shortcut else y
