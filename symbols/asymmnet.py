"""``get_symbol(num_classes, ...)`` in the form of MXNet's example symbols.

It traces the Gluon net, so there is no second network here: the bridge to ``mx.mod.Module``, to
the C++ and other-language APIs, and to scripts that take a symbols folder.
"""

from gluon_asymmnet import get_model
from gluon_asymmnet._mxnet import mx


def get_symbol(num_classes, model="asymmnet_large", **kwargs):
    """Return the classifier as a symbol from ``data`` to ``softmax``.

    Args:
        num_classes: number of classes.
        model: a name of ``gluon_asymmnet.list_models()``.
        kwargs: as of ``gluon_asymmnet.get_model``: width, rate, dropout, stem, ...
    """
    net = get_model(model, classes=num_classes, **kwargs)
    return mx.sym.SoftmaxOutput(net(mx.sym.var("data")), name="softmax")
