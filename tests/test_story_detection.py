"""The story of ``examples/stories/detection.sh``, in a fresh folder."""

import csv
import json
import os
import subprocess
import sys

import pytest

from gluon_asymmnet.predict.video import Video
from tests.conftest import ROOT

pytestmark = pytest.mark.thorough


def test_from_labelimg_to_a_detector_on_videos(tmp_path):
    script = (ROOT / "examples/stories/detection.sh").read_text()
    head = (
        f'asymmnet() {{ "{sys.executable}" -m gluon_asymmnet "$@"; }}\n'
        f'python() {{ "{sys.executable}" "$@"; }}\n'
    )
    done = subprocess.run(
        ["sh", "-c", head + script], capture_output=True, text=True, cwd=tmp_path, timeout=900,
        env={**os.environ, "PYTHONPATH": str(ROOT), "EPOCHS": "1", "IMAGES": "16"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = done.stdout
    assert "data/mine: 24 images" in out
    assert "train: 19 images, val: 5 images" in out
    assert "0 problems" in out
    assert "onnxruntime: largest difference" in out
    folder = json.loads((tmp_path / "folder.json").read_text())
    assert (len(folder["pictures"]), folder["skipped"]) == (24, [])
    assert isinstance(json.loads((tmp_path / "folder.coco.json").read_text()), list)
    assert len(list((tmp_path / "marked/labelled").glob("*.jpg"))) == 24
    frames = {
        row["frame"] for row in csv.DictReader((tmp_path / "clip.csv").read_text().split("\n"))
    }
    assert frames == {str(number) for number in range(10)}
    marked = Video(str(tmp_path / "marked/clip.mp4"), "marked")
    assert (marked.frames, marked.rate) == (10, 5.0)
    assert len(list((tmp_path / "yolo/labels/val").iterdir())) == 5
    assert (tmp_path / "coco/annotations/instances_train.json").is_file()
