"""Saved states of training: round trip, MXNet's own, damaged ones."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.data.loader import Batch
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.train import checkpoint
from gluon_asymmnet.train.checkpoint import load_states_file
from gluon_asymmnet.train.checkpoint_files import clean_up, list_checkpoints
from gluon_asymmnet.train.classifier import ClassifierTask
from gluon_asymmnet.weights.layouts import entries
from tests.digits_runs import config, one_batch


def test_checkpoint_round_trip_and_all_or_nothing(digits, tmp_path, monkeypatch):
    task = ClassifierTask(config(digits, batch_size=8, dropout=0.0), [mx.cpu()])
    task.step(one_batch(digits), 0, np.random.default_rng(0)).wait_to_read()
    saved = checkpoint.save(tmp_path, 1, task.net, task.trainer, {"best": None})
    other = ClassifierTask(config(digits, batch_size=8, dropout=0.0, seed=5), [mx.cpu()])
    assert checkpoint.load(saved, other.net, other.trainer)["step"] == 1
    for collect in (lambda t: checkpoint.net_arrays(t.net),
                    lambda t: checkpoint.trainer_arrays(t.net, t.trainer)):  # fmt: skip
        a, b = collect(task), collect(other)
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[n], b[n]) for n in a)
    for t in (task, other):  # the next update is the same, too
        t.step(one_batch(digits), 0, np.random.default_rng(1)).wait_to_read()
    a, b = checkpoint.net_arrays(task.net), checkpoint.net_arrays(other.net)
    assert all(np.array_equal(a[n], b[n]) for n in a)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "trainer_arrays", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, 2, task.net, task.trainer, {})
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000001"]


def test_only_the_newest_checkpoints_stay(digits, tmp_path):
    task = ClassifierTask(config(digits, batch_size=8), [mx.cpu()])
    for step in range(1, 6):
        checkpoint.save(tmp_path, step, task.net, task.trainer, {"best_step": 2})
        clean_up(tmp_path, keep=2)
    assert [c.step for c in list_checkpoints(tmp_path)] == [2, 4, 5]


def test_weights_that_are_not_finite_are_named(digits):
    task = ClassifierTask(config(digits, batch_size=8), [mx.cpu()])
    assert checkpoint.not_finite(task.net) is None
    for value in (np.nan, np.inf):
        task.net.output.bias.data()[3] = value
        assert checkpoint.not_finite(task.net) == "output.bias"


def test_state_of_another_network_is_refused(digits, tmp_path):
    task = ClassifierTask(config(digits, batch_size=8), [mx.cpu()])
    task.step(one_batch(digits), 0, np.random.default_rng(0)).wait_to_read()
    saved = checkpoint.save(tmp_path, 1, task.net, task.trainer, {})
    wider = ClassifierTask(config(digits, batch_size=8, width=0.75), [mx.cpu()])
    with pytest.raises(FormatError, match="lacks the state 0 of features"):
        checkpoint.load_trainer(saved.path / "trainer.params", wider.net, wider.trainer)


def a_step(task, seed):
    task.trainer.set_learning_rate(0.1)
    task.step(BATCH, 0, np.random.default_rng(seed)).wait_to_read()


BATCH = Batch(np.random.default_rng(9).normal(size=(8, 3, 32, 32)).astype(np.float32),
              np.arange(8, dtype=np.float32))  # fmt: skip


@pytest.mark.parametrize("order", ["layers", "sorted"])
def test_states_of_a_trainer_of_mxnets_continue(digits, tmp_path, order):
    """MXNet's own files: a Trainer of a list keeps its order, as all did before MXNet 1.6."""
    settings = {"batch_size": 8, "dropout": 0.0}
    theirs = ClassifierTask(config(digits, **settings), [mx.cpu()])
    params = theirs.net._collect_params_with_prefix()
    names = [e.name for e in entries(theirs.net.plan, 10)] if order == "layers" else None
    theirs.trainer = mx.gluon.Trainer(
        [params[n] for n in names] if names else theirs.net.collect_params(),
        "nag", {"momentum": 0.9, "wd": 0.0001}, update_on_kvstore=False,
    )  # fmt: skip
    a_step(theirs, 1)
    weights, states = tmp_path / "their.params", tmp_path / "their.states"
    theirs.net.save_parameters(str(weights))
    theirs.trainer.save_states(str(states))
    settings.update(resume_params=str(weights), resume_states=str(states))
    with pytest.raises(InputError, match=r"their\.states is a Python pickle.*: add --trust"):
        ClassifierTask(config(digits, **settings), [mx.cpu()])
    ours = ClassifierTask(config(digits, trust=True, **settings), [mx.cpu()])
    for task in (theirs, ours):
        a_step(task, 2)
    a, b = checkpoint.net_arrays(theirs.net), checkpoint.net_arrays(ours.net)
    for name in a:
        np.testing.assert_array_equal(b[name], a[name], err_msg=name)


def test_states_that_fit_in_no_order(digits, tmp_path):
    settings = {"batch_size": 8, "dropout": 0.0}
    wide = ClassifierTask(config(digits, width=0.75, **settings), [mx.cpu()])
    a_step(wide, 1)
    wide.trainer.save_states(str(tmp_path / "wide.states"))
    task = ClassifierTask(config(digits, **settings), [mx.cpu()])
    with pytest.raises(
        FormatError, match=r"wide\.states: its \d+ states fit asymmnet_small\S* nei"
    ):
        load_states_file(tmp_path / "wide.states", task.net, task.trainer, trust=True)
    (tmp_path / "odd.states").write_bytes(pickle.dumps([1, 2, 3]))
    with pytest.raises(FormatError, match=r"odd\.states: cannot be loaded: AttributeError"):
        load_states_file(tmp_path / "odd.states", task.net, task.trainer, trust=True)


class Touch:
    """Unpickling it creates a file, as a hostile pickle could."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_states_are_unpickled_only_with_trust(tmp_path):
    path, touched = tmp_path / "net.states", tmp_path / "touched"
    path.write_bytes(pickle.dumps(Touch(touched)))
    with pytest.raises(InputError, match=r"loading it can run any code: add --trust"):
        load_states_file(path, None, None, trust=False)
    assert not touched.exists()
    with pytest.raises(FormatError, match="cannot be loaded"):
        load_states_file(path, None, None, trust=True)
    assert touched.exists()


def test_files_that_are_not_states(tmp_path):
    path = tmp_path / "net.states"
    path.write_text("<html>")
    with pytest.raises(FormatError, match=r"not a pickle .* but HTML or XML text"):
        load_states_file(path, None, None, trust=True)
    with pytest.raises(FileNotFoundError, match="absent: no such file"):
        load_states_file(tmp_path / "absent", None, None, trust=True)
    with pytest.raises(InputError, match="is a directory"):
        load_states_file(tmp_path, None, None, trust=True)
    path.write_bytes(pickle.dumps({0: np.ones(3)})[:-10])
    with pytest.raises(FormatError, match="cannot be loaded: UnpicklingError"):
        load_states_file(path, None, None, trust=True)
