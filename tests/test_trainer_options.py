"""Whole runs with what the published recipe has not: averages, mixing, teachers, early ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gluon_asymmnet.cli import main
from gluon_asymmnet.data.sources import open_source
from gluon_asymmnet.errors import RunError
from gluon_asymmnet.evaluation.classification import evaluate
from gluon_asymmnet.saved import open_saved
from gluon_asymmnet.train.checkpoint import net_arrays
from gluon_asymmnet.train.classifier import train
from gluon_asymmnet.utils.settings import from_json
from gluon_asymmnet.weights.params_file import read_params, write_params
from gluon_asymmnet.zoo import get_model
from tests.conftest import ROOT, run_python
from tests.digits_runs import command, config, read_metrics, run_dir

pytestmark = pytest.mark.thorough

EVERYTHING = {
    "num_epochs": 2, "num_training_samples": 448, "batch_size": 32, "accumulate": 2,
    "ema": 0.9, "cutmix": 1.0, "mixup": True,
    "mix_prob": 0.8, "randaugment": 2, "random_erasing": 0.3, "clip_norm": 2.0,
    "temperature": 4.0, "hard_weight": 0.7, "layer_decay": 0.9, "patience": 5, "lr": 0.05,
}  # fmt: skip


@pytest.fixture(scope="module")
def everything(digits, teacher_run, tmp_path_factory):
    """A run with all options on that nothing happened to."""
    save_dir = tmp_path_factory.mktemp("everything")
    train(config(digits, save_dir=str(save_dir), teacher=str(teacher_run), **EVERYTHING))
    return run_dir(save_dir)


def test_the_average_is_evaluated_written_and_exported(digits, everything, tmp_path):
    rows = read_metrics(everything)
    assert {"val_top1", "val_ema_top1", "val_ema_top5", "val_ema_loss"} <= rows[-1].keys()
    assert re.search(
        r"\[Epoch 1\] validation: top1=.* ema_top1=", (everything / "log.txt").read_text()
    )
    source = open_source(rec=str(digits.val))

    def top1(path):
        model = open_saved(path)
        return evaluate(
            model.predict, source, classes=10, preprocessing=model.card.preprocessing
        ).top1

    assert top1(everything / "last-ema.params") == pytest.approx(rows[-1]["val_ema_top1"])
    best = max(row["val_ema_top1"] for row in rows)
    assert top1(everything / "best-ema.params") == pytest.approx(best)
    assert top1(everything / "best.params") == pytest.approx(max(r["val_top1"] for r in rows))
    assert main(["export", "symbol", str(everything / "best-ema.params"), str(tmp_path / "s")]) == 0
    assert top1(tmp_path / "s") == pytest.approx(best)


def test_killed_and_resumed_with_everything_on_it_ends_bit_for_bit(
    digits, teacher_run, everything, tmp_path
):
    folder = run_dir(tmp_path)
    line = command(digits, tmp_path, checkpoint_steps=2, teacher=teacher_run, **EVERYTHING)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, *line], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.time() + 200
    while time.time() < deadline and not list(folder.glob("checkpoints/step-*10")):
        time.sleep(0.02)  # in the second epoch
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = run_python(*line)
    assert done.returncode == 0, done.stderr
    assert "resumed from" in done.stdout
    for name in ("last.params", "last-ema.params", "best-ema.params"):
        ours, theirs = (read_params(run / name) for run in (folder, everything))
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[n], theirs[n]) for n in ours), name
    without_times = [
        [
            {k: v for k, v in row.items() if k not in ("seconds", "images", "images_per_s")}
            for row in read_metrics(f)
        ]
        for f in (folder, everything)
    ]
    assert without_times[0] == without_times[1]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Weights to start from."""
    net = get_model("asymmnet_small", width=0.35, classes=10)
    net.initialize()
    path = tmp_path_factory.mktemp("start") / "start.params"
    write_params(path, net_arrays(net))
    return path


def test_a_run_without_progress_ends_early_and_as_finished(digits, start, tmp_path, capsys):
    """Frozen and at rate 0 nothing ever gets better than in epoch 0."""
    settings = config(
        digits, save_dir=str(tmp_path), resume_params=str(start), freeze_stages=6, lr=0.0,
        warmup_epochs=0, num_epochs=9, num_training_samples=64, patience=2, ema=0.5,
    )  # fmt: skip
    result = train(settings)
    assert result.finished
    assert (result.best_epoch, result.steps) == (0, 3)
    folder = run_dir(tmp_path)
    assert [row["epoch"] for row in read_metrics(folder)] == [0, 1, 2]
    assert "no better validation for 2 epochs: the run ends" in capsys.readouterr().out
    assert (folder / "last.params").exists()
    again = train(settings)
    assert (again.finished, again.steps) == (True, 3)
    assert len(read_metrics(folder)) == 3


def test_clipping_does_not_hide_a_loss_that_is_not_finite(digits, tmp_path):
    settings = config(digits, lr=1e30, lr_mode="step", warmup_epochs=2, clip_norm=1.0,
                      save_dir=str(tmp_path))  # fmt: skip
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step \d+"):
        train(settings)


def test_a_run_of_an_earlier_version_goes_on(digits, tmp_path):
    """Its config.json has ``null`` for the flags that were declined then, and lacks the new."""
    settings = config(digits)
    known = json.loads(json.dumps(vars(settings)))
    for name in ("ema", "patience", "cutmix", "accumulate", "freeze_stages", "clip_norm"):
        del known[name]
    known.update(teacher=None, temperature=None, hard_weight=None)
    (tmp_path / "config.json").write_text(json.dumps(known))
    assert from_json(type(settings), tmp_path / "config.json") == settings
