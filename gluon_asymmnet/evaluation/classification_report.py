"""Write a classifier's evaluation as text, CSV, JSON and confusion matrix."""

import json
from typing import Optional

import numpy as np

from gluon_asymmnet.evaluation.classification import Evaluation
from gluon_asymmnet.utils.atomic import new_file, write_text

_MAX_NAMES = 40  # the confusion plot shows class names up to this number of classes


def summary_line(result: Evaluation) -> str:
    """Return the result in one line."""
    low, high = result.interval
    return (
        f"top-1 {100 * result.top1:.2f} % (95 %: {100 * low:.2f} to {100 * high:.2f}), "
        f"top-5 {100 * result.top5:.2f} %, loss {result.loss:.4f}, {result.images} images"
    )


def class_table(result: Evaluation, classes: int, names: Optional[list[str]]) -> str:
    """Return a table with images, top-1 and the most frequent confusion of each class."""
    matrix = result.confusion(classes)
    rows = ["class                    images   top-1  most confused with"]
    for index in np.flatnonzero(matrix.sum(axis=1)):
        row = matrix[index].copy()
        total, right = int(row.sum()), int(row[index])
        row[index] = 0
        wrong = f"{_name(names, row.argmax())} ({row.max()})" if row.any() else ""
        rows.append(
            f"{_name(names, index):<24} {total:>6} {100 * right / total:>6.2f} %  {wrong}".rstrip()
        )
    return "\n".join(rows)


def write_predictions(result: Evaluation, source, path) -> None:
    """Write one CSV line per image: position, label, five best classes, confidence."""
    width = result.ranked.shape[1]
    lines = ["position,label," + ",".join(f"rank{i + 1}" for i in range(width)) + ",confidence"]
    rows = zip(result.positions, result.labels, result.ranked, result.confidence)
    for position, label, ranked, confidence in rows:
        ranks = ",".join(map(str, ranked))
        lines.append(f"{position},{label},{ranks},{confidence:.6f}")
    write_text(path, "\n".join(lines) + "\n")


def draw_confusion(result: Evaluation, classes: int, names: Optional[list[str]], path) -> None:
    """Draw the confusion matrix as a PNG, rows normalised to the images of each class."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matrix = result.confusion(classes).astype(float)
    matrix /= np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    figure.colorbar(axes.imshow(matrix, cmap="viridis", vmin=0, vmax=1), label="share of the class")
    axes.set(xlabel="predicted", ylabel="true", title=summary_line(result))
    axes.title.set_fontsize("small")
    if classes <= _MAX_NAMES:
        shown = [_name(names, i) for i in range(classes)]
        axes.set_xticks(range(classes), shown, rotation=90)
        axes.set_yticks(range(classes), shown)
    with new_file(path) as scratch:
        figure.savefig(scratch, format="png", dpi=120)


def write_json(result: Evaluation, model, args, path, walk: Optional[dict] = None) -> None:
    """Write the evaluation as JSON, without the per-image arrays."""
    low, high = result.interval
    matrix = result.confusion(model.card.classes)
    content = {
        "weights": str(model.weights),
        "data": args.rec_val or args.data_dir,
        "model": model.card.model,
        "width": model.card.width,
        "rate": model.card.rate,
        "input_size": model.card.input_size,
        "crop_ratio": model.card.crop_ratio,
        "images": result.images,
        "left_out": len(result.left_out),
        "top1": result.top1,
        "top1_95": [low, high],
        "top5": result.top5,
        "loss": result.loss,
        "per_class": [
            {"class": int(i), "images": int(matrix[i].sum()), "right": int(matrix[i, i])}
            for i in np.flatnonzero(matrix.sum(axis=1))
        ],
    }
    if walk:
        content["walk"] = walk
    write_text(path, json.dumps(content, indent=1) + "\n")


def _name(names: Optional[list[str]], index) -> str:
    return names[index] if names and index < len(names) else str(int(index))
