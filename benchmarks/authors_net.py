"""AsymmNet with the authors' operators, the reference of every measurement.

Its parameters are those of ours, in the same order; hard-swish is a clip, and concatenation and
pooling are plain operators.  Source: the graph of the released ``models/asymmnet.py``.
"""

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.arch import BlockPlan, NetPlan

nn = mx.gluon.nn


class _HardSigmoid(mx.gluon.HybridBlock):
    def hybrid_forward(self, F, x):
        return F.clip(x + 3.0, 0, 6) / 6.0


class _HardSwish(mx.gluon.HybridBlock):
    def hybrid_forward(self, F, x):
        return x * (F.clip(x + 3.0, 0, 6) / 6.0)


def _conv_norm(channels, kernel=1, stride=1, groups=1, act=None):
    unit = nn.HybridSequential()
    unit.add(nn.Conv2D(channels, kernel, stride, kernel // 2, groups=groups, use_bias=False))
    unit.add(nn.BatchNorm())
    if act:
        unit.add(_HardSwish() if act == "hard_swish" else nn.Activation(act))
    return unit


class _SqueezeExcite(mx.gluon.HybridBlock):
    def __init__(self, channels, hidden):
        super().__init__()
        self.gate = nn.HybridSequential()
        self.gate.add(nn.GlobalAvgPool2D(), nn.Conv2D(hidden, 1, activation="relu"),
                      nn.Conv2D(channels, 1), _HardSigmoid())  # fmt: skip

    def hybrid_forward(self, F, x):
        return F.broadcast_mul(x, self.gate(x))


class _Bottleneck(mx.gluon.HybridBlock):
    def __init__(self, plan: BlockPlan):
        super().__init__()
        self.rate, self.shortcut = plan.rate, plan.shortcut
        channels = plan.depthwise_channels
        self.expand = (
            _conv_norm(plan.expand_channels, act=plan.act) if plan.expand_channels else None
        )
        self.body = nn.HybridSequential()
        self.body.add(_conv_norm(channels, plan.kernel, plan.stride, channels, plan.act))
        if plan.se_hidden:
            self.body.add(_SqueezeExcite(channels, plan.se_hidden))
        self.body.add(_conv_norm(plan.out))

    def hybrid_forward(self, F, x):
        y = x if self.expand is None else self.expand(x)
        if self.rate:
            y = F.concat(*[x] * self.rate, y, *[x] * self.rate, dim=1)
        y = self.body(y)
        return x + y if self.shortcut else y


class PlainNet(mx.gluon.HybridBlock):
    """Shapes: ``(N, 3, H, W) -> (N, classes)``, logits."""

    def __init__(self, plan: NetPlan, classes: int = 1000, dropout: float = 0.2):
        super().__init__()
        self.features = nn.HybridSequential()
        self.features.add(_conv_norm(plan.stem, 3, 2, act="hard_swish"))
        self.features.add(*[_Bottleneck(block) for block in plan.blocks])
        self.features.add(_conv_norm(plan.squeeze, act="hard_swish"), nn.GlobalAvgPool2D(),
                          nn.Conv2D(plan.hidden, 1, use_bias=False), _HardSwish(),
                          nn.Dropout(dropout))  # fmt: skip
        self.output = nn.HybridSequential()
        self.output.add(nn.Conv2D(classes, 1), nn.Flatten())

    def hybrid_forward(self, F, x):
        return self.output(self.features(x))


def plain_copy(net, sample) -> PlainNet:
    """Return the authors' net with the parameters of ``net``; ``sample`` is any input batch."""
    plain = PlainNet(net.plan, net.output._channels)
    plain.initialize()
    plain(sample)
    ours = net._collect_params_with_prefix().values()
    for mine, theirs in zip(ours, plain._collect_params_with_prefix().values()):
        theirs.set_data(mine.data())
    return plain
