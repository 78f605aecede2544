"""Every model by name.

Adding one is adding a row to ``SPECS``; the tests, the golden symbols and the tables all
iterate over it.  No other module holds a list of models.
"""

import difflib
import inspect
import re
from typing import NamedTuple, Optional

from gluon_asymmnet.arch import LARGE, SMALL, NetPlan, NetSpec, plan_net
from gluon_asymmnet.errors import InputError

SPECS = {
    "asymmnet_large": LARGE,
    "asymmnet_small": SMALL,
    "mobilenetv3_large": LARGE._replace(reuses=False),
    "mobilenetv3_small": SMALL._replace(reuses=False),
}


class Variant(NamedTuple):
    """A model with its width and rate."""

    name: str
    width: float
    rate: int


def list_models() -> list[str]:
    """Return the names that ``get_model`` knows, without suffixes."""
    return sorted(SPECS)


def get_spec(name: str) -> NetSpec:
    """Return the table of a model by its plain name."""
    try:
        return SPECS[name]
    except KeyError:
        close = difflib.get_close_matches(name, SPECS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(
            f"unknown model {name!r}: expected one of {', '.join(list_models())}, "
            f"with a width as suffix if wanted (asymmnet_large_0.5){hint}"
        ) from None


def variant_id(variant: Variant) -> str:
    """Return the full name of a variant, e.g. ``asymmnet_large_w0.75_r1``."""
    return f"{variant.name}_w{variant.width}_r{variant.rate}"


def parse_name(name: str, width: float = 1.0, rate: int = 1) -> Variant:
    """Read ``asymmnet_large``, ``asymmnet_large_0.5``, ``..._0.5x`` or ``..._w0.5_r2``.

    What the name says wins over ``width`` and ``rate``, unless these say something else than
    their defaults and contradict it.
    """
    lowered = str(name).lower()
    match = re.fullmatch(r"(.+?)_w?(\d+(?:\.\d+)?)x?(?:_r(\d+))?", lowered)
    if match and lowered not in SPECS:
        lowered = match[1]
        width = _agree("width", float(match[2]), width, 1.0)
        if match[3]:
            rate = _agree("rate", int(match[3]), rate, 1)
    spec = get_spec(lowered)
    if not spec.reuses and rate == 1:
        rate = 0  # 1 is the default of asymmnet; the baseline knows only 0
    return Variant(lowered, float(width) if isinstance(width, int) else width, rate)


def _agree(what, named, given, default):
    if given not in (default, named):
        raise InputError(f"the model's name says {what} {named}, the argument {given}: give one")
    return named


def plan_model(
    name: str,
    *,
    width: float = 1.0,
    rate: int = 1,
    shuffle_groups: int = 0,
    stem: str = "authors",
) -> tuple[Variant, NetPlan]:
    """Return a model's channel counts and decisions.  Needs no MXNet."""
    variant = parse_name(name, width, rate)
    plan = plan_net(
        get_spec(variant.name),
        width=variant.width,
        rate=variant.rate,
        shuffle_groups=shuffle_groups,
        stem=stem,
    )
    return variant, plan


def get_model(name: str, **settings):
    """Build a model by name: a detector if it starts with ``ssd``, else a classifier.

    Settings as ``detection.zoo.get_detector`` or ``get_classifier`` have them.
    """
    if str(name).lower().startswith("ssd"):
        from gluon_asymmnet.detection.zoo import get_detector

        return get_detector(name, **settings)
    return get_classifier(name, **settings)


def get_classifier(
    name: str,
    *,
    width: float = 1.0,
    rate: int = 1,
    shuffle_groups: int = 0,
    classes: int = 1000,
    dropout: float = 0.2,
    pretrained: bool = False,
    ctx=None,
    root: Optional[str] = None,
    norm_layer=None,
    norm_kwargs: Optional[dict] = None,
    last_gamma: bool = False,
    stem: str = "authors",
):
    """Build a classifier.  Call ``net.initialize()`` unless it is pretrained.

    Args:
        name: one of ``list_models()``, with a width as suffix if wanted (``asymmnet_large_0.5``).
        width: multiplies the channel counts, which are rounded up to multiples of 8.
        rate: copies of a block's input joined on each side, the paper's r; MobileNetV3 has 0.
        shuffle_groups: groups of the channel shuffle after the join; 0: none, as published.
        classes: number of logits.
        dropout: probability before the classifier, in [0, 1).
        pretrained: load the published weights (``asymmnet_large``, width 1, rate 1, 1000 classes).
        ctx: device or devices of pretrained weights; the CPU by default.
        root: folder where pretrained weights are kept; a cache folder by default.
        norm_layer, norm_kwargs: what stands for batch normalisation, in all places.
        last_gamma: start the last gamma of every block with a shortcut at zero.
        stem: ``authors`` for the graph of the released code, ``scaled`` to keep the first
            shortcut at widths 0.35 and 0.5, as their PyTorch port does.

    Raises:
        InputError: for an unknown name, or settings that cannot be built; it says what fits.
    """
    from gluon_asymmnet.nn.asymmnet import AsymmNet

    variant, plan = plan_model(
        name, width=width, rate=rate, shuffle_groups=shuffle_groups, stem=stem
    )
    net = AsymmNet(
        plan,
        classes=classes,
        dropout=dropout,
        norm_layer=norm_layer,
        norm_kwargs=norm_kwargs,
        last_gamma=last_gamma,
        prefix=variant_id(variant) + "_",
    )
    if pretrained:
        from gluon_asymmnet.compat.weights import load_published

        load_published(net, root=root, ctx=ctx)
    return net


# What help() and editors show of get_model: the classifier's settings, by far the commoner.
get_model.__signature__ = inspect.signature(get_classifier)
