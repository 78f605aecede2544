"""The contents of a checkpoint: written all or nothing, without pickle.

``net.params`` (an ordinary Gluon file), ``trainer.params`` (the optimizer's arrays by parameter),
``ema.params`` if there is an average of the weights, ``state.json`` (all other values), copies of
the run's small text files, and ``manifest.json``.  ``checkpoint_files`` finds, checks and removes
these folders.
"""

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.train.checkpoint_files import Checkpoint, write_manifest
from gluon_asymmnet.utils.atomic import new_folder
from gluon_asymmnet.weights.layouts import entries
from gluon_asymmnet.weights.load import load_exact
from gluon_asymmnet.weights.params_file import kind_of, read_params, write_params

EMA_FILE = "ema.params"


def save(
    folder: Path, step: int, net, trainer, state: dict, *, texts: Mapping[str, str] = {}, ema=None
) -> Checkpoint:
    """Write a checkpoint; ``checkpoint_files.clean_up`` removes older ones.

    Args:
        state: values for JSON; ``best_step`` is the step of the best epoch's checkpoint.
        texts: further files of the checkpoint, by name.
        ema: the ``AveragedWeights`` of the net, if there are any.

    Raises: OSError if the disk is full or not writable; the older checkpoints are then untouched.
    """
    checkpoint = Checkpoint(Path(folder) / f"step-{step:09d}", step)
    with new_folder(checkpoint.path) as scratch:
        write_params(scratch / "net.params", net_arrays(net))
        write_params(scratch / "trainer.params", trainer_arrays(net, trainer))
        if ema is not None:
            write_params(scratch / EMA_FILE, ema.as_numpy())
            state = {**state, "ema": ema.state}
        values = {"step": step, "updates": trainer.optimizer.num_update, **state}
        (scratch / "state.json").write_text(json.dumps(values, indent=1) + "\n")
        for name, text in texts.items():
            (scratch / name).write_text(text)
        write_manifest(scratch, step)
    return checkpoint


def load(checkpoint: Checkpoint, net, trainer, ema=None) -> dict:
    """Load a checkpoint's arrays into ``net`` and ``trainer``; return its state."""
    load_exact(net, checkpoint.params)
    load_trainer(checkpoint.path / "trainer.params", net, trainer)
    state = checkpoint.read_state()
    set_updates(trainer, state.get("updates", state["step"]))  # as of the version before
    if ema is not None:
        ema.load(checkpoint.path / EMA_FILE, state["ema"])
    return state


def net_arrays(net) -> dict[str, "mx.nd.NDArray"]:
    """Return a network's arrays by structural name, as NumPy arrays."""
    return {
        n: p.data(p.list_ctx()[0]).asnumpy() for n, p in net._collect_params_with_prefix().items()
    }


def not_finite(net) -> Optional[str]:
    """Return the name of a parameter with an infinite value or a NaN, or None."""
    arrays = net_arrays(net)
    return next((name for name, array in arrays.items() if not np.isfinite(array).all()), None)


def trainer_arrays(net, trainer) -> dict:
    """Return the optimizer's arrays by ``parameter:number``, as NumPy arrays."""
    found = {}
    states = trainer._updaters[0].states
    for index, name in _trained(net, trainer).items():
        for number, array in enumerate(flat_state(states.get(index))):
            found[f"{name}:{number}"] = array.asnumpy()
    return found


def load_trainer(path, net, trainer) -> None:
    """Load the optimizer's arrays of a checkpoint into ``trainer``."""
    put_trainer(read_params(path), path, net, trainer)


def set_updates(trainer, updates: int) -> None:
    """Set the number of updates done, on which Adam, AdamW and LAMB divide their averages."""
    optimizer = trainer.optimizer
    optimizer.num_update = optimizer.begin_num_update = updates
    optimizer._all_index_update_counts = {0: {}}  # where a parameter's is missing, it is the number
    optimizer._index_update_count = optimizer._all_index_update_counts[0]


def put_trainer(arrays: Mapping, path, net, trainer) -> None:
    """Load the arrays of ``trainer_arrays`` on every device; errors name ``path``."""
    names = _trained(net, trainer)
    known = {name for name in arrays if name.rsplit(":", 1)[0] in names.values()}
    if len(known) != len(arrays):
        odd = next(name for name in arrays if name not in known)
        raise FormatError(f"{path}: optimizer state of another network: it holds {odd}")
    if not trainer._kv_initialized:
        trainer._init_kvstore()
    for index, name in names.items():
        param = trainer._params[index]
        for updater, weight in zip(trainer._updaters, param.list_data()):
            state = updater.optimizer.create_state_multi_precision(index, weight)
            for number, array in enumerate(flat_state(state)):
                value = arrays.get(f"{name}:{number}")
                if value is None or value.shape != array.shape:
                    raise FormatError(f"{path}: lacks the state {number} of {name}")
                array[:] = mx.nd.array(value, dtype=array.dtype)
            updater.states[index] = state
            updater.states_synced[index] = True


def _trained(net, trainer) -> dict[int, str]:
    """Map the trainer's indices to structural names, for parameters that are not frozen."""
    names = {id(p): n for n, p in net._collect_params_with_prefix().items()}
    return {i: names[id(p)] for i, p in enumerate(trainer._params) if p.grad_req != "null"}


def flat_state(state) -> list:
    """Return the arrays of an optimizer state, which may be None, an array or nested tuples."""
    if state is None:
        return []
    if isinstance(state, (tuple, list)):
        return [array for part in state for array in flat_state(part)]
    return [state]


def load_states_file(path, net, trainer, *, trust: bool) -> None:
    """Load the states of a ``.states`` file into ``trainer``, without the file's settings.

    Args:
        net: a classifier of ours, whose parameters ``trainer`` trains.
        trust: allow unpickling, which can run any code.

    Raises:
        InputError: without ``trust``.
        FileNotFoundError: if there is no such file.
        FormatError: if it is damaged, or does not fit the net in a known order.
    """
    if not trust:
        raise InputError(
            f"{path} is a Python pickle, and loading it can run any code: add --trust if you know "
            f"who made it, or start from --resume-params alone"
        )
    data = _read_pickle(Path(path))
    try:
        loaded = pickle.loads(data)
        states = loaded[0] if isinstance(loaded, tuple) else loaded
        by_position = {int(i): [a.asnumpy() for a in flat_state(s)] for i, s in states.items()}
    except Exception as error:  # the code in the pickle may raise anything
        raise FormatError(f"{path}: cannot be loaded: {type(error).__name__}: {error}") from None
    put_trainer(_named(path, by_position, net, trainer), path, net, trainer)


def _read_pickle(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path} is a directory; a .states file is needed")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    data = path.read_bytes()
    if not data.startswith(b"\x80"):  # the opcode PROTO, first in every pickle since protocol 2
        kind = kind_of(data[:512]) or "something else"
        raise FormatError(f"{path}: not a pickle (of protocol 2 or later) but {kind}")
    return data


def _named(path, by_position: Mapping[int, list], net, trainer) -> dict[str, np.ndarray]:
    """Return ``{parameter:number: array}`` in the order that fits."""
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
    """Yield the known orders of parameters, as maps from position to name."""
    params = net._collect_params_with_prefix()
    names = {id(param): name for name, param in params.items()}
    layers = [entry.name for entry in entries(net.plan, net.output._channels)]
    for order in (layers, [names[id(param)] for param in trainer._params]):
        yield {i: name for i, name in enumerate(order) if params[name].grad_req != "null"}


def _fits(by_position: Mapping[int, list], order: Mapping[int, str], net) -> bool:
    """Return whether the states have the positions and shapes of the trained parameters.

    Running statistics have no state, so that a wrong order hardly ever fits.
    """
    params = net._collect_params_with_prefix()
    return by_position.keys() == order.keys() and all(
        array.shape == tuple(params[name].shape)
        for i, name in order.items()
        for array in by_position[i]
    )
