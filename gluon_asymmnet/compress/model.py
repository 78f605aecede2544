"""Decompose a saved classifier into a folder with weights, spec, card and report."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import CARD_FILE
from gluon_asymmnet.compress.network import Decomposed, decompose, select_layers
from gluon_asymmnet.compress.normalisation import reestimate, set_statistics
from gluon_asymmnet.compress.options import METHODS, Options, check
from gluon_asymmnet.data.transforms import Preprocessing
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation.classification import read_batches
from gluon_asymmnet.models.complexity import count_graph
from gluon_asymmnet.models.factored import block_at
from gluon_asymmnet.saved import Saved, open_weights
from gluon_asymmnet.utils.atomic import new_folder
from gluon_asymmnet.weights.params_file import write_params

SPEC_FILE, WEIGHTS_FILE, REPORT_FILE = "spec.json", "last.params", "decomposition.json"

Batches = Callable[[], Iterable[np.ndarray]]


def decompose_model(
    model: Saved,
    batches: Optional[Batches],
    options: Options,
    *,
    pattern: Optional[str] = None,
    progress: Callable[[Decomposed], None] = lambda layer: None,
) -> tuple[Saved, dict]:
    """Return a decomposed copy of a classifier, and the report for ``REPORT_FILE``.

    With images, the statistics of batch normalisation are measured again.

    Args:
        model: a net of a model family, opened from its parameters.
        batches: each call yields the same ``(n, 3, H, W)`` network input; None for ``weight-svd``
            without merging.
        pattern: regular expression for the paths of the layers, see ``network.select_layers``.

    Raises: InputError if model and options do not fit together.
    """
    check(options)
    if batches is None and (METHODS[options.method].data or options.merge):
        step = "merging" if options.merge else options.method
        raise InputError(f"{step} needs images: give --rec-train or --data-dir")
    base = _base_of(model)
    smaller = open_weights(model.weights, model.card)
    layers = select_layers(smaller.net, pattern)
    found = []
    for layer in decompose(model.net, smaller.net, layers, batches, options):
        found.append(layer)
        progress(layer)
    if batches is not None:
        fresh = [layer.form["norm"] for layer in found if "norm" in layer.form]
        set_statistics(smaller.net, [block_at(smaller.net, path) for path in fresh], batches())
        reestimate(smaller.net, batches())
    size = model.card.input_size
    before, after = (count_graph(net, size) for net in (model.net, smaller.net))
    spec = {
        "family": "decomposed",
        "settings": {"base": base, "layers": {layer.path: layer.form for layer in found}},
    }
    card = dataclasses.replace(
        model.card, model=f"{model.card.model}_decomposed", width=1.0, rate=0, spec=spec,
        parameters=after.parameters, macs=after.macs, parity=None, accuracy=None,
    )  # fmt: skip
    report = {
        "model": model.card.model,
        **options._asdict(),
        "input_size": size,
        "before": {"parameters": before.parameters, "macs": before.macs},
        "after": {"parameters": after.parameters, "macs": after.macs},
        "layers": [layer._asdict() for layer in found],
    }
    for net in (model.net, smaller.net):
        net.hybridize(static_alloc=True, static_shape=True)
    return Saved(card, smaller.net, Path(WEIGHTS_FILE)), report


def sampled_batches(
    source, preprocessing: Preprocessing, images: int, batch_size: int = 32
) -> Callable[[], Iterable[np.ndarray]]:
    """Return a function that yields ``(n, 3, H, W)`` batches of about ``images`` images.

    The images are spread evenly over the source and decoded at each call; memory: one batch.
    """
    positions = range(0, len(source), max(1, len(source) // images))

    def batches() -> Iterable[np.ndarray]:
        read = read_batches(source, preprocessing, batch_size, positions=positions)
        return (images for images, _ in read)

    return batches


def write_decomposed(model: Saved, report: dict, out) -> Path:
    """Write the results of ``decompose_model``, all or nothing; ``out`` opens like a run.

    Raises: InputError if ``out`` exists.
    """
    out = Path(out)
    arrays = {n: p.data().asnumpy() for n, p in model.net._collect_params_with_prefix().items()}
    with new_folder(out) as scratch:
        write_params(scratch / WEIGHTS_FILE, arrays)
        model.card.save(scratch / CARD_FILE)
        for name, content in ((SPEC_FILE, model.card.spec), (REPORT_FILE, report)):
            (scratch / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return out


def _base_of(model: Saved) -> dict:
    """Return the ``base`` in the spec of a decomposed net."""
    card = model.card
    row = card.model_spec.family_model
    if row is None:
        raise InputError(
            f"{model.weights} is {card.model}, whose spatial convolutions are depthwise already: "
            f"give a net with regular convolutions, such as shufflenetv2_regular"
        )
    if isinstance(model.net, mx.gluon.SymbolBlock):
        raise InputError(
            f"{model.weights} belongs to an exported symbol, whose layers are fixed: give the run "
            f"directory or the .params file that was exported"
        )
    return {
        "family": row.family, "settings": row.settings,
        "width": card.width, "rate": card.rate,
    }  # fmt: skip
