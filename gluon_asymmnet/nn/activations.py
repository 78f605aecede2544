"""Activations of the mobile networks."""

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.nn.onednn import TRAINING, GraphModeMixin, to_plain_layout

nn = mx.gluon.nn


def _hard_sigmoid(F, x, tuned: bool):
    if tuned:  # one operator in place of three; the results differ by rounding only
        return F.hard_sigmoid(x, alpha=1 / 6, beta=0.5)
    return F.clip(x + 3, 0, 6) / 6


class HardSigmoid(GraphModeMixin, mx.gluon.HybridBlock):
    """``clip(x + 3, 0, 6) / 6``.  Any shape.  Source: arXiv:1905.02244, section 5.2."""

    def hybrid_forward(self, F, x):
        return _hard_sigmoid(F, x, self.tuned_for_onednn)


class HardSwish(GraphModeMixin, mx.gluon.HybridBlock):
    """``x * hard_sigmoid(x)``.  Any shape.  Source: arXiv:1905.02244, section 5.2."""

    def hybrid_forward(self, F, x):
        if self.tuned_for_onednn:
            x = to_plain_layout(F, x)
        return x * _hard_sigmoid(F, x, self.tuned_for_onednn)


class ReLU6(GraphModeMixin, mx.gluon.HybridBlock):
    """``clip(x, 0, 6)``.  Any shape.  Source: arXiv:1801.04381, section 3."""

    def hybrid_forward(self, F, x):
        if self.graph_mode == TRAINING:  # MXNet's clip is slow, and its backward pass, too
            return F.minimum(F.relu(x), 6)
        return F.clip(x, 0, 6)


_ACTIVATIONS = {
    "relu": lambda prefix: nn.Activation("relu", prefix=prefix),
    "relu6": lambda prefix: ReLU6(prefix=prefix),
    "sigmoid": lambda prefix: nn.Activation("sigmoid", prefix=prefix),
    "hard_swish": lambda prefix: HardSwish(prefix=prefix),
    "hard_sigmoid": lambda prefix: HardSigmoid(prefix=prefix),
}


def activation(name: str):
    """Create an activation block by its name in ``BlockSpec.act``, among others."""
    try:
        return _ACTIVATIONS[name](f"{name}_")
    except KeyError:
        raise ValueError(
            f"unknown activation {name!r}: expected one of {', '.join(_ACTIVATIONS)}"
        ) from None
