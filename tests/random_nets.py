"""Untrained networks whose normalisation does what a trained one's does."""

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import ClassifierCard, DetectorCard
from gluon_asymmnet.data.boxes.transforms import validation_image
from gluon_asymmnet.export.parity import sample_images
from gluon_asymmnet.predict.images import read_image
from gluon_asymmnet.saved import Saved, build
from gluon_asymmnet.zoo import get_model


def random_model(folder, batch=32, **settings) -> Saved:
    """The network of a card; AsymmNet-Small 0.35 of 7 classes and 32 pixels by default.

    Gamma and beta are random, and the running statistics are those of a batch of images: with
    random ones, the layers' signal sinks below their offsets, every image gets the same logits,
    and a wrong network passes for a right one.  ``folder`` is where its weights would lie;
    nothing is written.  ``batch``: the images of that batch.
    """
    card = ClassifierCard(**{
        "model": "asymmnet_small", "width": 0.35, "classes": 7, "input_size": 32, **settings,
    })  # fmt: skip
    net = build(card)
    settle(net, sample_images(batch, card.input_size, seed=1))
    return Saved(card, net, folder / "net.params")


def random_detector(folder, name, images, class_names=("cat", "dog", "fish")):
    """Write weights and card of a detector into ``folder``, as a run's, and return the folder.

    On each of ``images``, normalised, a dozen boxes or more score half.  "dog" is found exactly
    where "cat" is, with a lower score.
    """
    net = get_model(name, classes=class_names)
    settle(net, np.concatenate([images, sample_images(4, net.spec.size)]))
    values = len(class_names) + 1
    logits, offsets = (v.asnumpy() for v in net.heads(mx.nd, mx.nd.array(images)))
    for predictor in net.class_predictors:  # rows: of each box, background first
        _rescale(predictor.conv, values, 3 / logits.std())
    for predictor in net.box_predictors:
        _rescale(predictor.conv, 4, 1 / offsets.std())
    logits = net.heads(mx.nd, mx.nd.array(images))[0].asnumpy()
    ahead = np.sort(logits[..., 1:].max(axis=-1) - logits[..., 0], axis=1)[:, -12].min()
    for predictor in net.class_predictors:
        bias = predictor.conv.bias.data().asnumpy().reshape(-1, values)
        bias[:, 0] += ahead
        bias[:, 2] -= 0.5
        predictor.conv.bias.set_data(mx.nd.array(bias.ravel()))
    folder.mkdir()
    net.save_parameters(str(folder / "best.params"))
    DetectorCard(
        name, net.spec.size, list(class_names), nms_thresh=net.nms_thresh, nms_topk=net.nms_topk,
        post_nms=net.post_nms,
    ).save(folder / "card.json")  # fmt: skip
    return folder


def network_input(paths, size):
    """Pictures as a detector takes them: ``(n, 3, size, size)``, normalised."""
    normalization = ClassifierCard().preprocessing.normalization
    return np.stack([validation_image(read_image(path), size, normalization) for path in paths])


def _rescale(conv, values: int, factor: float) -> None:
    """Multiply an output by a factor; of a class predictor's, make "dog" what "cat" is."""
    for param in (conv.weight, conv.bias):
        array = param.data().asnumpy()
        rows = array.reshape(-1, values, *array.shape[1:]) * factor
        if conv.name.split("_")[-3] == "class":
            rows[:, 2] = rows[:, 1]
        param.set_data(mx.nd.array(rows.reshape(array.shape)))


def settle(net, images) -> None:
    """Draw weights, and take the running statistics from a batch."""
    mx.random.seed(0)
    net.initialize(mx.init.MSRAPrelu())
    net.apply(_follow_one_batch)
    net(mx.nd.array(images[:1]))  # GluonCV's nets have no shapes before
    rng = np.random.default_rng(0)
    params = net._collect_params_with_prefix()
    for name, param in params.items():
        if name.endswith(".gamma"):
            param.set_data(mx.nd.array(rng.uniform(0.5, 2, param.shape)))
        elif name.endswith((".beta", ".bias")):
            param.set_data(mx.nd.array(rng.normal(0, 0.3, param.shape)))
    net.hybridize()
    with mx.autograd.record():
        outputs = net(mx.nd.array(images))
    mx.autograd.backward(outputs)  # it is the backward pass that stores the statistics
    mx.nd.waitall()
    for name, param in params.items():
        if name.endswith(".running_var"):  # a channel that is still on that batch would be blown up
            param.set_data(param.data() + 0.03 * param.data().mean())


def _follow_one_batch(block) -> None:
    """Let one training step set the running statistics."""
    if isinstance(block, mx.gluon.nn.BatchNorm):
        block._kwargs["momentum"] = 0.0
