"""Training: real runs in processes of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError, RunError
from gluon_asymmnet.train.checkpoint_files import latest
from gluon_asymmnet.train.classifier import ClassifierTask, train
from gluon_asymmnet.train.loop import run
from gluon_asymmnet.train.run_directory import RunDirectory
from gluon_asymmnet.weights.params_file import read_params
from tests.conftest import ROOT, run_python
from tests.digits_runs import command, config, read_metrics, run_dir
from tests.test_config import README_COMMAND


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
