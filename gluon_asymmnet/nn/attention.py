"""Channel attention."""

from gluon_asymmnet._environment import mx
from gluon_asymmnet.nn.activations import activation
from gluon_asymmnet.nn.forms import (
    INFERENCE,
    TRAINING,
    Formed,
    channel_mean,
    scale_channels,
    unblocked,
)

nn = mx.gluon.nn


class SqueezeExcite(Formed, mx.gluon.HybridBlock):
    """Scale every channel by what a small network makes of all channels' means.

    Shapes: ``(N, C, H, W) -> (N, C, H, W)``.

    Args:
        channels: C.
        hidden: channels between the two 1 x 1 convolutions; a quarter of C, rounded up to a
            multiple of 8, in AsymmNet and MobileNetV3.

    Source: arXiv:1709.01507; the hard sigmoid is from arXiv:1905.02244, section 5.3.
    """

    def __init__(self, channels: int, hidden: int, *, prefix=None, params=None):
        super().__init__(prefix=prefix, params=params)
        with self.name_scope():
            self.reduce = nn.Conv2D(hidden, 1, in_channels=channels, prefix="reduce_")
            self.relu = activation("relu")
            self.restore = nn.Conv2D(channels, 1, in_channels=hidden, prefix="restore_")
            self.gate = activation("hard_sigmoid")

    def hybrid_forward(self, F, x):
        if self.form == INFERENCE:
            x = unblocked(F, x)  # for the mean and for the product
        gate = self.gate(self.restore(self.relu(self.reduce(channel_mean(F, x, self.form)))))
        return scale_channels(F, x, gate) if self.form == TRAINING else F.broadcast_mul(x, gate)
