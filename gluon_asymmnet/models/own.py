"""Build the classifiers that users register."""

import inspect
import reprlib
from typing import Callable, Optional

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.registry import ModelSpec

_DEFAULT_DROPOUT = (0, 0.2)  # not asked for: the last is the trainer's default


def build_own(
    factory: Callable, spec: ModelSpec, settings: dict, classes: int, dropout: Optional[float],
    input_size: int,
):  # fmt: skip
    """Build the net of a function of ``register_model``, with all shapes known, not initialised.

    Args:
        settings: those of a spec file.

    Raises: InputError for a setting that the function does not take, or a net that is not one.
    """
    parameters = inspect.signature(factory).parameters
    given = {"classes": classes, **settings}
    for name, value, default in (
        ("width", spec.width, (1,)), ("rate", spec.rate, (0,)),
        ("dropout", dropout, _DEFAULT_DROPOUT), ("input_size", input_size, (input_size,)),
    ):  # fmt: skip
        if name in given or value is None:
            continue
        if name in parameters:
            given[name] = value
        elif value not in default:
            raise InputError(
                f"{spec.name} has no {name}, got {value}: its function does not name it"
            )
    try:
        inspect.signature(factory).bind(**given)
    except TypeError as error:
        raise InputError(
            f"the function of model {spec.name}: {error}; got {', '.join(given)}"
        ) from None
    net = factory(**given)
    if not isinstance(net, mx.gluon.HybridBlock):
        raise InputError(
            f"the function of model {spec.name} returned a {type(net).__name__}, expected a "
            f"gluon.HybridBlock"
        )
    _infer_shapes(net, spec, classes, input_size)
    return net


def _infer_shapes(net, spec: ModelSpec, classes: int, side: int) -> None:
    """Set the shapes of all parameters; raise InputError if the net is not a classifier."""
    try:
        output = net(mx.sym.var("data"))
        arguments, shapes, states = output.infer_shape(data=(1, 3, side, side))
    except (mx.base.MXNetError, TypeError, ValueError, AttributeError) as error:
        reason = next((text for text in str(error).splitlines() if text.strip()), "")
        raise InputError(
            f"model {spec.name} cannot be computed on (N, 3, {side}, {side}): "
            f"{type(error).__name__}: {reprlib.repr(reason.strip())}"
        ) from None
    if shapes != [(1, classes)]:
        raise InputError(
            f"model {spec.name} gives {shapes} for one image of {side} pixels, expected "
            f"(1, {classes})"
        )
    inferred = {
        **dict(zip(output.list_arguments(), arguments)),
        **dict(zip(output.list_auxiliary_states(), states)),
    }
    for name, param in net.collect_params().items():
        if name not in inferred:
            raise InputError(f"model {spec.name} does not use its parameter {name}")
        param.shape = inferred[name]
