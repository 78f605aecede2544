"""Settings and commands of short trainings of a detector, which several test modules share."""

from gluon_asymmnet.train.config import resolve
from gluon_asymmnet.train.detector_config import DetectorConfig
from tests.conftest import ROOT

TINY = {
    "network": "asymmnet_small_0.35", "dataset": "custom", "train_splits": "2007_trainval",
    "val_splits": "2007_test", "batch_size": 4, "epochs": 2, "warmup_epochs": 1,
    "lr": 0.01, "log_interval": 2, "threads": 1, "num_workers": 1, "samples": 2,
}  # fmt: skip
NOT_VALIDATED = {"val_splits": "", "samples": DetectorConfig().samples}


def config(boxes, **changes):
    settings = {**TINY, "dataset_root": str(boxes), **changes}
    settings["num_epochs"] = settings.pop("epochs")
    return resolve(DetectorConfig, settings)


def command(boxes, prefix, **changes):
    line = [str(ROOT / "train_ssd.py")]
    settings = {**TINY, "dataset_root": boxes, "save_prefix": f"{prefix}/", **changes}
    for name, value in settings.items():
        line += ["--" + name.replace("_", "-"), str(value)]
    return line


def run_dir(prefix):
    return prefix / "ssd_300_asymmnet_small_0.35_custom"
