"""The curve of the authors' training, shown beside runs of the published recipe."""

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple, Optional

from gluon_asymmnet.report.run_files import CLASSIFIER, Run
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.recipes import RECIPES

RECIPE = "published"
NAME = "published run"

# Paths and the speed of reading do not make a different recipe.
_FREE = frozenset({
    "rec_train", "rec_train_idx", "rec_val", "rec_val_idx", "data_dir", "use_rec", "data_backend",
    "num_workers",
})  # fmt: skip
_ONE_BATCH = ("batch_size", "num_gpus")  # only their product counts


class Published(NamedTuple):
    """One row per epoch, from 0."""

    source: str
    rows: list[dict]  # train_accuracy, val_top1, val_top5: shares; images_per_s, seconds


def published_curve() -> Published:
    """Return the authors' curve: AsymmNet-Large, 360 epochs, top-1 of 0.7542 at the best."""
    content = json.loads(Path(__file__).with_name("published_curve.json").read_text())
    names = {"top1": "val_top1", "top5": "val_top5"}
    columns = [names.get(name, name) for name in content["columns"]]
    rows = [
        {"epoch": epoch, **dict(zip(columns, row))} for epoch, row in enumerate(content["epochs"])
    ]
    return Published(content["source"], rows)


def deviations(config: dict) -> list[str]:
    """Return how the settings of a classifier's run differ from the published recipe's."""
    published = dataclasses.asdict(ClassifierConfig(**RECIPES[RECIPE].settings))
    found = [
        f"{field.name} {config.get(field.name)!r} instead of {published[field.name]!r}"
        for field in dataclasses.fields(ClassifierConfig)
        if field.metadata["group"] != "run"
        and field.name not in (*_FREE, *_ONE_BATCH)
        and _listed(config.get(field.name, field.default)) != _listed(published[field.name])
    ]
    batch, theirs = _global_batch(config), _global_batch(published)
    return found + [f"batches of {batch} instead of {theirs} images"] * (batch != theirs)


def is_published(run: Run) -> bool:
    """Whether the published curve belongs beside that of a run."""
    if run.task != CLASSIFIER or not run.config:
        return False
    return run.config.get("recipe") == RECIPE or not deviations(run.config)


def _global_batch(config: dict) -> Optional[int]:
    batch, gpus = (config.get(name) for name in _ONE_BATCH)
    return batch * max(gpus, 1) if isinstance(batch, int) and isinstance(gpus, int) else None


def _listed(value):
    return list(value) if isinstance(value, tuple) else value
