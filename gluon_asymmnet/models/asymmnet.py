"""AsymmNet; at rate 0 it is MobileNetV3."""

from collections.abc import Sequence
from typing import Optional

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.arch import NetPlan, feature_info
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.nn.activations import activation
from gluon_asymmnet.nn.bottlenecks import AsymmBottleneck, ConvNorm, Folded, NormFactory
from gluon_asymmnet.nn.folding import fold_all
from gluon_asymmnet.nn.onednn import INFERENCE, GraphModeMixin, channel_mean, set_graph_mode

nn = mx.gluon.nn

# Larger batches are cut into parts of this size, whose activations fit into the processor's cache.
# Large 1.0, two threads: 5.2 ms per image in parts of 4 to 8, 5.9 ms in parts of 32.
MAX_BATCH = 8


class Features(GraphModeMixin, mx.gluon.HybridBlock):
    """All layers before the classifier.  Shapes: ``(N, 3, H, W) -> (N, plan.hidden, 1, 1)``."""

    def __init__(
        self, plan: NetPlan, dropout: float, norm: NormFactory, last_gamma: bool,
        *, prefix=None, params=None,
    ):  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        with self.name_scope():
            self.stem = ConvNorm(3, plan.stem, 3, 2, 1, "hard_swish", norm, prefix="stem_")
            self.blocks = nn.HybridSequential(prefix="blocks_")
            with self.blocks.name_scope():
                for index, block in enumerate(plan.blocks):
                    self.blocks.add(
                        AsymmBottleneck(block, norm, last_gamma=last_gamma, prefix=f"{index}_")
                    )
            last = plan.blocks[-1].out
            self.squeeze = ConvNorm(
                last, plan.squeeze, act="hard_swish", norm=norm, prefix="squeeze_"
            )
            # no bias and no normalisation here, as in the authors' code and GluonCV
            self.hidden = nn.Conv2D(
                plan.hidden, 1, in_channels=plan.squeeze, use_bias=False, prefix="hidden_"
            )
            self.hidden_act = activation("hard_swish")
            self.dropout = nn.Dropout(dropout, prefix="dropout_") if dropout else None

    def hybrid_forward(self, F, x):
        x = self.squeeze(self.blocks(self.stem(x)))
        x = channel_mean(F, x, self.graph_mode)
        x = self.hidden_act(self.hidden(x))
        return self.dropout(x) if self.dropout is not None else x


class AsymmNet(mx.gluon.HybridBlock):
    """The classifier: ``net.features`` and ``net.output``, as in GluonCV's zoo.

    Shapes: ``(N, 3, H, W) -> (N, classes)``, logits; any H and W.

    Args:
        plan: every channel count, from ``arch.plan_net``.
        classes: number of logits.
        dropout: probability before the classifier, in [0, 1).
        norm_layer, norm_kwargs: replacement for batch normalisation everywhere.
        last_gamma: start the last gamma of every block with a shortcut at zero.
        folded: convolutions with bias in place of normalisation; see ``fold_for_inference``.
    """

    def __init__(
        self,
        plan: NetPlan,
        *,
        classes: int = 1000,
        dropout: float = 0.2,
        norm_layer=None,
        norm_kwargs: Optional[dict] = None,
        last_gamma: bool = False,
        folded: bool = False,
        prefix=None,
        params=None,
    ):
        super().__init__(prefix=prefix, params=params)
        if not isinstance(classes, int) or classes < 1:
            raise InputError(f"classes must be a whole number, at least 1, got {classes!r}")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout must be at least 0 and below 1, got {dropout!r}")
        norm = Folded() if folded else NormFactory(norm_layer, norm_kwargs)
        self.plan = plan
        with self.name_scope():
            self.features = Features(plan, dropout, norm, last_gamma, prefix="features_")
            self.output = nn.Conv2D(classes, 1, in_channels=plan.hidden, prefix="output_")

    max_batch = None  # of an optimized net: larger batches are computed in parts

    def hybrid_forward(self, F, x):
        return F.flatten(self.output(self.features(x)))

    @property
    def feature_info(self):
        """Name, stride and channels of the maps that ``feature_maps`` can return."""
        return feature_info(self.plan)

    def optimize_for_inference(self, sample=None):
        """Return a faster copy of this net for the CPU, with equal outputs.

        Batch normalisation is folded, elementwise chains read the plain memory layout, and oneDNN's
        subgraph backend runs the graph, at most 8 images at a time.  The copy does not follow later
        changes of this net's weights.

        Args:
            sample: an input of the usual shape; ``(1, 3, 224, 224)`` by default.

        Raises: InputError if the net has another normalisation than batch.
        """
        net = fold_for_inference(self)
        sample = mx.nd.zeros((1, 3, 224, 224)) if sample is None else sample
        net.optimize_for(sample[:MAX_BATCH], backend="MKLDNN", static_alloc=True, static_shape=True)
        net.max_batch = MAX_BATCH
        return net

    def forward(self, x, *args):
        """See the class."""
        forward, size = super().forward, self.max_batch
        if size is None or len(x) <= size:
            return forward(x, *args)
        return mx.nd.concat(*(forward(x[i : i + size]) for i in range(0, len(x), size)), dim=0)

    def feature_maps(self, *names: str) -> "FeatureMaps":
        """Return a block that maps an image to the named maps, sharing this net's parameters."""
        return FeatureMaps(self, names)


def fold_for_inference(net: AsymmNet) -> AsymmNet:
    """Copy the net with normalisation folded, in the inference graph mode, not hybridized.

    The copy has operators of stock MXNet only.

    Raises: InputError if the net has another normalisation than batch normalisation.
    """
    arrays = {n: p.data().asnumpy() for n, p in net._collect_params_with_prefix().items()}
    if "features.stem.norm.running_var" not in arrays:
        raise InputError("only batch normalisation folds into the convolutions")
    epsilon = net.features.stem.norm._kwargs["eps"]
    folded = AsymmNet(
        net.plan, classes=net.output._channels, dropout=0, folded=True, prefix=net.prefix
    )
    values = fold_all(arrays, epsilon)
    for name, param in folded._collect_params_with_prefix().items():
        param.initialize(init=mx.init.Zero())
        param.set_data(mx.nd.array(values[name]))
    set_graph_mode(folded, INFERENCE)
    return folded


class FeatureMaps(mx.gluon.HybridBlock):
    """Feature maps of a classifier's stages, for detection.  Shares the classifier's parameters.

    Shapes: ``(N, 3, H, W) -> [(N, C_i, ceil(H / s_i), ceil(W / s_i)), ...]`` in the order of
    ``names``; ``info`` lists channels C and stride s of each.
    """

    def __init__(self, net: AsymmNet, names: Sequence[str] = ("c3", "c4", "c5")):
        super().__init__(prefix=net.features.prefix, params=net.features.params)
        offered = {info.name: info for info in net.feature_info}
        unknown = [name for name in names if name not in offered]
        if unknown or not names:
            raise InputError(
                f"feature maps {list(unknown or names)} do not exist: choose from "
                f"{', '.join(offered)}"
            )
        self.info = tuple(offered[name] for name in names)
        depth = max(info.block for info in self.info)
        with_squeeze = depth == len(net.features.blocks)
        self.stem = net.features.stem
        self.blocks = nn.HybridSequential(prefix="")
        self.blocks.add(
            *(net.features.blocks[i] for i in range(min(depth + 1, len(net.features.blocks))))
        )
        self.squeeze = net.features.squeeze if with_squeeze else None

    def hybrid_forward(self, F, x):
        maps = []
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        if self.squeeze is not None:
            maps.append(self.squeeze(x))
        return [maps[info.block] for info in self.info]
