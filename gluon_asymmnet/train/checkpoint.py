"""Checkpoints: one directory each, all or nothing, no pickle.

``checkpoints/step-000000123`` holds ``net.params`` (an ordinary Gluon file), ``trainer.params``
(the optimizer's arrays under their parameters' names), ``ema.params`` if there is an average of
the weights, and ``state.json`` (everything else).
"""

import json
import shutil
from pathlib import Path
from typing import NamedTuple, Optional

from gluon_asymmnet._environment import mx
from gluon_asymmnet.atomic import new_folder
from gluon_asymmnet.compat.exact import load_exact
from gluon_asymmnet.compat.params_file import read_params, write_params
from gluon_asymmnet.errors import FormatError

EMA_FILE = "ema.params"
_PREFIX = "step-"


class Checkpoint(NamedTuple):
    """A checkpoint on disk."""

    path: Path
    step: int

    @property
    def params(self) -> Path:
        """The network's parameters."""
        return self.path / "net.params"


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the complete checkpoints, oldest first."""
    found = [p for p in Path(folder).glob(f"{_PREFIX}*") if (p / "state.json").is_file()]
    return sorted((Checkpoint(p, int(p.name[len(_PREFIX) :])) for p in found), key=lambda c: c.step)


def latest(folder: Path) -> Optional[Checkpoint]:
    """Return the newest checkpoint, or None."""
    checkpoints = list_checkpoints(folder)
    return checkpoints[-1] if checkpoints else None


def save(
    folder: Path, step: int, net, trainer, state: dict, *, keep: int = 3, ema=None
) -> Checkpoint:
    """Write a checkpoint and remove all but the newest ``keep``.

    Args:
        ema: the ``AveragedWeights`` of the net, if there are any.

    Raises: OSError if the disk is full or not writable; the older checkpoints are then untouched.
    """
    checkpoint = Checkpoint(Path(folder) / f"{_PREFIX}{step:09d}", step)
    with new_folder(checkpoint.path) as scratch:
        write_params(scratch / "net.params", net_arrays(net))
        write_params(scratch / "trainer.params", trainer_arrays(net, trainer))
        if ema is not None:
            write_params(scratch / EMA_FILE, ema.as_numpy())
            state = {**state, "ema": ema.state}
        (scratch / "state.json").write_text(json.dumps({"step": step, **state}, indent=1) + "\n")
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old.path)
    return checkpoint


def load(checkpoint: Checkpoint, net, trainer, ema=None) -> dict:
    """Put a checkpoint's arrays into ``net`` and ``trainer`` and return its state."""
    load_exact(net, checkpoint.params)
    load_trainer(checkpoint.path / "trainer.params", net, trainer)
    try:
        state = json.loads((checkpoint.path / "state.json").read_text())
    except ValueError as error:
        raise FormatError(f"{checkpoint.path / 'state.json'}: damaged: {error}") from None
    if ema is not None:
        ema.load(checkpoint.path / EMA_FILE, state["ema"])
    return state


def net_arrays(net) -> dict[str, "mx.nd.NDArray"]:
    """Return a network's arrays under their structural names, as NumPy arrays."""
    return {
        n: p.data(p.list_ctx()[0]).asnumpy() for n, p in net._collect_params_with_prefix().items()
    }


def trainer_arrays(net, trainer) -> dict:
    """Return the optimizer's arrays under ``parameter:number``, as NumPy arrays."""
    found = {}
    states = trainer._updaters[0].states
    for index, name in _trained(net, trainer).items():
        for number, array in enumerate(_flat(states.get(index))):
            found[f"{name}:{number}"] = array.asnumpy()
    return found


def load_trainer(path, net, trainer) -> None:
    """Put what ``trainer_arrays`` returned back, on every device."""
    arrays = read_params(path)
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
            for number, array in enumerate(_flat(state)):
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


def _flat(state) -> list:
    """Return the arrays of an optimizer state, which may be None, an array or nested tuples."""
    if state is None:
        return []
    if isinstance(state, (tuple, list)):
        return [array for part in state for array in _flat(part)]
    return [state]
