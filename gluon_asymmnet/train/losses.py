"""Losses of classifiers by name."""

from typing import Callable

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.registry import Registry


def _softmax(logits, target):
    from gluon_asymmnet._mxnet import mx

    return mx.gluon.loss.SoftmaxCrossEntropyLoss(sparse_label=False)(logits, target)


def _binary(logits, target):
    """Binary cross-entropy of each class, summed.  Source: arXiv:2110.00476, section 3."""
    from gluon_asymmnet._mxnet import mx

    loss = mx.gluon.loss.SigmoidBinaryCrossEntropyLoss(from_sigmoid=False)(logits, target)
    return loss * logits.shape[1]  # Gluon's is the mean over the classes


LOSSES = Registry("loss", {"softmax": _softmax, "bce": _binary})


def register_loss(name: str, function=None) -> Callable:
    """Add a loss for ``--loss``; also a decorator.

    Args:
        function: ``(logits, target) -> loss``, MXNet arrays ``(N, classes)``, ``(N, classes)`` and
            ``(N,)`` float32; a row of ``target`` holds probabilities.
    """
    return LOSSES.register(name, function)


def checked_loss(name: str) -> Callable:
    """Return the loss of this name; its call raises InputError for a result of another shape."""
    function = LOSSES.find(name)

    def loss(logits, target):
        value = function(logits, target)
        if getattr(value, "shape", None) != logits.shape[:1]:
            raise InputError(
                f"--loss {name} returned {getattr(value, 'shape', type(value).__name__)}, expected "
                f"a value per image, {logits.shape[:1]}"
            )
        return value

    return loss
