"""AsymmNet in timm's registry; ``import gluon_asymmnet.torch`` registers it where timm is used.

``timm.create_model("asymmnet_large_100")``; the number is the width in percent.  Weights come from
a file of any format of ``weights.convert``: ``pretrained=True,
pretrained_cfg_overlay={"file": "asymmnet_large.params"}``.
"""

# ruff: noqa: D102 - forward is documented in its class

import sys
from collections.abc import Sequence

from torch import nn

from gluon_asymmnet.arch import plan_net
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.registry import SPECS
from gluon_asymmnet.torch import AsymmNet, AsymmNetFeatures, feature_maps, load_weights
from gluon_asymmnet.weights.convert import classes_of, find_layout, read_arrays

WIDTHS = (35, 50, 75, 100)  # percent
default_cfgs: dict = {}  # read by timm's ``register_model``


class TimmAsymmNet(AsymmNet):
    """The classifier with timm's interface.

    ``forward_features``: ``(N, 3, H, W) -> (N, num_features, H/32, W/32)``.  ``forward_head``: that
    to ``(N, num_classes)`` logits, or ``(N, head_hidden_size)`` before them.

    Args:
        name, width: of the net, see ``gluon_asymmnet.torch.asymmnet``.
        num_classes: number of logits; 0: no classifier.
        in_chans: channels of the input; the weights are for 3.
        global_pool: "avg", or "" for maps in place of vectors.
        drop_rate: dropout before the classifier.
    """

    def __init__(
        self, name: str, width: float, num_classes: int = 1000, in_chans: int = 3,
        global_pool: str = "avg", drop_rate: float = 0.2,
    ):  # fmt: skip
        super().__init__(
            plan_net(SPECS[name], width=width), classes=max(num_classes, 1), dropout=drop_rate
        )
        if in_chans != 3:
            old = self.features.stem.conv
            self.features.stem.conv = nn.Conv2d(
                in_chans, old.out_channels, 3, 2, padding=1, bias=False
            )
        self.num_features = self.plan.squeeze
        self.head_hidden_size = self.plan.hidden
        self.feature_info = AsymmNetFeatures(self.plan).feature_info.info
        self.grad_checkpointing = False
        self.reset_classifier(num_classes, global_pool, keep=num_classes > 0)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.output

    def reset_classifier(
        self, num_classes: int, global_pool: str = "avg", *, keep: bool = False
    ) -> None:
        """Replace the last layer by a new one for ``num_classes``, or by none for 0."""
        if global_pool not in ("avg", ""):
            raise InputError(f"global_pool must be 'avg' or '', got {global_pool!r}")
        self.num_classes, self.global_pool = num_classes, global_pool
        if not keep:
            hidden = self.head_hidden_size
            self.output = nn.Conv2d(hidden, num_classes, 1) if num_classes else nn.Identity()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Refuse gradient checkpointing, as timm's nets do that have none."""
        assert not enable, "gradient checkpointing not supported"

    def forward_features(self, x):
        """Return the map before the pooling, ``(n, num_features, h, w)``."""
        features = self.features
        return features.squeeze(features.blocks(features.stem(x)))

    def forward_head(self, x, pre_logits: bool = False):
        """Return the logits of such a map; with ``pre_logits``, the classifier's input."""
        features = self.features
        if self.global_pool:
            x = x.mean((2, 3), keepdim=True)
        x = features.dropout(features.hidden_act(features.hidden(x)))
        if not pre_logits:
            x = self.output(x)
        return x.flatten(1) if self.global_pool else x

    def forward(self, x):
        return self.forward_head(self.forward_features(x))

    def load_pretrained(self, path: str) -> None:
        """Load a weight file of any format, without its classifier if the classes differ."""
        found = read_arrays(path)
        classes = classes_of(found, find_layout(path, found))
        load_weights(self, path, skip_output=classes != self.num_classes)


class TimmFeatures(nn.Module):
    """The maps of a ``TimmAsymmNet``, for ``features_only=True``."""

    def __init__(self, net: TimmAsymmNet, out_indices: Sequence[int] = (0, 1, 2, 3, 4), **_):
        from timm.models import FeatureInfo

        super().__init__()
        self.feature_info = FeatureInfo(net.feature_info, out_indices)
        chosen = AsymmNetFeatures(net.plan, self.feature_info.out_indices)
        self.places = chosen.places
        self.features = nn.Module()
        self.features.stem = net.features.stem
        self.features.blocks = net.features.blocks[: len(chosen.features.blocks)]
        self.features.squeeze = None

    def forward(self, x):
        return feature_maps(self.features, self.places, x)


def register() -> None:
    """Add the names to timm's registry."""
    for name in ("asymmnet_large", "asymmnet_small"):
        for percent in WIDTHS:
            _register(name, percent)


def _register(name: str, percent: int) -> None:
    import timm
    from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

    full = f"{name}_{percent:03d}"

    def build(pretrained=False, **settings):
        if overlay := settings.get("pretrained_cfg_overlay"):  # timm resets what a file needs
            settings["pretrained_cfg_overlay"] = {"custom_load": "file" in overlay, **overlay}
        return build_model_with_cfg(
            TimmAsymmNet, full, pretrained, name=name, width=percent / 100,
            feature_cfg={"out_indices": (0, 1, 2, 3, 4), "feature_cls": TimmFeatures}, **settings,
        )  # fmt: skip

    build.__name__ = build.__qualname__ = full
    build.__doc__ = f"{name} at width {percent / 100:g}."
    default_cfgs.update(generate_default_cfgs({f"{full}.untrained": {
        "url": "", "num_classes": 1000, "input_size": (3, 224, 224), "pool_size": (7, 7),
        "crop_pct": 0.875, "interpolation": "bilinear", "custom_load": True,
        "mean": timm.data.IMAGENET_DEFAULT_MEAN, "std": timm.data.IMAGENET_DEFAULT_STD,
        "first_conv": "features.stem.conv", "classifier": "output", "license": "apache-2.0",
    }}))  # fmt: skip
    setattr(sys.modules[__name__], full, register_model(build))
