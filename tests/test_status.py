"""How a run goes, seen from another process; and the time that is left."""

import json
import os
import subprocess
import sys
import time

import pytest

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.report.run_files import is_locked
from gluon_asymmnet.report.status import lines, status
from gluon_asymmnet.train.progress import TimeLeft, clock, time_left, write_progress
from gluon_asymmnet.train.run_directory import RunDirectory
from tests.conftest import ROOT, run_python
from tests.report_runs import classifier_run, training_command


@pytest.mark.parametrize(
    ("step", "epoch_ends", "run_ends"),
    [
        # 3 epochs of 10 steps of 2 s, each followed by 5 s
        (1, 9 * 2 + 5, 9 * 2 + 5 + 2 * 25),
        (10, 5, 5 + 2 * 25),
        (11, 9 * 2 + 5, 9 * 2 + 5 + 25),
        (30, 5, 5),
    ],
)
def test_time_left_by_hand(step, epoch_ends, run_ends):
    assert time_left(step, 10, 3, 2.0, 5.0) == TimeLeft(epoch_ends, run_ends)


def test_the_clock():
    assert [clock(s) for s in (0, 59.6, 3661, 360000)] == [
        "0:00:00",
        "0:01:00",
        "1:01:01",
        "100:00:00",
    ]


def test_a_full_disk_costs_the_progress_file_only(tmp_path):
    write_progress(tmp_path, TimeLeft(1.0, 2.0), step=3)
    before = (tmp_path / "progress.json").read_text()
    done = run_python(
        "-c",
        "import resource, sys; from pathlib import Path; "
        "from gluon_asymmnet.train import progress; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5, 5)); left = progress.TimeLeft(3.0, 4.0); "
        "progress.write_progress(Path(sys.argv[1]), left, step=4); print('went on')",
        tmp_path,
    )
    assert done.stdout == "went on\n", done.stderr
    assert (tmp_path / "progress.json").read_text() == before
    assert json.loads(before)["run_ends_in"] == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_a_run_that_stopped(tmp_path):
    rows = classifier_run(tmp_path / "run")
    (tmp_path / "run/checkpoints/step-000001875").mkdir(parents=True)
    (tmp_path / "run/checkpoints/step-000001875/state.json").write_text("{}")
    (tmp_path / "run/checkpoints/step-000002500").mkdir()  # no state: not complete
    event = {
        "time": "2026-11-21T09:07:09+00:00",
        "step": 5,
        "kind": "resumed",
        "message": "a\nb\x1b",
    }
    (tmp_path / "run/events.jsonl").write_text(json.dumps(event) + "\n" + '{"time')
    found = status(tmp_path / "run")
    assert (found["state"], found["epoch"], found["epochs"]) == ("stopped", 4, 360)
    assert (found["step"], found["steps"]) == (1875, 225000)  # it goes on from the checkpoint
    assert found["run_ends_in"] is None and found["problems"] == []
    assert found["best"]["top1"] == rows[-1]["val_top1"] == 0.48
    text = lines(found)
    assert "epoch 4 (of 0 to 359), step 1875 of 225000 (0.8%)" in text
    assert "2026-11-21 09:07:09 UTC step 5 resumed: a b?" in text  # no control reaches a terminal
    with pytest.raises(InputError, match="no such directory"):
        status(tmp_path / "nothing")


def test_the_lock_tells_a_run_that_goes_on(tmp_path):
    classifier_run(tmp_path / "run")
    lock = tmp_path / "run/.lock"
    assert not is_locked(lock)
    holder = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        found = status(tmp_path / "run")
        assert found["state"] == "running"
        # nothing was logged: an epoch takes what the last one took
        assert (found["epoch_ends_in"], found["run_ends_in"]) == (330, 330 * 355)
        write_progress(tmp_path / "run", TimeLeft(50.0, 90.0), epoch=5, step=3200,
                       steps_per_epoch=625, images_per_s=9.5, lr=0.1, train_loss=1.5)  # fmt: skip
        found = status(tmp_path / "run")
        assert (found["epoch"], found["step"], found["training"]) == (5, 3200, {"loss": 1.5})
        assert 80 < found["run_ends_in"] <= 90 and 40 < found["epoch_ends_in"] <= 50
        process.stdin.close()
    assert status(tmp_path / "run")["state"] == "stopped"
    assert not is_locked(lock)


def test_looking_does_not_keep_a_run_from_starting(tmp_path):
    from gluon_asymmnet.train.classifier_config import ClassifierConfig

    assert not is_locked(tmp_path / "nothing")
    config = ClassifierConfig(model="asymmnet_small")
    RunDirectory(tmp_path / "run", config, {}).close()
    assert not is_locked(tmp_path / "run/.lock")
    directory = RunDirectory(tmp_path / "run", config, {})
    assert is_locked(tmp_path / "run/.lock")
    directory.close()


@pytest.mark.thorough
def test_a_real_run_from_another_process(digits, tmp_path):
    folder = tmp_path / "runs/custom/asymmnet_small_demo"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, *training_command(digits, tmp_path / "runs")],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as training:  # fmt: skip
        deadline = time.monotonic() + 200
        while not (folder / "progress.json").exists():
            assert time.monotonic() < deadline and training.poll() is None, training.stdout.read()
            time.sleep(0.1)
        watched = run_python("-m", "gluon_asymmnet", "status", folder, "--json", "--watch", "0.2")
        log = training.stdout.read()
        assert training.wait() == 0, log
    assert watched.returncode == 0, watched.stderr
    seen = [json.loads(line) for line in watched.stdout.splitlines()]
    assert seen[0]["state"] == "running" and seen[-1]["state"] != "running"
    assert {one["steps"] for one in seen} == {63}
    running = [one for one in seen if one["state"] == "running"]
    assert all(0 <= one["epoch_ends_in"] <= one["run_ends_in"] for one in running)
    steps = [one["step"] for one in running]
    assert steps == sorted(steps) and 0 < steps[0] <= 63
    assert "left=0:0" in log  # in the loop's own lines
    done = run_python("-m", "gluon_asymmnet", "status", folder)
    assert done.stdout.splitlines()[0].endswith("asymmnet_small_demo: finished")
    assert "step 63 of 63 (100.0%)" in done.stdout and "step-000000063" in done.stdout


@pytest.mark.parametrize("seconds", ["0", "soon", "-1", "nan"])
def test_how_often_to_look(tmp_path, seconds):
    done = run_python("-m", "gluon_asymmnet", "status", tmp_path, "--watch", seconds)
    assert done.returncode == 2 and "expected seconds, 0.1 to 86400" in done.stderr
