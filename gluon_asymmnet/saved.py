"""Find the network behind a path: a run, an exported symbol, or a bare parameter file."""

import warnings
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet._environment import mx
from gluon_asymmnet.card import CARD_FILE, Card, read_card
from gluon_asymmnet.compat.params_file import read_header
from gluon_asymmnet.compat.weights import load_weights
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.registry import Variant, get_model, variant_id

SYMBOL_SUFFIX = "-symbol.json"
PARAMS_SUFFIX = "-0000.params"
_WANTED = "a run directory, a folder or -symbol.json that was exported, or a .params file"


class SavedModel(NamedTuple):
    """A network that can be called, and what it is."""

    card: Card
    net: object  # AsymmNet, or SymbolBlock for an exported symbol
    weights: Path

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Map ``(n, 3, H, W)`` float32 to ``(n, classes)`` logits."""
        return self.net(mx.nd.array(images)).asnumpy()


def open_model(path, card: Optional[Card] = None) -> SavedModel:
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


def _open_folder(folder: Path) -> SavedModel:
    symbols = sorted(folder.glob(f"*{SYMBOL_SUFFIX}"))
    if len(symbols) == 1:
        return open_symbol(symbols[0])
    if not (folder / CARD_FILE).exists():
        raise InputError(f"{folder}: holds neither a run nor an exported model; expected {_WANTED}")
    candidates = [folder / "best.params", folder / "last.params"]
    candidates += sorted(folder.glob("checkpoints/step-*/net.params"), reverse=True)
    for weights in candidates:
        if weights.exists():
            return open_weights(weights, read_card(folder / CARD_FILE))
    raise InputError(f"{folder}: the run has no weights yet; let it finish an epoch")


def build(card: Card):
    """Build the network a card describes, without weights."""
    extra = {}
    if card.norm == "group":
        extra = {"norm_layer": mx.gluon.nn.GroupNorm, "norm_kwargs": {"num_groups": 8}}
    return get_model(
        card.model, width=card.width, rate=card.rate, shuffle_groups=card.shuffle_groups,
        stem=card.stem, classes=card.classes, **extra,
    )  # fmt: skip


def open_weights(weights: Path, card: Card) -> SavedModel:
    """Build the network of a card and read its parameters."""
    net = build(card)
    load_weights(net, weights)
    net.hybridize(static_alloc=True, static_shape=True)
    return SavedModel(card, net, Path(weights))


def open_symbol(symbol: Path) -> SavedModel:
    """Load an exported symbol with the parameters and the card beside it."""
    symbol = Path(symbol)
    weights = symbol.with_name(symbol.name[: -len(SYMBOL_SUFFIX)] + PARAMS_SUFFIX)
    read_header(weights)  # a damaged file is named here, before MXNet reads it
    card = read_card(symbol.parent / CARD_FILE)
    net = import_symbol(symbol, weights)
    net.hybridize(static_alloc=True, static_shape=True)
    return SavedModel(card, net, weights)


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


def card_id(card: Card) -> str:
    """Return the full name of the variant, e.g. ``asymmnet_large_w0.75_r1``."""
    return variant_id(Variant(card.model, card.width, card.rate))
