"""Run directories for the tests of the report: written here, and one that was really trained."""

import json
import shutil

import numpy as np

from gluon_asymmnet.data.images import encode
from gluon_asymmnet.report.published import published_curve
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import resolve
from gluon_asymmnet.train.detector_config import DetectorConfig
from gluon_asymmnet.utils.settings import to_json
from tests.conftest import ROOT, run_python

HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(2)>\'&amp;'


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def classifier_run(folder, epochs=5, tag="one", **settings):
    """Write what a run of the published recipe leaves after some epochs, and return its rows."""
    settings = {"recipe": "published", "tag_name": tag, **settings}
    config = resolve(ClassifierConfig, settings)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(to_json(config))
    (folder / "card.json").write_text(
        json.dumps({"model": config.model, "parameters": 6076608, "macs": 216900000})
    )
    (folder / "environment.json").write_text(json.dumps({"python": "3.11", "cpu": HOSTILE}))
    rows = [
        {
            "step": 625 * (epoch + 1), "epoch": epoch, "seconds": 330.0, "images": 1280000,
            "images_per_s": 4000.0 + epoch, "lr": 0.1 / (epoch + 1),
            "train_loss": 5.0 / (epoch + 1),
            "train_accuracy": min(0.1 * epoch, 0.6), "val_top1": min(0.12 * epoch, 0.6),
            "val_top5": min(0.2 * epoch, 0.9),
            "val_loss": 6.0 / (epoch + 1),
        }
        for epoch in range(epochs)
    ]  # fmt: skip
    write_lines(folder / "metrics.jsonl", rows)
    return rows


def published_run(folder):
    """Write a run whose curve is the published one."""
    classifier_run(folder)
    rows = [{"step": 625 * (k + 1), **row} for k, row in enumerate(published_curve().rows)]
    write_lines(folder / "metrics.jsonl", rows)


def detector_run(folder):
    """Write what a detector's run of three epochs leaves."""
    settings = {"dataset": "custom", "network": "asymmnet_small", "num_epochs": 3}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(to_json(resolve(DetectorConfig, settings)))
    rows = [
        {"step": 9 * (k + 1), "epoch": k, "seconds": 3.5, "images": 36, "lr": 0.001,
         "train_loss": 9.0 - k, "train_SmoothL1": 2.0 - k / 2, "val_mAP": 0.25 * k,
         "val_mAP_area": 0.2 * k, "val_mAP_resized": 0.25 * k}
        for k in range(3)
    ]  # fmt: skip
    write_lines(folder / "metrics.jsonl", rows)
    classes = [
        {"name": name, "ap_11_point": ap, "ap_area": ap, "positives": 7, "hits": 4, "misses": 2}
        for name, ap in ((HOSTILE, 0.75), ("cat", 0.125), ("never seen", None))
    ]
    (folder / "validation").mkdir()
    (folder / "validation/epoch-0002.json").write_text(
        json.dumps({"iou": 0.5, "images": 12, "classes": classes})
    )
    (folder / "samples/epoch-0002").mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 255, (90, 120, 3)).astype(np.uint8)
    (folder / "samples/epoch-0002/00.jpg").write_bytes(encode(picture))
    (folder / "samples/epoch-0002/01.jpg").write_bytes(b"no picture")


def training_command(digits, save_dir):
    """Return the command that trains a small classifier for three epochs, in seconds."""
    line = [
        ROOT / "train_imagenet.py", "--recipe", "demo", "--width", "0.35", "--num-epochs", "3",
        "--warmup-epochs", "1", "--threads", "1", "--log-interval", "1", "--save-dir", save_dir,
        "--rec-train", digits.train, "--rec-train-idx", digits.train.with_suffix(".idx"),
        "--rec-val", digits.val, "--rec-val-idx", digits.val.with_suffix(".idx"),
    ]  # fmt: skip
    return [str(part) for part in line]


def trained_run(digits, folder):
    """Train on digits whose classes have hostile names, and return the run directory."""
    own = folder / "digits"
    shutil.copytree(digits.root, own, ignore=shutil.ignore_patterns("images"))
    for name in ("train", "val"):
        names = [f"{HOSTILE}{k}" for k in range(10)]
        (own / f"{name}.classes.txt").write_text("\n".join(names) + "\n")
    place = digits._replace(root=own, train=own / "train.rec", val=own / "val.rec")
    done = run_python(*training_command(place, folder / "runs"))
    assert done.returncode == 0, done.stderr
    return folder / "runs/custom/asymmnet_small_demo"
