"""Predictions of a classifier's best weights on its validation set, for the page."""

from pathlib import Path
from typing import Callable, NamedTuple, Optional, Union

import numpy as np

from gluon_asymmnet.data.bad_records import LeftOut, SkippedRecords
from gluon_asymmnet.data.images import decode, encode, resize_shorter_side
from gluon_asymmnet.data.sources import match_source, open_source
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.evaluation.classification import Evaluation, evaluate
from gluon_asymmnet.report.run_files import Run

WRONG, RIGHT = 12, 6  # images on the page
_SIDE = 160  # pixels of an image's shorter side, at most
_BATCH = 64


class Sample(NamedTuple):
    """An image and its prediction."""

    position: int  # in the set, from 0
    label: int
    predicted: int
    confidence: float  # softmax of the prediction
    jpeg: bytes
    width: int  # pixels
    height: int


class Pair(NamedTuple):
    """Images of one class that were predicted as another."""

    label: int
    predicted: int
    images: int
    of: int  # images of the class


class Predictions(NamedTuple):
    """The results on the validation set."""

    weights: Path
    data: str
    names: list[str]
    evaluation: Evaluation
    wrong: list[Sample]  # the most confident first
    right: list[Sample]


def predict_validation(
    run: Run, progress: Optional[Callable[[int, int], None]] = None
) -> Union[Predictions, str]:
    """Evaluate a run's best weights (the last if none were validated) on its validation set.

    As many damaged images are left out as the run's own --max-bad-records allows.

    Returns:
        The predictions, or the reason why there are none, for the page.
    """
    try:
        source = _source(run)
        # Only here: a page without evaluation needs no MXNet.
        from gluon_asymmnet.saved import open_saved

        model = open_saved(run.path)
        source = match_source(source, model.card.class_names, model.card.classes, "the model")
        allowed = run.config.get("max_bad_records")
        left_out = LeftOut(SkippedRecords(allowed if type(allowed) is int else 0))
        evaluation = evaluate(
            model.predict, source, classes=model.card.classes,
            preprocessing=model.card.preprocessing, batch_size=_BATCH, left_out=left_out,
            progress=progress,
        )  # fmt: skip
        wrong, right = most_wrong(evaluation, WRONG), some_right(evaluation, RIGHT)
        return Predictions(
            model.weights, str(source.path),
            class_names(source.class_names or model.card.class_names, model.card.classes),
            evaluation,
            [_sample(evaluation, source, i) for i in wrong],
            [_sample(evaluation, source, i) for i in right],
        )  # fmt: skip
    except (InputError, RunError, OSError) as error:
        return " ".join(str(error).split())


def class_names(names: Optional[list[str]], classes: int) -> list[str]:
    """Return a name for every class: its number where there is no other."""
    return [names[i] if names and i < len(names) else str(i) for i in range(classes)]


def most_wrong(evaluation: Evaluation, count: int) -> list[int]:
    """Return the indices of the wrong predictions with the highest confidence."""
    wrong = np.flatnonzero(evaluation.ranked[:, 0] != evaluation.labels)
    order = np.argsort(-evaluation.confidence[wrong], kind="stable")
    return wrong[order][:count].tolist()


def some_right(evaluation: Evaluation, count: int) -> list[int]:
    """Return indices of right predictions, from all over the set."""
    right = np.flatnonzero(evaluation.ranked[:, 0] == evaluation.labels)
    if len(right) <= count:
        return right.tolist()
    return right[np.linspace(0, len(right) - 1, count).round().astype(int)].tolist()


def worst_classes(matrix: np.ndarray, count: int) -> list[int]:
    """Return the classes with the smallest share of right predictions, of those with images.

    Args:
        matrix: ``(classes, classes)`` counts, rows are true classes.
    """
    images = matrix.sum(axis=1)
    present = np.flatnonzero(images)
    share = matrix.diagonal()[present] / images[present]
    return present[np.lexsort((-images[present], share))][:count].tolist()


def worst_pairs(matrix: np.ndarray, count: int) -> list[Pair]:
    """Return the most frequent confusions, the most frequent first."""
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    labels, predicted = np.nonzero(off)
    order = np.argsort(-off[labels, predicted], kind="stable")[:count]
    totals = matrix.sum(axis=1)
    return [
        Pair(int(i), int(j), int(off[i, j]), int(totals[i]))
        for i, j in zip(labels[order], predicted[order])
    ]


def thumbnail(image: bytes, side: int = _SIDE) -> tuple[bytes, int, int]:
    """Return an image as JPEG, its shorter side at most ``side`` pixels; and width and height."""
    rgb = decode(image)
    rgb = resize_shorter_side(rgb, min(side, *rgb.shape[:2]))
    return encode(rgb, quality=85), rgb.shape[1], rgb.shape[0]


def _source(run: Run):
    """Open the validation set that the run's configuration names."""
    config = run.config
    folders = bool(config.get("data_dir")) and not config.get("use_rec")
    place = config.get("data_dir" if folders else "rec_val") or ""
    if not place:
        raise InputError("the run has no validation set")
    # a relative path: from here, or from where the run was started
    starts = [Path(), Path(str(run.environment.get("directory") or ""))]
    start = next((folder for folder in starts if (folder / place).exists()), None)
    if start is None:
        raise FormatError(
            f"the validation set {place} does not exist; write the report in the folder where "
            f"the run was started"
        )
    if folders:
        return open_source(folder=str(start / place / "val"))
    index = config.get("rec_val_idx") or ""
    there = index and (start / index).exists()  # else the one beside the records
    return open_source(rec=str(start / place), idx=str(start / index) if there else "")


def _sample(evaluation: Evaluation, source, i: int) -> Sample:
    position = int(evaluation.positions[i])
    jpeg, width, height = thumbnail(source.read(position).image)
    return Sample(
        position, int(evaluation.labels[i]), int(evaluation.ranked[i, 0]),
        float(evaluation.confidence[i]), jpeg, width, height,
    )  # fmt: skip
