"""Several workers as real processes: what they compute together, and a loss of one of them.

Those of Horovod run by ``make test-horovod``.
"""

import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gluon_asymmnet.distributed.heartbeat import LOST
from gluon_asymmnet.weights.params_file import read_params
from tests.conftest import ROOT, free_port
from tests.digits_runs import command, paths, run_dir
from tests.floats import NET, assert_close

pytestmark = pytest.mark.thorough

SCRIPT = ROOT / "tests/distributed_run.py"
ENGINES = ["kvstore", pytest.param("horovod", marks=pytest.mark.horovod)]


STARTED = []


@pytest.fixture(autouse=True)
def nothing_stays():
    """End what a failed test has left running; the workers go with their launcher."""
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait()
        process.stdout.close()


class Launched:
    """``asymmnet launch`` in a process of its own, with its output as it comes."""

    def __init__(self, *arguments, **environment):
        self.mark, self.line = secrets.token_hex(8), [*map(str, arguments)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gluon_asymmnet", "launch", *self.line],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TEST_RUN": self.mark, **environment},
        )  # fmt: skip
        STARTED.append(self.process)
        self.text = ""

    def until(self, pattern):
        """Read until a line matches."""
        for line in self.process.stdout:
            self.text += line
            if re.search(pattern, line):
                return
        raise AssertionError(f"no {pattern!r} in:\n{self.text}")

    def end(self):
        """Read all; return the exit status."""
        self.text += self.process.stdout.read()
        status = self.process.wait(60)
        deadline = time.time() + 5
        while self.left() and time.time() < deadline:
            time.sleep(0.05)
        assert self.left() == []
        return status

    def left(self, **variables):
        """Return the processes of this run that have these variables; None: not this one."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                lines = (folder / "environ").read_text(errors="replace").split("\0")
            except OSError:
                continue
            environment = dict(line.split("=", 1) for line in lines if "=" in line)
            wanted = {"TEST_RUN": self.mark, **variables}
            if all(environment.get(name) == value for name, value in wanted.items()):
                found.append(int(folder.name))
        return [number for number in found if number != self.process.pid]

    def find(self, name):
        """Return the process of `worker N`, or the first server or scheduler."""
        if name.startswith("worker"):
            return self.left(DMLC_WORKER_ID=name[-1], ASYMMNET_ROLE=None)[0]
        return self.left(ASYMMNET_ROLE=name)[0]


def train_together(tmp_path, digits, engine, count, frozen=True, variables=None, **changes):
    settings = {
        "model": "asymmnet_small", "width": 0.35, "dataset": "custom", "input_size": 32,
        "crop_ratio": 1.0, "batch_size": 64 // count, "lr": 0.3, "lr_mode": "step",
        "num_epochs": 1, "warmup_epochs": 0, "data_backend": "opencv", "num_workers": 1,
        "threads": 1, "dropout": 0.0, "label_smoothing": True, "mixup": True,
        **paths(digits), "frozen": frozen, "steps": 20, **changes,
    }  # fmt: skip
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    out = tmp_path / f"{engine}{count}.npz"
    run = Launched(
        "-n", count, "--engine", engine, "--", SCRIPT, tmp_path / "settings.json", out,
        **(variables or {})
    )  # fmt: skip
    assert run.end() == 0, run.text
    arrays = dict(np.load(out))
    return arrays.pop("sums"), arrays


@pytest.fixture(scope="module")
def one_worker(digits, tmp_path_factory):
    return train_together(tmp_path_factory.mktemp("one"), digits, "kvstore", 1)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [2, 4])
def test_workers_compute_what_one_does(digits, tmp_path, one_worker, engine, count):
    """Parameters after 20 steps of the same global batch, with mixup and frozen statistics."""
    sums, arrays = train_together(tmp_path, digits, engine, count)
    assert_close(sums[:, 0], one_worker[0][:, 0], terms=NET)
    moved = 0
    for name, expected in one_worker[1].items():
        scale = np.linalg.norm(expected)
        assert np.linalg.norm(arrays[name] - expected) <= 1e-5 * scale, name
        # these start at zero: all that is in them is what was learnt
        moved += name.endswith(("beta", "bias")) and scale > 1e-4
    assert moved > 10


@pytest.mark.parametrize("engine", ENGINES)
def test_running_statistics_are_the_mean_of_the_workers(digits, tmp_path, engine):
    """After one step, in front of which nothing was normalised, that is the whole batch's mean."""
    name = "features.stem.norm.running_mean"
    settings = {"frozen": False, "steps": 1}
    one, two = (train_together(tmp_path, digits, engine, n, **settings)[1][name] for n in (1, 2))
    assert np.linalg.norm(one) > 0
    assert_close(two, one, terms=NET)


def test_shared_memory_and_servers_give_the_same_bits(digits, tmp_path):
    """With batch statistics, whose means are taken, too; 20 steps would carry any difference on."""
    by_memory, by_servers = (
        train_together(tmp_path, digits, "kvstore", 2, frozen=False,
                       variables={"ASYMMNET_SHARED_MEMORY": value})[1]
        for value in "10"
    )  # fmt: skip
    assert len(by_memory) > 100
    assert all(np.array_equal(by_servers[name], array) for name, array in by_memory.items())


GONE = r"worker {} of 3 \(.*, process \d+\) is gone: its connection closed"
EARLY = r"worker {} of 3 \(.*\) failed: its {} ended early \(killed by SIGKILL\)"
SILENT = r"worker {} of 3 \(.*\) has been silent for 8 s"
LOSSES = {  # what is lost, how, the others' line, the launcher's status
    "worker 1": (signal.SIGKILL, GONE.format(1), 137),
    "worker 0": (signal.SIGKILL, r"worker 0 of 3 \(at .*\) is gone: its connection closed", 137),
    "server": (signal.SIGKILL, EARLY.format(0, "parameter server"), LOST),
    "scheduler": (signal.SIGKILL, EARLY.format(0, "scheduler"), LOST),
    "worker 2": (signal.SIGSTOP, SILENT.format(2), LOST),
}


@pytest.mark.parametrize(
    ("engine", "lost"),
    [
        *(("kvstore", lost) for lost in ("worker 1", "server")),
        *(
            pytest.param("kvstore", lost, marks=pytest.mark.slow)
            for lost in ("worker 0", "scheduler", "worker 2")
        ),
        *(
            pytest.param("horovod", lost, marks=pytest.mark.horovod)
            for lost in LOSSES
            if lost.startswith("worker")
        ),
    ],
)
def test_a_loss_ends_all_with_one_line_each(engine, lost):
    """Kill real processes while all are adding up; the launcher reports the first."""
    number, message, expected = LOSSES[lost]
    run = Launched("-n", 3, "--engine", engine, "--timeout", 8, "--", SCRIPT, "sums")
    run.until("adding up")
    os.kill(run.find(lost), number)
    assert run.end() == expected, run.text
    said = re.findall(rf"^\[(\d)\] distributed_run.py: {message}", run.text, re.MULTILINE)
    others = {"0", "1", "2"} - {lost[-1]}
    assert sorted(said) == sorted(others), run.text
    assert len(re.findall("distributed_run.py: ", run.text)) == len(others)
    assert "Traceback" not in run.text


@pytest.mark.parametrize("engine", ENGINES)
def test_an_error_of_one_worker_is_told_to_all(engine):
    run = Launched("-n", 2, "--engine", engine, "--", SCRIPT, "sums", "fail")
    assert run.end() == 2, run.text
    assert "[1] distributed_run.py: the 51st number is odd" in run.text
    assert re.search(r"\[0\] .*: worker 1 of 2 \(.*\) failed: the 51st number", run.text)
    assert "worker 1 ended first: status 2" in run.text
    assert "Traceback" not in run.text


@pytest.mark.slow
def test_a_launcher_that_dies_takes_its_workers_along():
    run = Launched("-n", 2, "--timeout", 5, "--", SCRIPT, "sums")
    run.until("adding up")
    run.process.kill()
    run.end()  # asserts that nothing is left


def test_a_worker_that_never_comes_is_missed():
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "DMLC_WORKER_ID": "0", "DMLC_NUM_WORKER": "2",
        "ASYMMNET_TIMEOUT": "2", "DMLC_PS_ROOT_URI": "127.0.0.1", "ASYMMNET_ENGINE": "kvstore",
        "DMLC_PS_ROOT_PORT": str(free_port()),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "sums"], capture_output=True, text=True, timeout=100,
        env=environment,
    )  # fmt: skip
    assert done.returncode == LOST
    assert re.match(r"distributed_run.py: worker 1 of 2 did not come within 2 s", done.stderr)
    assert len(done.stderr.splitlines()) == 1


def together(digits, save_dir, *arguments, **changes):
    line = command(digits, save_dir, batch_size=32, num_training_samples=384, **changes)
    return Launched("-n", 2, "--timeout", 30, *arguments, "--", *line)


def last_weights(save_dir):
    return read_params(run_dir(save_dir) / "last.params")


@pytest.mark.parametrize("engine", ENGINES)
def test_stopped_then_killed_then_restarted_ends_bit_for_bit(digits, tmp_path, engine):
    """SIGTERM to the launcher, the same command again, and a kill that it mends itself."""
    options = ("--engine", engine, "--elastic-restart", 1)
    undisturbed = together(digits, tmp_path / "a", *options)
    assert undisturbed.end() == 0, undisturbed.text

    stopped = together(digits, tmp_path / "b", *options)
    stopped.until(r"\[0\] Epoch\[0\] Batch \[4\]")
    stopped.process.terminate()
    assert stopped.end() == 128 + signal.SIGTERM, stopped.text
    pasted = re.search(r"\[0\] stopped after step \d+; to resume: (.*)", stopped.text)[1]
    assert shlex.split(pasted)[4:] == stopped.line

    killed = together(digits, tmp_path / "b", *options)
    killed.until(r"\[0\] \[Epoch 1\] validation")
    os.kill(killed.find("worker 1"), signal.SIGKILL)
    assert killed.end() == 0, killed.text
    assert "starting all again from the last checkpoint (1 of 1)" in killed.text
    assert killed.text.count("resumed from") == 2

    a, b = (last_weights(tmp_path / name) for name in "ab")
    assert all(np.array_equal(a[name], b[name]) for name in a)
    measured = ("seconds", "images", "images_per_s")
    rows = [
        [{k: v for k, v in json.loads(line).items() if k not in measured}
         for line in (run_dir(tmp_path / name) / "metrics.jsonl").read_text().splitlines()]
        for name in "ab"
    ]  # fmt: skip
    assert len(rows[0]) == 3
    assert rows[0] == rows[1]


@pytest.mark.horovod
def test_horovod_repeats_bit_for_bit_with_three_workers(digits, tmp_path):
    (_, a), (_, b) = (
        train_together(tmp_path, digits, "horovod", 3, frozen=False, steps=5) for _ in range(2)
    )
    assert all(np.array_equal(a[name], b[name]) for name in a)
