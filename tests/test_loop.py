"""The loop's bookkeeping, by short runs in this process: the best weights, what is kept."""

import json
import logging
import time

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.distributed.workers import Workers
from gluon_asymmnet.train.checkpoint import net_arrays
from gluon_asymmnet.train.checkpoint_files import list_checkpoints
from gluon_asymmnet.train.classifier import ClassifierTask, train
from gluon_asymmnet.train.loop import run
from gluon_asymmnet.train.progress import PROGRESS_FILE
from gluon_asymmnet.train.reporter import Reporter
from gluon_asymmnet.train.run_directory import RunDirectory
from gluon_asymmnet.weights.params_file import read_params, write_params
from tests.digits_runs import config, run_dir

STEPS = 2  # of an epoch


def short(digits, tmp_path, **changes):
    """The settings of a run of two steps of 16 images an epoch."""
    settings = {"batch_size": 16, "num_training_samples": STEPS * 16, "warmup_epochs": 0}
    return config(digits, save_dir=str(tmp_path), **{**settings, **changes})


def test_the_speed_after_a_resume_counts_the_steps_of_this_process(digits, tmp_path):
    """Resumed after step 9, the first line comes at step 10, after one step."""
    settings = config(digits, save_dir=str(tmp_path), batch_size=16, log_interval=5)
    task = ClassifierTask(settings, [mx.cpu()])
    directory = RunDirectory(run_dir(tmp_path), settings, {})
    reporter = Reporter(task, directory, logging.getLogger("test"))
    reporter.begin_epoch(0, 9)
    time.sleep(0.2)
    reporter.log_step(10, 0.1, 1.0, 0.5)
    first = json.loads((directory.path / PROGRESS_FILE).read_text())["images_per_s"]
    time.sleep(0.2)
    reporter.log_step(15, 0.1, 1.0, 0.5)
    second = json.loads((directory.path / PROGRESS_FILE).read_text())["images_per_s"]
    directory.close()
    assert first < 16 / 0.2 < second < 5 * 16 / 0.2


def finish(task, settings, tmp_path):
    directory = RunDirectory(run_dir(tmp_path), settings, {})
    try:
        return run(task, directory)
    finally:
        directory.close()


class ScoredTask(ClassifierTask):
    """Validates with the scores given, and keeps the weights of each validation."""

    def __init__(self, settings, scores):
        super().__init__(settings, [mx.cpu()])
        self.scores, self.weights = scores, []

    def validate(self, epoch):
        self.weights.append(net_arrays(self.net))
        return {"top1": self.scores[epoch]}


@pytest.mark.parametrize(
    ("scores", "best"),
    [([0.2, 0.5, 0.5, 0.4], 1), ([0.5, 0.4, 0.5], 0)],
)
@pytest.mark.thorough
def test_the_first_of_the_best_epochs_is_kept(digits, tmp_path, scores, best):
    """Its weights as best.params, and its checkpoint beside the newest."""
    settings = short(digits, tmp_path, num_epochs=len(scores), keep_last=1)
    task = ScoredTask(settings, scores)
    result = finish(task, settings, tmp_path)
    assert (result.best, result.best_epoch) == (scores[best], best)
    assert result.weights == str(run_dir(tmp_path) / "best.params")
    kept = read_params(run_dir(tmp_path) / "best.params")
    for name, value in task.weights[best].items():
        np.testing.assert_array_equal(kept[name], value)  # a copy
    checkpoints = list_checkpoints(run_dir(tmp_path) / "checkpoints")
    assert [c.step for c in checkpoints] == [(best + 1) * STEPS, len(scores) * STEPS]


@pytest.mark.thorough
def test_an_average_counts_the_updates_of_its_own_run(digits, tmp_path):
    """Its first update takes the weights as they are, also in a run that starts at epoch 1."""
    first = ClassifierTask(short(digits, tmp_path), [mx.cpu()])
    write_params(tmp_path / "start.params", net_arrays(first.net))
    settings = short(
        digits, tmp_path, batch_size=STEPS * 16, num_epochs=2, resume_epoch=1, ema=0.999,
        lr_mode="step",
        resume_params=str(tmp_path / "start.params"),
    )  # fmt: skip
    assert train(settings).steps == 2  # one of them in this run
    last, average = (
        read_params(run_dir(tmp_path) / name) for name in ("last.params", "last-ema.params")
    )
    assert not np.array_equal(last["output.weight"], net_arrays(first.net)["output.weight"])
    for name, value in last.items():
        np.testing.assert_array_equal(average[name], value)  # taken over, not computed


class SecondWorker(Workers):
    """Worker 1, whose sums are those it was given."""

    rank = 1


class NoiseTask(ClassifierTask):
    """Notes what MXNet's generator gives in each step."""

    def step(self, *arguments):
        self.noise = [*getattr(self, "noise", []), mx.nd.random.uniform(shape=4).asnumpy()]
        return super().step(*arguments)


@pytest.mark.thorough
def test_each_worker_and_step_has_its_own_dropout(digits, tmp_path):
    noise = []
    for number, workers in enumerate((Workers(), Workers(), SecondWorker())):
        settings = short(digits, tmp_path / str(number), num_epochs=1)
        task = NoiseTask(settings, [mx.cpu()], workers)
        finish(task, settings, tmp_path / str(number))
        noise.append(np.array(task.noise))
    assert noise[0].shape == (STEPS, 4)
    np.testing.assert_array_equal(noise[1], noise[0])  # a function of seed, step and rank
    assert len(np.unique(np.concatenate([noise[0], noise[2]]), axis=0)) == 2 * STEPS
