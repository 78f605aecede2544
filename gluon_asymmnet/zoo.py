"""Classifiers and detectors by name, with the weights they start from."""

import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import CARD_FILE, CLASSIFIER, read_card
from gluon_asymmnet.data.boxes.voc import VOC_CLASSES
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.build import build_classifier, refuse_settings
from gluon_asymmnet.models.registry import ModelSpec, is_spec_file
from gluon_asymmnet.models.ssd import SSD
from gluon_asymmnet.models.ssd_spec import DetectorSpec, parse_detector
from gluon_asymmnet.weights.load import (
    has_published_weights,
    load_exact,
    load_published,
    load_weights,
    newest_weights,
)
from gluon_asymmnet.weights.published import PUBLISHED


def get_model(name: str, **settings):
    """Build a model by name: a detector if it starts with ``ssd``, else a classifier.

    Settings are those of ``get_detector`` or ``get_classifier``.
    """
    if str(name).lower().startswith("ssd") and not is_spec_file(name):
        return get_detector(name, **settings)
    return get_classifier(name, **settings)


def get_classifier(
    name: str,
    *,
    width: Optional[float] = None,
    rate: Optional[int] = None,
    shuffle_groups: int = 0,
    classes: int = 1000,
    dropout: Optional[float] = None,
    pretrained: bool = False,
    ctx=None,
    root: Optional[str] = None,
    norm_layer=None,
    norm_kwargs: Optional[dict] = None,
    use_global_stats: bool = False,
    last_gamma: bool = False,
    stem: str = "authors",
    input_size: int = 224,
    spec: Optional[dict] = None,
):
    """Build a classifier.  Call ``net.initialize()`` unless it is pretrained.

    Args:
        name: one of ``list_models()``, with a width as suffix if wanted (``asymmnet_large_0.5``);
            or a spec file, ``{"family": ..., "settings": {...}}``.
        width: multiplies the channel counts; AsymmNet's are rounded up to multiples of 8.  The
            name's by default, or 1.
        rate: copies of a block's input joined on each side, the paper's r.  The name's by default,
            or the model's own: AsymmNet's is 1, most others have 0 and no other.
        shuffle_groups: groups of the channel shuffle after the join; 0: none, as published.
        classes: number of logits.
        dropout: probability before the classifier, in [0, 1); the net's own by default, AsymmNet's
            is 0.2.
        pretrained: load the published weights (``asymmnet_large``, width 1, rate 1, 1000 classes).
        ctx: device or devices of pretrained weights; the CPU by default.
        root: folder where pretrained weights are kept; a cache folder by default.
        norm_layer, norm_kwargs: a normalisation to use in place of batch normalisation.
        use_global_stats: normalise with the running statistics in training, too, and leave them.
        last_gamma: start the last gamma of every block with a shortcut at zero.
        stem: ``authors`` for the graph of the released code, ``scaled`` to keep the first
            shortcut at widths 0.35 and 0.5, as their PyTorch port does.
        input_size: pixels; changes only DiCENet, whose filters slide over the image.
        spec: the content of a spec file, in place of the file.  A width or rate in its settings
            wins over the argument.

    Only AsymmNet and MobileNetV3 take ``shuffle_groups``, ``pretrained``, ``norm_layer``,
    ``norm_kwargs``, ``use_global_stats``, ``last_gamma`` and ``stem``.

    Raises:
        InputError: for an unknown name, or settings that cannot be built; it says what fits.
    """
    model = ModelSpec.parse(
        name, width=width, rate=rate, shuffle_groups=shuffle_groups, stem=stem, spec=spec
    )
    net = build_classifier(
        model, classes=classes, dropout=dropout, norm_layer=norm_layer,
        norm_kwargs=_norm_kwargs(norm_kwargs, use_global_stats), last_gamma=last_gamma,
        input_size=input_size,
    )  # fmt: skip
    if pretrained:
        if model.family_model is not None:
            refuse_settings(model, pretrained=pretrained)
        load_published(net, root=root, ctx=ctx)
    return net


def get_detector(
    name: str,
    *,
    classes: Optional[Sequence[str]] = None,
    pretrained: Union[bool, str] = False,
    pretrained_base: Union[bool, str] = False,
    ctx=None,
    root: Optional[str] = None,
    norm_layer=None,
    norm_kwargs: Optional[dict] = None,
    use_global_stats: bool = False,
) -> SSD:
    """Build a detector.  Call ``net.initialize()`` unless it or its backbone is pretrained.

    Args:
        name: one of ``list_detectors()``, with a width behind the backbone if wanted:
            ``ssd_300_asymmnet_large_0.5_voc``.
        classes: names, for ``_custom``; ``_voc`` has VOC's 20.
        pretrained: a parameter file of this detector.
        pretrained_base: weights of the backbone: "published" for the authors' (only
            ``asymmnet_large`` has any); True for those, or a warning and random weights, since
            GluonCV's scripts give True for every backbone; a classifier's parameter file; or the
            directory of its run.  The rest of the net is initialised, too.
        ctx: device or devices of pretrained weights; the CPU by default.
        root: folder where the published weights are kept; a cache folder by default.
        norm_layer, norm_kwargs: a normalisation to use in place of batch normalisation.
        use_global_stats: normalise with the running statistics in training, too, and leave them.

    Raises:
        InputError: for an unknown name, or settings that do not fit; it says what fits.
        FormatError, FileNotFoundError: for weights that cannot be read.
    """
    spec, dataset = parse_detector(name)
    if dataset == "voc":
        if classes is not None and list(classes) != list(VOC_CLASSES):
            raise InputError(f"{name} has VOC's 20 classes: name others with ..._custom")
        classes = VOC_CLASSES
    elif classes is None:
        raise InputError(f"{name} needs the names of its classes: classes=['cat', 'dog']")
    if pretrained is True:
        raise InputError(f"no weights of {name} are published; give a parameter file, or False")
    norm = {
        "norm_layer": norm_layer, "norm_kwargs": _norm_kwargs(norm_kwargs, use_global_stats)
    }  # fmt: skip
    backbone = build_classifier(spec.backbone_spec, dropout=0, **norm)
    net = SSD(spec, backbone, classes, **norm)
    if pretrained:
        load_exact(net, pretrained, ctx=ctx)
    elif pretrained_base:
        if pretrained_base is True and not has_published_weights(backbone):
            warnings.warn(
                f"{name}: no weights of the backbone {spec.backbone_spec.id} are published: it "
                f"starts from random weights; pretrained_base takes a classifier's parameter file "
                f"or run",
                stacklevel=2,
            )
        else:
            load_backbone(backbone, spec, pretrained_base, ctx=ctx, root=root)
        for param in net.collect_params().values():
            if param._data is None:
                param.initialize(ctx=ctx, default_init=mx.init.MSRAPrelu())
    return net


def _norm_kwargs(kwargs: Optional[dict], use_global_stats: bool) -> Optional[dict]:
    return {**(kwargs or {}), "use_global_stats": True} if use_global_stats else kwargs


def load_backbone(classifier, spec: DetectorSpec, weights, *, ctx=None, root=None) -> None:
    """Load a classifier's weights, whatever its classes.  Arguments as ``get_detector``."""
    if weights in (True, PUBLISHED):
        load_published(classifier, root=root, ctx=ctx or mx.cpu(), skip_output=True)
        return
    path = Path(weights)
    if path.is_dir():
        path = _weights_of_run(path, spec)
    load_weights(classifier, path, ctx=ctx or mx.cpu(), skip_output=True)


def _weights_of_run(folder: Path, spec: DetectorSpec) -> Path:
    """The best or last weights of a classifier's run; InputError if it is another network's."""
    card = read_card(folder / CARD_FILE, CLASSIFIER)
    wanted, found = spec.backbone_spec, card.model_spec
    if found._replace(stem=wanted.stem) != wanted:
        raise InputError(
            f"{folder} is a run of {found.id} (shuffle_groups {found.shuffle_groups}), the "
            f"detector's backbone is {wanted.id} (no shuffle)"
        )
    return newest_weights(folder)


# help() and editors show the settings of a classifier for get_model.
get_model.__signature__ = inspect.signature(get_classifier)
