"""The Gluon blocks.  HybridBlocks only: no files, no global state."""

from gluon_asymmnet.nn.activations import HardSigmoid, HardSwish, ReLU6
from gluon_asymmnet.nn.asymmnet import AsymmNet, FeatureMaps
from gluon_asymmnet.nn.attention import EfficientAttention, SqueezeExcite, attention
from gluon_asymmnet.nn.bottlenecks import AsymmBottleneck, ChannelShuffle, ConvNorm, NormFactory

__all__ = [
    "AsymmBottleneck",
    "AsymmNet",
    "ChannelShuffle",
    "ConvNorm",
    "EfficientAttention",
    "FeatureMaps",
    "HardSigmoid",
    "HardSwish",
    "NormFactory",
    "ReLU6",
    "SqueezeExcite",
    "attention",
]
