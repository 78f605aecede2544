import json
import re

import pytest

from gluon_asymmnet.cli import main
from gluon_asymmnet.report.runs import find_runs, table
from tests.report_runs import classifier_run


@pytest.fixture
def folder(tmp_path):
    classifier_run(tmp_path / "imagenet/a", epochs=3, tag="a")
    classifier_run(tmp_path / "imagenet/b", epochs=5, tag="b", lr=0.5)
    classifier_run(tmp_path / "other/c", epochs=1, tag="c", wd=0.0)
    return tmp_path


def test_table_of_runs(folder, capsys):
    assert main(["runs", str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["run"] for row in rows] == ["imagenet/b", "imagenet/a", "other/c"]
    assert [(row["epochs"], row["of"], row["state"]) for row in rows] == [
        (5, 360, "stopped"), (3, 360, "stopped"), (1, 360, "stopped"),
    ]  # fmt: skip
    assert (rows[0]["metric"], rows[0]["best"], rows[0]["best_epoch"]) == ("top1", 0.48, 4)
    assert rows[0]["settings"] == {"lr": 0.5, "wd": 3e-5}
    assert rows[2]["settings"] == {"lr": 2.6, "wd": 0.0}
    assert main(["runs", str(folder)]) == 0
    heads, first, *_ = capsys.readouterr().out.splitlines()
    assert heads.split()[:5] == ["run", "state", "epochs", "best", "at"]
    assert set(heads.split()[5:]) == {"lr", "wd"}
    assert first.split()[:5] == ["imagenet/b", "stopped", "5/360", "top1", "0.4800"]


def test_a_run_itself_and_nothing(folder, tmp_path, capsys):
    run = folder / "other/c"
    (row,) = table(find_runs(run), run)
    assert (row["run"], row["settings"]) == (".", {})
    assert main(["runs", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["runs", str(tmp_path / "empty")]) == 2
    assert "no run in it" in capsys.readouterr().err


def test_commands_of_a_sweep(capsys):
    line = ["sweep", "--print", "out", "lr=0.1,0.2", "optimizer=sgd,nag", "--", "--recipe", "demo"]
    assert main(line) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == (
        "asymmnet train --recipe demo --lr 0.1 --optimizer sgd --tag-name lr=0.1-optimizer=sgd "
        "--save-dir out"
    )
    assert len(rest) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lr"], "give settings as lr=0.05,0.1 before --"),
        (["lrr=1,2"], "lrr=1,2: no setting of asymmnet train with one value is named lrr"),
        (["mixup=1,2"], "is named mixup"),
        (["lr=1,1"], "expected different values"),
    ],
)
def test_sweeps_that_are_none(arguments, message, capsys):
    assert main(["sweep", "out", *arguments, "--", "--recipe", "demo"]) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.thorough
def test_a_sweep_trains_and_prints_the_table(digits, tmp_path, capfd):
    flags = (
        f"--recipe demo --width 0.35 --num-epochs 1 --num-training-samples 128 --num-workers 1 "
        f"--rec-train {digits.train} --rec-val {digits.val}"
    )
    line = ["sweep", str(tmp_path / "out"), "lr=0.01,0.1", "--", *flags.split()]
    assert main(line) == 0
    rows = table(find_runs(tmp_path / "out"), tmp_path / "out")
    assert {row["settings"]["lr"] for row in rows} == {0.01, 0.1}
    assert [row["state"] for row in rows] == ["finished"] * 2
    assert "asymmnet_small_lr=0.01" in capfd.readouterr().out
