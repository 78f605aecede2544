"""The Gluon blocks.  HybridBlocks only: no files, no global state."""

from gluon_asymmnet.nn.activations import HardSigmoid, HardSwish, ReLU6
from gluon_asymmnet.nn.attention import EfficientAttention, SqueezeExcite, attention
from gluon_asymmnet.nn.bottlenecks import (
    AsymmBottleneck,
    ChannelShuffle,
    ConvNorm,
    NormFactory,
)
from gluon_asymmnet.nn.shift import AddressShift, ChannelShift, ShortcutShift

__all__ = [
    "AddressShift",
    "AsymmBottleneck",
    "ChannelShift",
    "ChannelShuffle",
    "ConvNorm",
    "EfficientAttention",
    "HardSigmoid",
    "HardSwish",
    "NormFactory",
    "ReLU6",
    "ShortcutShift",
    "SqueezeExcite",
    "attention",
]
