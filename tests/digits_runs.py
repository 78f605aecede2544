"""Settings and commands of short training runs on the digits, which several test modules share."""

import json

import numpy as np

from gluon_asymmnet.data.loader import Batch
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import resolve
from tests.conftest import ROOT

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


def one_batch(digits, size=8):
    rng = np.random.default_rng(0)
    return Batch(rng.normal(size=(size, 3, 32, 32)).astype(np.float32),
                 rng.integers(0, 10, size).astype(np.float32))  # fmt: skip
