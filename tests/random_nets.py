"""Untrained networks whose normalisation does what a trained one's does."""

import numpy as np

from gluon_asymmnet._environment import mx
from gluon_asymmnet.card import Card
from gluon_asymmnet.export.parity import sample_images
from gluon_asymmnet.registry import get_model
from gluon_asymmnet.saved import SavedModel, build


def random_model(folder, **settings) -> SavedModel:
    """The network of a card; AsymmNet-Small 0.35 of 7 classes and 32 pixels by default.

    Gamma and beta are random, and the running statistics are those of a batch of images: with
    random ones, the layers' signal sinks below their offsets, every image gets the same logits,
    and a wrong network passes for a right one.  ``folder`` is where its weights would lie;
    nothing is written.
    """
    card = Card(**{
        "model": "asymmnet_small", "width": 0.35, "classes": 7, "input_size": 32, **settings,
    })  # fmt: skip
    net = _build(card)
    mx.random.seed(0)
    net.initialize(mx.init.MSRAPrelu())
    rng = np.random.default_rng(0)
    for name, param in net._collect_params_with_prefix().items():
        if name.endswith(".gamma"):
            param.set_data(mx.nd.array(rng.uniform(0.5, 2, param.shape)))
        elif name.endswith((".beta", ".bias")):
            param.set_data(mx.nd.array(rng.normal(0, 0.3, param.shape)))
    net.hybridize()
    with mx.autograd.record():
        logits = net(mx.nd.array(sample_images(32, card.input_size, seed=1)))
    logits.backward()  # it is the backward pass that stores the statistics
    mx.nd.waitall()
    for name, param in net._collect_params_with_prefix().items():
        if name.endswith(".running_var"):  # a channel that is still on that batch would be blown up
            param.set_data(param.data() + 0.03 * param.data().mean())
    return SavedModel(card, net, folder / "net.params")


def _build(card: Card):
    if card.norm != "batch":
        return build(card)
    return get_model(
        card.model, width=card.width, rate=card.rate, shuffle_groups=card.shuffle_groups,
        stem=card.stem, classes=card.classes,
        norm_kwargs={"momentum": 0.0},  # one training step sets the statistics
    )  # fmt: skip
