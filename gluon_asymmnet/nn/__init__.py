"""The Gluon blocks.  HybridBlocks only: no files, no global state."""

from gluon_asymmnet.nn.activations import HardSigmoid, HardSwish
from gluon_asymmnet.nn.asymmnet import AsymmNet, FeatureMaps
from gluon_asymmnet.nn.attention import SqueezeExcite
from gluon_asymmnet.nn.bottlenecks import AsymmBottleneck, ChannelShuffle, ConvNorm, NormFactory

__all__ = [
    "AsymmBottleneck",
    "AsymmNet",
    "ChannelShuffle",
    "ConvNorm",
    "FeatureMaps",
    "HardSigmoid",
    "HardSwish",
    "NormFactory",
    "SqueezeExcite",
]
