"""Open a saved network: a run directory, an exported symbol or a parameter file."""

import warnings
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import CARD_FILE, DETECTOR, Card, DetectorCard, read_card
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.models.asymmnet import AsymmNet
from gluon_asymmnet.models.build import build_classifier
from gluon_asymmnet.models.ssd_spec import parse_detector, plan_detector
from gluon_asymmnet.weights.load import load_exact, load_weights, newest_weights
from gluon_asymmnet.weights.params_file import read_header
from gluon_asymmnet.zoo import get_detector

SYMBOL_SUFFIX = "-symbol.json"
PARAMS_SUFFIX = "-0000.params"
_EXPECTED = "a run directory, a folder or -symbol.json that was exported, or a .params file"


class Saved(NamedTuple):
    """A classifier or a detector with weights, and its card."""

    card: Card
    net: object  # AsymmNet or another block, SSD, or the SymbolBlock of an exported symbol
    weights: Path  # the parameter file

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

        Returns: a classifier's logits; or a detector's scores without background, and boxes, of
            all anchors.
        """
        if self.card.kind != DETECTOR:
            return self.outputs(images)
        return _arrays(self.net.raw()(mx.nd.array(images)))


def _arrays(outputs) -> tuple[np.ndarray, ...]:
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    return tuple(output.asnumpy() for output in outputs)


def open_saved(path, card: Optional[Card] = None, kind: Optional[str] = None) -> Saved:
    """Open the classifier or detector at a path.

    Args:
        path: a run directory (its best weights, else its last), an exported folder or symbol, or
            a ``.params`` file.
        card: the card of a ``.params`` file; read from the file's folder if not given.
        kind: CLASSIFIER or DETECTOR, if only one of them fits.

    Raises:
        FileNotFoundError, FormatError, InputError: one line that says what is wrong.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; expected {_EXPECTED}")
    beside = (path if path.is_dir() else path.parent) / CARD_FILE
    file = _model_file(path) if path.is_dir() else path
    if file.name.endswith(SYMBOL_SUFFIX):
        return _open_symbol(file, read_card(beside, kind))
    if file.suffix != ".params":
        raise InputError(f"{file}: expected {_EXPECTED}")
    if card is None and not beside.exists():
        raise InputError(
            f"{file}: a bare parameter file does not say which network it holds; add --model"
        )
    return open_weights(file, card or read_card(beside, kind))


def _model_file(folder: Path) -> Path:
    """Return the symbol of an exported folder, or the weights of a run."""
    symbols = sorted(folder.glob(f"*{SYMBOL_SUFFIX}"))
    if len(symbols) == 1:
        return symbols[0]
    if not (folder / CARD_FILE).exists():
        raise InputError(
            f"{folder}: holds neither a run nor an exported model; expected {_EXPECTED}"
        )
    return newest_weights(folder)


def optimized(model: Saved) -> Saved:
    """Return the model with its net optimized for inference on the CPU, if that is possible."""
    if not isinstance(model.net, AsymmNet):
        return model
    side = model.card.input_size
    return model._replace(net=model.net.optimize_for_inference(mx.nd.zeros((1, 3, side, side))))


def build(card: Card):
    """Build the network of a card, without weights."""
    if card.kind == DETECTOR:
        classes = card.class_names if parse_detector(card.model).dataset == "custom" else None
        net = get_detector(card.model, classes=classes)
        net.set_nms(card.nms_thresh, card.nms_topk, card.post_nms)
        return net
    return build_classifier(card.model_spec, classes=card.classes, input_size=card.input_size)


def open_weights(weights: Path, card: Card) -> Saved:
    """Build the network of a card and read its parameters."""
    net = build(card)
    load = load_exact if card.kind == DETECTOR else load_weights
    load(net, weights)
    net.hybridize(static_alloc=True, static_shape=True)
    return Saved(card, net, Path(weights))


def _open_symbol(symbol: Path, card: Card) -> Saved:
    """Load an exported symbol with the parameters beside it."""
    weights = symbol.with_name(symbol.name[: -len(SYMBOL_SUFFIX)] + PARAMS_SUFFIX)
    shapes = {array.name: array.shape for array in read_header(weights)}
    if card.kind == DETECTOR:
        _check_detector(symbol, card, shapes)
    net = import_symbol(symbol, weights)
    net.hybridize(static_alloc=True, static_shape=True)
    return Saved(card, net, weights)


def _check_detector(symbol: Path, card: DetectorCard, shapes: dict) -> None:
    """Raise FormatError unless the symbol has the classes and anchors of its card."""
    outputs, boxes = len(card.class_names) + 1, len(plan_detector(card.detector_spec)[0].boxes)
    name, expected = f"{card.id}_class_0_conv_bias", (outputs * boxes,)
    found = shapes.get(f"arg:{name}")
    if found != expected:
        raise FormatError(
            f"{symbol} is not the detector of its card, {card.model} with {outputs - 1} classes: "
            f"{name} is {found or 'missing'}, not {expected}"
        )


def import_symbol(symbol: Path, weights: Path):
    """Return a ``SymbolBlock``; FormatError in one line in place of MXNet's stack trace."""
    try:
        with warnings.catch_warnings():
            # it warns that the type of "data" is unknown
            warnings.filterwarnings("ignore", message="Cannot decide type")
            return mx.gluon.SymbolBlock.imports(str(symbol), ["data"], str(weights))
    except (mx.base.MXNetError, ValueError, KeyError, AssertionError) as error:
        first = str(error).strip().splitlines()[0]
        raise FormatError(f"{symbol}: MXNet cannot read it with {weights.name}: {first}") from None
