"""Build a classifier from its ``ModelSpec``, without weights."""

import inspect
import reprlib
from typing import Optional

from gluon_asymmnet.arch import MAX_WIDTH
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models import (
    addressnet,
    antnet,
    dicenet,
    eca_mobilenetv2,
    eca_resnet,
    ghostnet,
    mobilenetv2,
    rpw,
    shufflenetv2,
)
from gluon_asymmnet.models.asymmnet import AsymmNet
from gluon_asymmnet.models.factored import factorize
from gluon_asymmnet.models.own import build_own
from gluon_asymmnet.models.registry import OWN_MODELS, ModelSpec

_DROPOUT = 0.2  # AsymmNet's
# Arguments of a ``build`` that a spec file does not set.
_COMMON = ("classes", "dropout", "input_size", "prefix")


def build_classifier(
    spec: ModelSpec,
    *,
    classes: int = 1000,
    dropout: Optional[float] = None,
    norm_layer=None,
    norm_kwargs: Optional[dict] = None,
    last_gamma: bool = False,
    input_size: int = 224,
):
    """Build the net of a spec, not initialised.  Arguments as in ``zoo.get_classifier``.

    Raises: InputError for settings that cannot be built; it says what fits.
    """
    if not isinstance(classes, int) or classes < 1:
        raise InputError(f"classes must be a whole number, at least 1, got {classes!r}")
    if dropout is not None and not 0 <= dropout < 1:
        raise InputError(f"dropout must be at least 0 and below 1, got {dropout!r}")
    if spec.family_model is None:
        return AsymmNet(
            spec.plan(),
            classes=classes,
            dropout=_DROPOUT if dropout is None else dropout,
            norm_layer=norm_layer,
            norm_kwargs=norm_kwargs,
            last_gamma=last_gamma,
            prefix=f"{spec.id}_",
        )
    refuse_settings(
        spec, shuffle_groups=spec.shuffle_groups, norm_layer=norm_layer, norm_kwargs=norm_kwargs,
        last_gamma=last_gamma, stem=spec.stem != "authors",
    )  # fmt: skip
    return _build_family_model(spec, classes, dropout, input_size)


def refuse_settings(spec: ModelSpec, **settings) -> None:
    """Raise InputError for a setting of AsymmNet that was given to another net."""
    for name, value in settings.items():
        if value:
            raise InputError(
                f"{spec.name} has no {name}: it is a setting of AsymmNet; leave it out"
            )


def _build_family_model(spec: ModelSpec, classes: int, dropout: Optional[float], input_size: int):
    family, settings, *_ = spec.family_model
    if spec.is_own:
        return build_own(OWN_MODELS[family], spec, settings, classes, dropout, input_size)
    build = _BUILDERS[family]
    size = {"width": spec.width, "rate": spec.rate, **settings}
    width = size["width"]
    if not isinstance(width, (int, float)) or not 0 < width <= MAX_WIDTH:
        raise InputError(f"width must be a number above 0 and at most {MAX_WIDTH}, got {width!r}")
    own = [name for name in inspect.signature(build).parameters if name not in _COMMON]
    unknown = [name for name in settings if name not in own]
    if unknown:
        raise InputError(
            f"{spec.name}: the family {family} has no setting {reprlib.repr(unknown[0])}: it takes "
            f"{', '.join(own) or 'none'}"
        )
    if "rate" not in inspect.signature(build).parameters and (rate := size.pop("rate")):
        raise InputError(f"{spec.name}: the family {family} has no rate, got {rate}")
    return build(
        classes=classes, dropout=dropout, input_size=input_size, prefix=f"{spec.id}_", **size
    )


def _build_decomposed(
    *, width: float, rate: int, classes: int, dropout: Optional[float], input_size: int,
    prefix: str, base: Optional[dict] = None, layers: Optional[dict] = None,
):  # fmt: skip
    """Build a net of another family and replace convolutions by factored ones.

    Args:
        base: ``{"family": ..., "settings": {...}, "width": ..., "rate": ...}``; the last two may
            be left to ``width`` and ``rate``.
        layers: forms by paths of convolutions, as ``factored.factorize`` takes them.

    Raises: InputError for a base that cannot be built, or layers that do not fit it.
    """
    keys = {"family", "settings"}
    if not isinstance(base, dict) or not keys <= set(base) <= keys | {"width", "rate"}:
        raise InputError(
            f'base must be {{"family": ..., "settings": {{...}}}}, with width and rate if wanted, '
            f"got {base!r}"
        )
    if not isinstance(layers, dict) or not all(isinstance(f, dict) for f in layers.values()):
        raise InputError(f"layers must map paths of convolutions to their forms, got {layers!r}")
    if width != 1 and "width" in base:
        raise InputError(f"the base says width {base['width']}, the argument {width}: give one")
    spec = ModelSpec(
        prefix.rstrip("_"),
        base.get("width", width),
        base.get("rate", rate),
        spec={key: base[key] for key in keys},
    )
    net = build_classifier(spec, classes=classes, dropout=dropout, input_size=input_size)
    factorize(net, layers)
    return net


# By the names in ``registry.FAMILIES``; keyword arguments are those of a family and ``_COMMON``.
_BUILDERS = {
    "addressnet": addressnet.build,
    "antnet": antnet.build,
    "decomposed": _build_decomposed,
    "dicenet": dicenet.build,
    "eca_mobilenetv2": eca_mobilenetv2.build,
    "eca_resnet": eca_resnet.build,
    "ghostnet": ghostnet.build,
    "mobilenetv2": mobilenetv2.build,
    "rpw": rpw.build,
    "shufflenetv2": shufflenetv2.build,
}
