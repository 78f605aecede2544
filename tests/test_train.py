"""Training: its mathematics, and real runs in processes of their own."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.data.loader import Batch
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.train import checkpoint
from gluon_asymmnet.train.checkpoint import load_states_file
from gluon_asymmnet.train.checkpoint_files import clean_up, latest, list_checkpoints
from gluon_asymmnet.train.classifier import ClassifierTask, train
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import resolve
from gluon_asymmnet.train.loop import run
from gluon_asymmnet.train.mixing import Mixup
from gluon_asymmnet.train.optimization import freeze_norms
from gluon_asymmnet.train.run_directory import RunDirectory
from gluon_asymmnet.weights.layouts import entries
from gluon_asymmnet.weights.params_file import read_params
from tests.conftest import ROOT, run_python
from tests.floats import NET, assert_close
from tests.test_config import README_COMMAND

TINY = {
    "model": "asymmnet_small", "width": 0.35, "dataset": "custom", "input_size": 32,
    "crop_ratio": 1.0, "batch_size": 64, "lr": 0.1, "lr_mode": "cosine", "num_epochs": 3,
    "warmup_epochs": 1, "data_backend": "opencv", "log_interval": 5, "threads": 1,
    "num_workers": 1, "dropout": 0.3, "label_smoothing": True,
}  # fmt: skip


def paths(digits):
    return {
        "rec_train": str(digits.train), "rec_train_idx": str(digits.train.with_suffix(".idx")),
        "rec_val": str(digits.val), "rec_val_idx": str(digits.val.with_suffix(".idx")),
    }  # fmt: skip


def config(digits, **changes):
    return resolve(ClassifierConfig, {**TINY, **_input(digits, changes), **changes})


def _input(digits, changes):
    return {} if "data_dir" in changes else paths(digits)


def command(digits, save_dir, **changes):
    settings = {**TINY, **_input(digits, changes), "save_dir": str(save_dir), **changes}
    settings["width-scale"] = settings.pop("width")
    line = [str(ROOT / "train_imagenet.py")]
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        line += [flag] if value is True else [flag, str(value)]
    return line


def read_metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def run_dir(save_dir):
    return save_dir / "custom/asymmnet_small_baseline"


# --- Mathematics -----------------------------------------------------------------------------


def one_batch(digits, size=8):
    rng = np.random.default_rng(0)
    return Batch(rng.normal(size=(size, 3, 32, 32)).astype(np.float32),
                 rng.integers(0, 10, size).astype(np.float32))  # fmt: skip


def test_smoothed_and_mixed_targets_by_hand(digits):
    task = ClassifierTask(config(digits, batch_size=2), [mx.cpu()])
    label = mx.nd.array([3, 7])
    expected = np.full((2, 10), 0.01)
    expected[0, 3] = expected[1, 7] = 0.91  # 1 - 0.1 + 0.1 / 10
    target = task._target(label)
    assert_close(target, expected, axes=())
    mixed = 0.7 * expected + 0.3 * expected[::-1]
    assert_close(Mixup(0.7).labels(target), mixed, axes=())


def test_mixup_is_off_in_the_last_epochs(digits):
    task = ClassifierTask(config(digits, mixup=True, mixup_off_epoch=1), [mx.cpu()])
    rng = np.random.default_rng(0)
    assert task._sample_mixup(2, rng) == Mixup()
    shares = [task._sample_mixup(1, rng).share for _ in range(2000)]
    # Beta(0.2, 0.2): mean 1/2, variance 1 / (4 * 1.4)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(1 / 5.6, abs=0.01)


@pytest.mark.parametrize("no_wd", [False, True])
def test_one_update_is_nesterov_with_weight_decay(digits, no_wd):
    """v = m v + lr (g + wd w); w -= m v + lr (g + wd w), from the gradients MXNet left.

    Source: Sutskever et al. 2013, section 2, in the form of ``mx.optimizer.NAG``: the rate is
    inside the velocity, which matters once it changes.  MXNet 1.9.1's kernel reads the weight
    again after writing it, so the decay inside the velocity is that of the new weight.
    """
    task = ClassifierTask(
        config(digits, batch_size=8, wd=0.01, momentum=0.9, dropout=0.0, no_wd=no_wd), [mx.cpu()]
    )
    names = [n for n, p in task.net._collect_params_with_prefix().items() if p.grad_req != "null"]
    arrays = task.net._collect_params_with_prefix()
    weight = {n: arrays[n].data().asnumpy() for n in names}
    velocity = dict.fromkeys(names, 0)
    for step, lr in ((1, 0.05), (2, 0.02)):
        task.trainer.set_learning_rate(lr)
        task.step(one_batch(digits), 0, np.random.default_rng(step)).wait_to_read()
        for n in names:
            decay = 0 if no_wd and re.search("beta|gamma|bias", n) else 0.01
            gradient = arrays[n].grad().asnumpy() / 8
            change = lr * (gradient + decay * weight[n])
            weight[n] = weight[n] - (0.9 * (0.9 * velocity[n] + change) + change)
            velocity[n] = 0.9 * velocity[n] + lr * (gradient + decay * weight[n])
            assert_close(arrays[n].data(), weight[n], terms=NET)


def test_sums_are_loss_and_hits(digits):
    task = ClassifierTask(config(digits, batch_size=8, dropout=0.0), [mx.cpu()])
    batch = one_batch(digits)
    with mx.autograd.train_mode():
        logits = task.net(mx.nd.array(batch.data)).asnumpy().astype(np.float64)
    log_share = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = np.full((8, 10), 0.01)
    target[np.arange(8), batch.label.astype(int)] = 0.91
    loss, hits = task.step(batch, 0, np.random.default_rng(0)).asnumpy()
    assert loss == pytest.approx(-(target * log_share).sum(), rel=1e-4)
    assert hits == (logits.argmax(axis=1) == batch.label).sum()


def test_loss_scale_leaves_the_update_as_it_is(digits):
    """What half precision needs; checked in single precision, where it must change nothing."""
    results = []
    for scale in (1, 128):
        task = ClassifierTask(config(digits, batch_size=8, dropout=0.0), [mx.cpu()])
        task.loss_scale = scale
        task.step(one_batch(digits), 0, np.random.default_rng(0)).wait_to_read()
        results.append(checkpoint.net_arrays(task.net))
    for name, value in results[0].items():
        assert_close(results[1][name], value, terms=NET)


def test_two_devices_do_what_one_does(digits):
    """Two CPU contexts stand for two GPUs: same update where batch statistics are fixed."""
    one = ClassifierTask(config(digits, batch_size=8, dropout=0.0), [mx.cpu()])
    two = ClassifierTask(config(digits, batch_size=4, dropout=0.0), [mx.cpu(0), mx.cpu(1)])
    assert two.images_per_step == 8
    for task in (one, two):
        freeze_norms(task.net)
    for (_, p), (_, q) in zip(*(sorted(t.net._collect_params_with_prefix().items())
                                for t in (one, two))):  # fmt: skip
        q.set_data(p.data())
    sums = [t.step(one_batch(digits), 0, np.random.default_rng(0)).asnumpy() for t in (one, two)]
    assert_close(sums[0], sums[1], terms=NET)
    a, b = (checkpoint.net_arrays(t.net) for t in (one, two))
    for name in a:
        assert_close(b[name], a[name], terms=NET)


def test_learning_rate_scales_with_the_global_batch_on_request(digits):
    task = ClassifierTask(config(digits, lr=2.6, lr_base_batch=2048), [mx.cpu()])
    assert task.peak_lr == pytest.approx(2.6 * 64 / 2048)
    assert "scaled by the global batch" in task.describe()
    assert ClassifierTask(config(digits, lr=2.6), [mx.cpu()]).peak_lr == 2.6


# --- Checkpoints -----------------------------------------------------------------------------


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


def test_files_that_are_no_states(tmp_path):
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


# --- Whole runs ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(digits, tmp_path_factory):
    """A run of three epochs that nothing happened to."""
    save_dir = tmp_path_factory.mktemp("undisturbed")
    done = run_python(*command(digits, save_dir))
    assert done.returncode == 0, done.stderr
    return run_dir(save_dir), done


def test_run_directory(undisturbed):
    folder, done = undisturbed
    steps = 1348 // 64
    lines = (folder / "log.txt").read_text().splitlines()
    number = r"[-\d.e]+"
    assert re.fullmatch(
        rf"Epoch\[0\] Batch \[4\]\tSpeed: {number} samples/sec\taccuracy={number}\tlr={number}"
        r"\tleft=[\d:]+",
        lines[2],
    )
    assert lines[1].startswith("data: training set: 1348 images, 10 classes; ")
    assert re.search(rf"\n\[Epoch 2\] training: accuracy={number}\n"
                     rf"\[Epoch 2\] speed: \d+ samples/sec\ttime cost: {number}\n"
                     rf"\[Epoch 2\] validation: top1={number} top5={number} loss={number}$",
                     "\n".join(lines))  # fmt: skip
    rows = read_metrics(folder)
    assert [row["step"] for row in rows] == [steps, 2 * steps, 3 * steps]
    assert rows[2]["train_loss"] < rows[0]["train_loss"]
    assert json.loads((folder / "config.json").read_text())["lr"] == 0.1
    assert json.loads((folder / "environment.json").read_text())["packages"]["mxnet"] == "1.9.1"
    assert json.loads((folder / "card.json").read_text())["class_names"] == list("0123456789")
    assert cv2.imread(str(folder / "curves.png")).shape[1] > 800
    assert list(folder.glob("events.out.tfevents.*"))
    assert done.stdout.splitlines()[-1].startswith("best top-1 ")
    weights = mx.nd.load(str(folder / "last.params"))  # an ordinary Gluon file
    assert weights.keys() == read_params(folder / "last.params").keys()


def equal_weights(a, b):
    x, y = (read_params(folder / "last.params") for folder in (a, b))
    return x.keys() == y.keys() and all(np.array_equal(x[n], y[n]) for n in x)


@pytest.mark.thorough  # more of it: test_faults.py
@pytest.mark.parametrize("delay", [1.7])
def test_killed_and_resumed_ends_bit_for_bit_as_undisturbed(digits, undisturbed, tmp_path, delay):
    folder = run_dir(tmp_path)
    line = command(digits, tmp_path, checkpoint_steps=7)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, *line], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.time() + 120
    while time.time() < deadline and not list(folder.glob("checkpoints/step-*")):
        time.sleep(0.02)  # until there is something to resume; then a moment later
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = run_python(*line)
    assert done.returncode == 0, done.stderr
    assert equal_weights(folder, undisturbed[0])
    rows = [
        [(r["step"], r["train_loss"], r["val_top1"]) for r in read_metrics(f)]
        for f in (folder, undisturbed[0])
    ]
    assert rows[0] == rows[1]


@pytest.mark.thorough
def test_stopped_by_a_signal_it_saves_and_says_how_to_go_on(digits, undisturbed, tmp_path):
    tmp_path = tmp_path / "runs of $HOME; it's ours"
    folder = run_dir(tmp_path)
    line = command(digits, tmp_path)
    process = subprocess.Popen(
        [sys.executable, *line], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        for text in process.stdout:
            if text.startswith("Epoch[1]"):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stdout.read()
    assert process.returncode == 128 + signal.SIGTERM
    pasted = re.search(r"stopped after step \d+; to resume: (.*train_imagenet\.py --model.*)", rest)
    done = subprocess.run(
        pasted[1], shell=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert done.returncode == 0
    assert equal_weights(folder, undisturbed[0])


class SignalledTask(ClassifierTask):
    """Gets a SIGTERM while its second step, the last of the first epoch, is under way."""

    def step(self, *arguments):
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().step(*arguments)


@pytest.mark.thorough
def test_stopped_in_the_last_step_of_an_epoch_it_still_validates(digits, tmp_path):
    settings = config(digits, num_training_samples=128, save_dir=str(tmp_path))
    directory = RunDirectory(run_dir(tmp_path), settings, {})
    task = SignalledTask(settings, [mx.cpu()])
    result = run(task, directory)
    directory.close()
    assert (result.finished, result.steps) == (False, 2)
    assert [row["step"] for row in read_metrics(run_dir(tmp_path))] == [2]
    assert train(settings).finished
    rows = read_metrics(run_dir(tmp_path))
    assert [(row["step"], "val_top1" in row) for row in rows] == [(2, True), (4, True), (6, True)]
    events = [json.loads(x) for x in (run_dir(tmp_path) / "events.jsonl").read_text().splitlines()]
    events = [e for e in events if e["kind"] != "data"]
    assert [(e["kind"], e["step"], e["message"]) for e in events] == [
        ("started", 0, "at step 0 of 6"), ("stopped", 2, "by SIGTERM after step 2"),
        ("resumed", 2, "from step-000000002, of 6 steps"),
    ]  # fmt: skip


class InterruptedTask(ClassifierTask):
    """Is interrupted in its first validation, after the checkpoint of the epoch."""

    def validate(self, epoch):
        raise KeyboardInterrupt


@pytest.mark.thorough
def test_a_run_interrupted_in_validation_validates_first_when_resumed(digits, tmp_path):
    undisturbed, interrupted = (
        config(digits, num_training_samples=128, save_dir=str(tmp_path / name)) for name in "ab"
    )
    train(undisturbed)
    folder = run_dir(tmp_path / "b")
    directory = RunDirectory(folder, interrupted, {})
    with pytest.raises(KeyboardInterrupt):
        run(InterruptedTask(interrupted, [mx.cpu()]), directory)
    directory.close()
    assert latest(folder / "checkpoints").step == 2
    assert latest(folder / "checkpoints").read_state()["validation_pending"]
    assert not (folder / "metrics.jsonl").exists()
    assert train(interrupted).finished
    rows = [
        [{k: v for k, v in row.items() if k not in ("seconds", "images_per_s")}
         for row in read_metrics(run_dir(tmp_path / name))]
        for name in "ab"
    ]  # fmt: skip
    assert [row["step"] for row in rows[1]] == [2, 4, 6]
    assert rows[0] == rows[1]
    assert equal_weights(folder, run_dir(tmp_path / "a"))
    assert not latest(folder / "checkpoints").read_state()["validation_pending"]


@pytest.mark.thorough
def test_a_finished_run_is_left_alone_and_another_config_refused(digits, undisturbed):
    folder, _ = undisturbed
    before = (folder / "last.params").stat().st_mtime_ns, (folder / "config.json").read_text()
    save_dir = folder.parent.parent
    again = run_python(*command(digits, save_dir))
    assert again.returncode == 0, again.stderr
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3
    changed = run_python(*command(digits, save_dir, lr=0.2))
    assert changed.returncode == 2
    assert "holds a run with other settings (lr 0.1 -> 0.2)" in changed.stderr
    never = run_python(*command(digits, save_dir, resume="never"))
    assert never.returncode == 2
    assert "holds a run already" in never.stderr
    assert (folder / "config.json").read_text() == before[1]


def test_loss_that_is_not_finite_stops_the_run(digits, tmp_path):
    """A rate of 1e30 in the second epoch; the first ends with a good checkpoint."""
    settings = config(digits, lr=1e30, lr_mode="step", warmup_epochs=2, num_epochs=3,
                      save_dir=str(tmp_path), checkpoint_steps=1)  # fmt: skip
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step \d+ \(epoch \d, batch \d+"):
        train(settings)
    kept = latest(run_dir(tmp_path) / "checkpoints")
    assert kept is None or all(np.isfinite(v).all() for v in read_params(kept.params).values())


def test_two_processes_do_not_share_a_run(digits, tmp_path):
    settings = config(digits, save_dir=str(tmp_path))
    first = RunDirectory(run_dir(tmp_path), settings, {})
    with pytest.raises(InputError, match="another process is working on this run"):
        RunDirectory(run_dir(tmp_path), settings, {})
    first.close()
    RunDirectory(run_dir(tmp_path), settings, {}).close()


@pytest.mark.thorough
def test_the_authors_readme_command_trains(digits, tmp_path):
    """Their command, but for paths, classes, size, batch and what this machine lacks."""
    line = README_COMMAND.split()
    changes = {
        "--rec-train": digits.train, "--rec-train-idx": digits.train.with_suffix(".idx"),
        "--rec-val": digits.val, "--rec-val-idx": digits.val.with_suffix(".idx"),
        "--num-gpus": 0, "--batch-size": 128, "--num-epochs": 2, "--warmup-epochs": 1,
        "--dtype": "float32", "-j": 2, "--log-interval": 5,
    }  # fmt: skip
    for flag, value in changes.items():
        line[line.index(flag) + 1] = str(value)
    # 2.6 is the rate for 2,048 images per step
    extra = ["--input-size", "32", "--save-dir", str(tmp_path), "--lr-base-batch", "2048",
             "--dataset", "custom"]  # fmt: skip
    done = run_python(ROOT / "train_imagenet.py", *line, *extra)
    assert done.returncode == 0, done.stderr
    assert "[Epoch 1] validation: top1=" in done.stdout


@pytest.mark.thorough
def test_folders_train_as_records_do(digits, tmp_path):
    line = command(digits, tmp_path, data_dir=digits.root / "images", num_epochs=2)
    done = run_python(*line)
    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
def test_fine_tuning_starts_from_the_weights_given(digits, undisturbed, tmp_path):
    """One epoch more from trained weights starts better than it did from scratch."""
    folder, _ = undisturbed
    settings = config(digits, resume_params=str(folder / "last.params"), num_epochs=1,
                      warmup_epochs=0, lr=0.01, save_dir=str(tmp_path))  # fmt: skip
    train(settings)
    first = json.loads((run_dir(tmp_path) / "metrics.jsonl").read_text())
    scratch = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert first["train_loss"] < scratch["train_loss"] - 0.2


@pytest.mark.thorough
def test_dry_run_times_the_forward_pass(digits, tmp_path):
    done = run_python(*command(digits, tmp_path, dry_run=3))
    assert re.search(r"speed: [\d.]+ ms per image, 3 passes", done.stdout), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_gpus": 8}, "GPU 7 is not available: this MXNet is built without CUDA; use .*0"),
        ({"batch_size": 5000}, "a batch of 5000 images .* is larger than the training set of 1348"),
        ({"num_training_samples": 5000}, "--num-training-samples 5000: the training set has only"),
        ({"rec_train": "/nowhere/a.rec"}, "/nowhere/a.rec"),
        ({"data_dir": "/nowhere"}, "/nowhere/train"),
        ({"resume_params": "/nowhere/a.params"}, "/nowhere/a.params"),
        ({"model": "asymmnet_smal"}, "did you mean 'asymmnet_small'"),
        ({"rate": 3}, "rates that fit: 0, 1"),
        ({"data_dir": "x", "data_backend": "mxnet"}, "--data-dir x needs --data-backend opencv"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_says_why_and_writes_nothing(digits, tmp_path, changes, message):
    with pytest.raises((InputError, FileNotFoundError), match=message):
        train(config(digits, save_dir=str(tmp_path / "out"), **changes))
    assert not (tmp_path / "out").exists()
