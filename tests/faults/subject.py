"""What the campaign disturbs: small trainings with many checkpoints, and how they end undisturbed.

One thread each, so that equal runs give equal bits.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.records.recordio import RecordFile
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.train.checkpoint_files import find_damage, list_checkpoints
from gluon_asymmnet.weights.params_file import read_params

ROOT = Path(__file__).parent.parent.parent
KEEP = 2
_COMMON = {
    "batch_size": 16, "lr": 0.05, "lr_mode": "cosine", "warmup_epochs": 1,
    "checkpoint_steps": 2, "keep_last": KEEP, "log_interval": 1, "threads": 1, "num_workers": 1,
}  # fmt: skip

_MEASURED = ("seconds", "images", "images_per_s")  # of a row: not decided by the run


class Subject(NamedTuple):
    """One kind of run."""

    name: str
    command: tuple[str, ...]  # but for where it is written
    place: str  # flag that says where
    folder: str  # of the run, in that place
    steps: int
    steps_per_epoch: int

    def line(self, place: Path) -> list[str]:
        """The command that trains in ``place``."""
        return [sys.executable, *self.command, self.place, f"{place}/"]

    def start(self, place: Path, **popen) -> subprocess.Popen:
        """Start a process; its output goes to ``place``.out."""
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{place}.out", "ab") as out:
            return subprocess.Popen(self.line(place), stdout=out, stderr=out,
                                    env=environment(), **popen)  # fmt: skip

    def finish(self, place: Path, timeout=600, **popen) -> subprocess.CompletedProcess:
        """Run a process to its end."""
        return subprocess.run(
            self.line(place), capture_output=True, text=True, env=environment(), timeout=timeout,
            **popen,
        )  # fmt: skip


def environment() -> dict:
    """Of the processes of the campaign."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def classifier(data: Path, backend: str = "opencv", *, epochs: int = 6) -> Subject:
    """A classifier on 96 digits in 32 pixels, validated on 64; all that is random is on."""
    settings = {
        **_COMMON, "model": "asymmnet_small", "width_scale": 0.35, "dataset": "custom",
        "rec_train": data / "train.rec", "rec_train_idx": data / "train.idx",
        "rec_val": data / "val.rec", "rec_val_idx": data / "val.idx", "input_size": 32,
        "crop_ratio": 1.0, "data_backend": backend, "dropout": 0.3, "mixup": True,
        "label_smoothing": True, "save_frequency": 0, "num_epochs": epochs,
    }  # fmt: skip
    return Subject(
        f"classifier, {backend}", (str(ROOT / "train_imagenet.py"), *_flags(settings)),
        "--save-dir", "custom/asymmnet_small_baseline", 6 * epochs, 6,
    )  # fmt: skip


def detector(boxes: Path, *, epochs: int = 3) -> Subject:
    """A detector on 12 pictures with digits, validated on 5."""
    settings = {
        **_COMMON, "network": "asymmnet_small_0.35", "dataset": "custom", "batch_size": 4,
        "dataset_root": boxes, "train_splits": "2007_trainval", "val_splits": "2007_test",
        "lr": 0.01, "samples": 1, "save_interval": 0, "epochs": epochs,
    }  # fmt: skip
    return Subject(
        "detector", (str(ROOT / "train_ssd.py"), *_flags(settings)), "--save-prefix",
        "ssd_300_asymmnet_small_0.35_custom", 3 * epochs, 3,
    )  # fmt: skip


def _flags(settings: dict) -> list[str]:
    line = []
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        line += [flag] if value is True else [flag, str(value)]
    return line


def write_records(digits, out: Path) -> Path:
    """Write the first 96 and 64 records of the demo set."""
    out.mkdir(parents=True)
    for name, count in (("train", 96), ("val", 64)):
        writer = RecordWriter(out / f"{name}.rec", out / f"{name}.idx")
        with RecordFile(getattr(digits, name)) as source, writer:
            for i in range(count):
                writer.write_payload(i, source.payload(i))
        names = digits.root / f"{name}.classes.txt"
        (out / names.name).write_bytes(names.read_bytes())
    return out


class End(NamedTuple):
    """How a run ended, for comparison."""

    arrays: dict  # of the last and best weights, the optimizer, and the newest checkpoint
    metrics: list  # rows without their times

    def differences(self, other: "End") -> list[str]:
        """Names of what is not equal bit for bit."""
        found = [n for n in sorted({*self.arrays, *other.arrays})
                 if not _equal(self.arrays.get(n), other.arrays.get(n))]  # fmt: skip
        return found + ["metrics.jsonl"] * (self.metrics != other.metrics)


def _equal(a, b) -> bool:
    return a is not None and b is not None and a.tobytes() == b.tobytes() and a.shape == b.shape


def read_end(folder: Path) -> End:
    """Read what a finished run left."""
    newest = list_checkpoints(folder / "checkpoints")[-1].path
    files = {
        "last": folder / "last.params", "best": folder / "best.params",
        "net": newest / "net.params", "trainer": newest / "trainer.params",
    }  # fmt: skip
    arrays = {f"{kind} {name}": np.asarray(array) for kind, file in files.items()
              for name, array in read_params(file).items()}  # fmt: skip
    return End(arrays, read_metrics(folder))


def read_metrics(folder: Path) -> list[dict]:
    """Read ``metrics.jsonl`` without times; every line has to be whole."""
    file = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [{k: v for k, v in row.items() if k not in _MEASURED} for row in rows]


def good_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that are whole."""
    return [c.step for c in list_checkpoints(folder / "checkpoints") if find_damage(c) is None]


def damaged_steps(folder: Path) -> list[int]:
    """Steps of those that are not."""
    return [c.step for c in list_checkpoints(folder / "checkpoints") if find_damage(c)]
