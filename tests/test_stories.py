"""The stories of the app developer, the operator and the researcher, in a fresh folder."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT, free_port
from tests.test_cluster import executable

pytestmark = pytest.mark.thorough


def run_story(name, folder, **variables):
    executable(folder / "bin/asymmnet", f'exec {sys.executable} -m gluon_asymmnet "$@"')
    executable(folder / "bin/python", f'exec {sys.executable} "$@"')
    work = folder / "work"
    work.mkdir()
    done = subprocess.run(
        ["sh", str(ROOT / "examples/stories" / name)], capture_output=True, text=True, cwd=work,
        timeout=600, env={**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
                          "PYTHONPATH": str(ROOT), **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return work, done.stdout


def test_the_app_developer(tmp_path):
    pytest.importorskip("fastapi")
    work, out = run_story("app_developer.sh", tmp_path, EPOCHS="1", PORT=str(free_port()))
    assert "2 copied by name ('3', '5'), 1 new ('eight')" in out
    assert "of the weights left out ('0', '1', '2', '4', '6' and 3 more)" in out
    assert "opencv: largest difference" in out
    answers = json.loads((work / "answers.json").read_text())
    assert len(answers["pictures"]) > 40
    assert "from Python: " in out
    served = [json.loads(line) for line in (work / "served.jsonl").read_text().splitlines()]
    assert len(served) == len(list((work / "photos/val/3").iterdir()))
    assert {score["name"] for score in served[0]} == {"3", "5", "eight"}


def test_the_operator(tmp_path):
    work, out = run_story("operator.sh", tmp_path)
    assert "digits/images/train: 1348 images, 10 classes" in out
    files = json.loads((work / "verified.json").read_text())["files"]
    assert [(file["records"], file["bad"]) for file in files] == [(1348, []), (449, [])]
    settings = json.loads((work / "settings.json").read_text())
    assert (settings["num_epochs"], settings["width"], settings["lr"]) == (3, 0.35, 0.1)
    assert "stopped with status 143" in out
    status = json.loads((work / "status.json").read_text())
    assert (status["state"], status["epoch"]) == ("finished", 2)
    assert [event["kind"] for event in status["events"]][-3:] == ["stopped", "data", "resumed"]
    assert (work / "report.html").read_text().startswith("<!")
    assert "2 workers of 1 cpu(s)" in out
    assert (work / "runs of mine/custom/asymmnet_small_two/best.params").exists()


def test_the_researcher(tmp_path):
    work, out = run_story("researcher.sh", tmp_path, EPOCHS="1")
    assert "killed: status 137" in out
    assert "resumed from study/digits/plain_net_lr=0.004/checkpoints/step-" in out
    rows = json.loads((work / "runs.json").read_text())
    assert sorted((row["state"], row["settings"]["lr"]) for row in rows) == [
        ("finished", 0.001), ("finished", 0.004)
    ]  # fmt: skip
    result = json.loads((work / "two.json").read_text())
    assert (result["images"], result["top1"] > 0.3) == (92, True)  # one of two classes
    pictures = json.loads((work / "answers.json").read_text())["pictures"]
    assert len(pictures) == len(list((work / "two/3").iterdir()))
    assert "from GluonCV: AsymmNet" in out
    assert "from timm: TimmAsymmNet" in out or "timm is not installed, or cannot" in out
