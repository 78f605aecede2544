"""Global pooling and classifier of several model families."""

from typing import Optional

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.nn.onednn import GraphModeMixin, channel_mean

nn = mx.gluon.nn


class GlobalMean(GraphModeMixin, mx.gluon.HybridBlock):
    """The mean of every channel.  Shapes: ``(N, C, H, W) -> (N, C, 1, 1)``."""

    def hybrid_forward(self, F, x):
        return channel_mean(F, x, self.graph_mode)


class Classifier(mx.gluon.HybridBlock):
    """Features, dropout, and a linear classifier as a 1 x 1 convolution.

    Shapes: ``(N, 3, H, W) -> (N, classes)``, logits.

    Args:
        channels: channels of the features, ``(N, channels, 1, 1)``.
        classes: number of logits.
        dropout: probability before the classifier.
        use_bias: whether the classifier has a bias.
        features: a block; default: an empty sequence for the caller to fill.
    """

    def __init__(
        self, channels: int, *, classes: int, dropout: float, use_bias: bool = True,
        features: Optional[mx.gluon.HybridBlock] = None, prefix=None, params=None,
    ):  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        with self.name_scope():
            self.features = (
                nn.HybridSequential(prefix="features_") if features is None else features
            )
            self.dropout = nn.Dropout(dropout, prefix="dropout_") if dropout else None
            self.output = nn.Conv2D(
                classes, 1, in_channels=channels, use_bias=use_bias, prefix="output_"
            )

    def hybrid_forward(self, F, x):
        x = self.features(x)
        if self.dropout is not None:
            x = self.dropout(x)
        return F.flatten(self.output(x))
