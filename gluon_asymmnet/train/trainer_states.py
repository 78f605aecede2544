"""Optimizer states of a ``.states`` file, which ``Trainer.save_states`` of MXNet pickled.

It numbers states by the position of their parameter.  Which position that is differs: a Trainer of
MXNet before 1.6, the authors' among them, takes parameters in the order of the layers; a later one
sorts them by their full names, which a net of other code does not share.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from gluon_asymmnet.compat.layouts import entries
from gluon_asymmnet.compat.states_file import inspect_states, load_states
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.train.checkpoint import flat_state, put_trainer


def load_states_file(path, net, trainer, *, trust: bool) -> None:
    """Put the states of a ``.states`` file into ``trainer``; its own settings stay.

    Args:
        net: a classifier of ours, whose parameters ``trainer`` trains.
        trust: unpickling can run any code.

    Raises:
        InputError: without ``trust``.
        FormatError: if it is damaged, or fits the net in no order that is known.
    """
    if not trust:
        raise InputError(
            f"{path} is a Python pickle, and loading it can run any code: add --trust if you know "
            f"who made it, or start from --resume-params alone"
        )
    found = {name.split(".")[0] for name in inspect_states(path)["globals"]}
    if "gluoncv" in found:  # learning-rate schedules of its scripts
        from gluon_asymmnet._environment import gluoncv  # noqa: F401
    try:
        loaded = load_states(path, trust=True)
        states = loaded[0] if isinstance(loaded, tuple) else loaded
        by_position = {int(i): [a.asnumpy() for a in flat_state(s)] for i, s in states.items()}
    except FormatError:
        raise
    except Exception as error:  # whatever the code in it raises
        raise FormatError(f"{path}: cannot be loaded: {type(error).__name__}: {error}") from None
    put_trainer(_named(path, by_position, net, trainer), path, net, trainer)


def _named(path, by_position: Mapping[int, list], net, trainer) -> dict[str, np.ndarray]:
    """Return ``{parameter:number: array}`` in the one order that fits."""
    fitting = [
        {name: by_position[i] for i, name in order.items()}
        for order in _orders(net, trainer)
        if _fits(by_position, order, net)
    ]
    if not fitting:
        raise FormatError(
            f"{path}: its {len(by_position)} states fit {net.prefix.rstrip('_')} neither in the "
            f"order of the layers nor in that of sorted names: they are of another net, or of "
            f"other code under MXNet 1.6 or later; start from --resume-params alone"
        )
    return {
        f"{name}:{number}": array
        for name, arrays in fitting[0].items()
        for number, array in enumerate(arrays)
    }


def _orders(net, trainer) -> Iterator[dict[int, str]]:
    """Yield what the positions of trained parameters may mean."""
    params = net._collect_params_with_prefix()
    names = {id(param): name for name, param in params.items()}
    layers = [entry.name for entry in entries(net.plan, net.output._channels)]
    for order in (layers, [names[id(param)] for param in trainer._params]):
        yield {i: name for i, name in enumerate(order) if params[name].grad_req != "null"}


def _fits(by_position: Mapping[int, list], order: Mapping[int, str], net) -> bool:
    """Whether there are states of exactly the trained parameters, in their shapes.

    Positions of running statistics have none, so that an order that is wrong hardly ever fits.
    """
    params = net._collect_params_with_prefix()
    return by_position.keys() == order.keys() and all(
        array.shape == tuple(params[name].shape)
        for i, name in order.items()
        for array in by_position[i]
    )
