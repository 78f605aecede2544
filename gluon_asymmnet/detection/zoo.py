"""Detectors by name, with the weights they start from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

from gluon_asymmnet._environment import mx
from gluon_asymmnet.card import CARD_FILE, read_card
from gluon_asymmnet.compat.exact import load_exact
from gluon_asymmnet.compat.weights import load_published, load_weights, newest_weights
from gluon_asymmnet.data.voc import VOC_CLASSES
from gluon_asymmnet.detection.card import DetectorCard, read_detector_card
from gluon_asymmnet.detection.spec import DetectorSpec, parse_detector
from gluon_asymmnet.detection.ssd import SSD
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.registry import Variant, get_classifier, variant_id

PUBLISHED = "published"


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
) -> SSD:
    """Build a detector.  Call ``net.initialize()`` unless it or its backbone is pretrained.

    Args:
        name: one of ``list_detectors()``, with a width behind the backbone if wanted:
            ``ssd_300_asymmnet_large_0.5_voc``.
        classes: names, for ``_custom``; ``_voc`` has VOC's 20.
        pretrained: a parameter file of this detector.
        pretrained_base: weights of the backbone: True or "published" for the authors'
            (``asymmnet_large``); a classifier's parameter file; or the directory of its run.
        ctx: device or devices of pretrained weights; the CPU by default.
        root: folder where the published weights are kept; a cache folder by default.
        norm_layer, norm_kwargs: what stands for batch normalisation, in all places.

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
    norm = {"norm_layer": norm_layer, "norm_kwargs": norm_kwargs}
    backbone = get_classifier(spec.backbone, width=spec.width, rate=spec.rate, dropout=0, **norm)
    net = SSD(spec, backbone, classes, **norm)
    if pretrained:
        load_exact(net, pretrained, ctx=ctx)
    elif pretrained_base:
        load_backbone(backbone, spec, pretrained_base, ctx=ctx, root=root)
        for param in net.collect_params().values():
            if param._data is None:
                param.initialize(ctx=ctx, default_init=mx.init.MSRAPrelu())
    return net


def load_backbone(classifier, spec: DetectorSpec, weights, *, ctx=None, root=None) -> None:
    """Load a classifier's weights, whatever its classes.  Arguments as ``get_detector``."""
    if weights in (True, PUBLISHED):
        load_published(classifier, root=root, ctx=ctx or mx.cpu(), skip_output=True)
        return
    path = Path(weights)
    if path.is_dir():
        path = _weights_of_run(path, spec)
    load_weights(classifier, path, ctx=ctx or mx.cpu(), skip_output=True)


def open_detector(path, *, ctx=None) -> tuple[DetectorCard, SSD]:
    """Open the directory of a detector's run, or a parameter file with its card beside it.

    Raises: FileNotFoundError, FormatError, InputError: one line that says what is wrong.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    card = read_detector_card(folder / CARD_FILE)
    weights = newest_weights(path) if path.is_dir() else path
    _, dataset = parse_detector(card.model)
    classes = card.class_names if dataset == "custom" else None
    net = get_detector(card.model, classes=classes, pretrained=str(weights), ctx=ctx)
    net.set_nms(card.nms_thresh, card.nms_topk, card.post_nms)
    return card, net


def _weights_of_run(folder: Path, spec: DetectorSpec) -> Path:
    """The best or last weights of a classifier's run; InputError if it is another network's."""
    card = read_card(folder / CARD_FILE)
    wanted = Variant(spec.backbone, spec.width, spec.rate)
    found = Variant(card.model, card.width, card.rate)
    if found != wanted or card.shuffle_groups or card.norm != "batch":
        raise InputError(
            f"{folder} is a run of {variant_id(found)} (shuffle_groups {card.shuffle_groups}, "
            f"{card.norm} normalisation), the detector's backbone is {variant_id(wanted)} "
            f"(no shuffle, batch normalisation)"
        )
    return newest_weights(folder)
