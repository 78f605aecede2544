"""What a checkpoint holds: no pickle, all or nothing.

``net.params`` (an ordinary Gluon file), ``trainer.params`` (the optimizer's arrays under their
parameters' names), ``ema.params`` if there is an average of the weights, ``state.json`` (everything
else), copies of the run's small text files, and ``manifest.json``; ``checkpoint_files`` says how
such folders are kept.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet._environment import mx
from gluon_asymmnet.atomic import new_folder
from gluon_asymmnet.compat.exact import load_exact
from gluon_asymmnet.compat.params_file import read_params, write_params
from gluon_asymmnet.errors import FormatError
from gluon_asymmnet.train.checkpoint_files import Checkpoint, write_manifest

EMA_FILE = "ema.params"


def save(
    folder: Path, step: int, net, trainer, state: dict, *, texts: Mapping[str, str] = {}, ema=None
) -> Checkpoint:
    """Write a checkpoint; ``checkpoint_files.clean_up`` removes older ones.

    Args:
        state: what JSON can hold; ``best_step`` names the checkpoint of the best epoch.
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
        (scratch / "state.json").write_text(json.dumps({"step": step, **state}, indent=1) + "\n")
        for name, text in texts.items():
            (scratch / name).write_text(text)
        write_manifest(scratch, step)
    return checkpoint


def load(checkpoint: Checkpoint, net, trainer, ema=None) -> dict:
    """Put a checkpoint's arrays into ``net`` and ``trainer`` and return its state."""
    load_exact(net, checkpoint.params)
    load_trainer(checkpoint.path / "trainer.params", net, trainer)
    state = checkpoint.read_state()
    if ema is not None:
        ema.load(checkpoint.path / EMA_FILE, state["ema"])
    return state


def net_arrays(net) -> dict[str, "mx.nd.NDArray"]:
    """Return a network's arrays under their structural names, as NumPy arrays."""
    return {
        n: p.data(p.list_ctx()[0]).asnumpy() for n, p in net._collect_params_with_prefix().items()
    }


def not_finite(net) -> Optional[str]:
    """Return the name of a parameter that holds something infinite or no number, or None."""
    arrays = net_arrays(net)
    return next((name for name, array in arrays.items() if not np.isfinite(array).all()), None)


def trainer_arrays(net, trainer) -> dict:
    """Return the optimizer's arrays under ``parameter:number``, as NumPy arrays."""
    found = {}
    states = trainer._updaters[0].states
    for index, name in _trained(net, trainer).items():
        for number, array in enumerate(flat_state(states.get(index))):
            found[f"{name}:{number}"] = array.asnumpy()
    return found


def load_trainer(path, net, trainer) -> None:
    """Put the optimizer's arrays of a checkpoint into ``trainer``."""
    put_trainer(read_params(path), path, net, trainer)


def put_trainer(arrays: Mapping, path, net, trainer) -> None:
    """Put what ``trainer_arrays`` returned back, on every device; errors name ``path``."""
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
    """Map the trainer's numbers to structural names, of parameters that are trained."""
    names = {id(p): n for n, p in net._collect_params_with_prefix().items()}
    return {i: names[id(p)] for i, p in enumerate(trainer._params) if p.grad_req != "null"}


def flat_state(state) -> list:
    """Return the arrays of an optimizer state, which may be None, an array or nested tuples."""
    if state is None:
        return []
    if isinstance(state, (tuple, list)):
        return [array for part in state for array in flat_state(part)]
    return [state]
