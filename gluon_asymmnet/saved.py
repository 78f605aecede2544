"""Find the network behind a path: a run, an exported symbol, or a bare parameter file."""

import warnings
from pathlib import Path
from typing import NamedTuple, Optional, Union

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import (
    CARD_FILE,
    CLASSIFIER,
    DETECTOR,
    Card,
    card_text,
    kind_of,
    read_card,
)
from gluon_asymmnet.detector_card import DetectorCard, read_detector_card
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.models.asymmnet import AsymmNet
from gluon_asymmnet.models.build import build_classifier
from gluon_asymmnet.models.ssd_spec import detector_id, plan_detector
from gluon_asymmnet.weights.load import load_weights, newest_weights
from gluon_asymmnet.weights.params_file import read_header
from gluon_asymmnet.zoo import open_detector

SYMBOL_SUFFIX = "-symbol.json"
PARAMS_SUFFIX = "-0000.params"
_WANTED = "a run directory, a folder or -symbol.json that was exported, or a .params file"


class Saved(NamedTuple):
    """A classifier or a detector with weights, and its card."""

    card: Union[Card, DetectorCard]
    net: object  # AsymmNet or another block, SSD, or the SymbolBlock of an exported symbol
    weights: Path  # the parameter file; of a detector the path that was opened

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Map ``(n, 3, H, W)`` float32 to ``(n, classes)`` logits.  For classifiers."""
        return self.outputs(images)[0]

    def outputs(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Map ``(n, 3, H, W)`` float32 to the outputs of the net and of its symbol.

        Returns: a classifier's logits; or a detector's ids, scores and boxes, as ``SSD`` gives
            them.
        """
        return _arrays(self.net(mx.nd.array(images)))

    def outputs_before_nms(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Map ``(n, 3, H, W)`` float32 to the outputs of the net's ONNX and OpenVINO files.

        Returns: a classifier's logits; or a detector's scores without the background's and boxes,
            for all anchors.
        """
        if self.card.kind != DETECTOR:
            return self.outputs(images)
        return _arrays(self.net.raw()(mx.nd.array(images)))


def _arrays(outputs) -> tuple[np.ndarray, ...]:
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    return tuple(output.asnumpy() for output in outputs)


def open_saved(path) -> Saved:
    """Open a classifier or a detector, as the card there says; errors as ``open_model``."""
    return _open_detector(Path(path)) if kind_at(path) == DETECTOR else open_model(path)


def kind_at(path) -> str:
    """Return whether ``path`` holds a detector or, as without a card, a classifier."""
    path = Path(path)
    card = (path if path.is_dir() else path.parent) / CARD_FILE
    return kind_of(card_text(card)) if card.is_file() else CLASSIFIER


def _open_detector(path: Path) -> Saved:
    symbols = sorted(path.glob(f"*{SYMBOL_SUFFIX}")) if path.is_dir() else [path]
    if len(symbols) == 1 and symbols[0].name.endswith(SYMBOL_SUFFIX):
        return _open_detector_symbol(symbols[0])
    card, net = open_detector(path)
    net.hybridize(static_alloc=True, static_shape=True)
    return Saved(card, net, path)


def _open_detector_symbol(symbol: Path) -> Saved:
    card = read_detector_card(symbol.parent / CARD_FILE)
    net, weights = _load(symbol)
    values, boxes = len(card.class_names) + 1, len(plan_detector(card.spec)[0].boxes)
    name = f"{card_id(card)}_class_0_conv_bias"
    found = next((a.shape for a in read_header(weights) if a.name == f"arg:{name}"), None)
    if found != (values * boxes,):
        raise FormatError(
            f"{symbol} is not the detector of its card, {card.model} with {values - 1} classes: "
            f"{name} is {found or 'missing'}, not {(values * boxes,)}"
        )
    return Saved(card, net, weights)


def open_model(path, card: Optional[Card] = None) -> Saved:
    """Open whatever ``path`` is.

    Args:
        path: a run directory (its best weights, else its last), an exported folder or symbol, or
            a ``.params`` file.
        card: says which network a bare ``.params`` file holds; a card beside it is read otherwise.

    Raises:
        FileNotFoundError, FormatError, InputError: one line that says what is wrong.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; expected {_WANTED}")
    if path.is_dir():
        return _open_folder(path)
    if path.name.endswith(SYMBOL_SUFFIX):
        return open_symbol(path)
    if path.suffix != ".params":
        raise InputError(f"{path}: expected {_WANTED}")
    beside = path.parent / CARD_FILE
    if card is None and not beside.exists():
        raise InputError(
            f"{path}: a bare parameter file does not say which network it holds; add --model"
        )
    return open_weights(path, card or read_card(beside))


def _open_folder(folder: Path) -> Saved:
    symbols = sorted(folder.glob(f"*{SYMBOL_SUFFIX}"))
    if len(symbols) == 1:
        return open_symbol(symbols[0])
    if not (folder / CARD_FILE).exists():
        raise InputError(f"{folder}: holds neither a run nor an exported model; expected {_WANTED}")
    return open_weights(newest_weights(folder), read_card(folder / CARD_FILE))


def optimized(model: Saved) -> Saved:
    """Return the model with its net optimized for inference on the CPU, if that is possible."""
    if not isinstance(model.net, AsymmNet) or model.card.norm != "batch":
        return model
    side = model.card.input_size
    return model._replace(net=model.net.optimize_for_inference(mx.nd.zeros((1, 3, side, side))))


def build(card: Card):
    """Build the network a card describes, without weights."""
    extra = {}
    if card.norm == "group":
        extra = {"norm_layer": mx.gluon.nn.GroupNorm, "norm_kwargs": {"num_groups": 8}}
    return build_classifier(
        card.model_spec, classes=card.classes, input_size=card.input_size, **extra
    )


def open_weights(weights: Path, card: Card) -> Saved:
    """Build the network of a card and read its parameters."""
    net = build(card)
    load_weights(net, weights)
    net.hybridize(static_alloc=True, static_shape=True)
    return Saved(card, net, Path(weights))


def open_symbol(symbol: Path) -> Saved:
    """Load an exported symbol with the parameters and the card beside it."""
    symbol = Path(symbol)
    return Saved(read_card(symbol.parent / CARD_FILE), *_load(symbol))


def _load(symbol: Path):
    """Return the net of a symbol and its parameter file."""
    weights = symbol.with_name(symbol.name[: -len(SYMBOL_SUFFIX)] + PARAMS_SUFFIX)
    read_header(weights)  # a damaged file is named here, before MXNet reads it
    net = import_symbol(symbol, weights)
    net.hybridize(static_alloc=True, static_shape=True)
    return net, weights


def import_symbol(symbol: Path, weights: Path):
    """Return a ``SymbolBlock``; FormatError in one line where MXNet would print a stack."""
    try:
        with warnings.catch_warnings():
            # about the type of "data", which nobody can give
            warnings.filterwarnings("ignore", message="Cannot decide type")
            return mx.gluon.SymbolBlock.imports(str(symbol), ["data"], str(weights))
    except (mx.base.MXNetError, ValueError, KeyError, AssertionError) as error:
        first = str(error).strip().splitlines()[0]
        raise FormatError(f"{symbol}: MXNet cannot read it with {weights.name}: {first}") from None


def card_id(card: Union[Card, DetectorCard]) -> str:
    """Return the full name of the variant, e.g. ``asymmnet_large_w0.75_r1``."""
    if card.kind == DETECTOR:
        return detector_id(card.spec)
    return card.model_spec.id
