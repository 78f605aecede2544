"""Write a detector's evaluation as text, the devkit's result files and curves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from gluon_asymmnet.evaluation.detection import Detected, DetectionEvaluation
from gluon_asymmnet.evaluation.voc_ap import VOCResult
from gluon_asymmnet.utils.atomic import new_file, new_folder, write_text


def mean_table(result: DetectionEvaluation) -> str:
    """Return the mean average precisions as a small table."""
    rows = [f"{result.original.images} images, IoU {result.original.iou:g}; mean AP:",
            "                                 VOC07, 11 points   area under the curve"]  # fmt: skip
    named = (("original pixels (the devkit's)", result.original),
             ("resized pixels (GluonCV's)", result.resized))  # fmt: skip
    for name, means in named:
        rows.append(f"{name:<32} {means.mean_ap_11_point:>16.4f} {means.mean_ap_area:>22.4f}")
    return "\n".join(rows)


def class_table(result: VOCResult) -> str:
    """Return a table with counts and AP of each class; nan for a class without objects."""
    rows = ["class                    objects  difficult  predictions     hits  11 points     area"]
    for one in result.classes:
        rows.append(
            f"{one.name:<24} {one.positives:>7} {one.difficult:>10} {one.predictions:>12} "
            f"{one.hits:>8} {one.ap_11_point:>10.4f} {one.ap_area:>8.4f}"
        )
    return "\n".join(rows)


def write_predictions(
    results: Iterable[Detected], classes: Sequence[str], split: str, folder
) -> None:
    """Write a new folder of the devkit's result files, ``comp4_det_SPLIT_CLASS.txt``.

    A line is ``image score xmin ymin xmax ymax``, with corners in pixels of the original image,
    counted from 1; the numbers keep full single precision.

    Raises: InputError if the folder exists.
    """
    rows: list[list[str]] = [[] for _ in classes]
    for example, found in results:
        image = example.image_id.rpartition("/")[2]
        corners = found.boxes.astype(np.float64) + 1
        for label, score, box in zip(found.labels, found.scores, corners):
            numbers = " ".join(f"{value:.9g}" for value in (score, *box))
            rows[label].append(f"{image} {numbers}\n")
    with new_folder(folder) as scratch:
        for name, text in zip(classes, rows):
            path = Path(scratch, f"comp4_det_{split}_{_escape_file_name(name)}.txt")
            path.write_text("".join(text), encoding="utf-8")


def write_json(result: VOCResult, path) -> None:
    """Write the result as JSON, without the curves."""
    write_text(path, json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n")


def draw_precision_recall(result: VOCResult, path) -> None:
    """Draw precision over recall of every class with objects to detect, as a PNG."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, no global state
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shown = [found for found in result.classes if found.positives]
    for k, found in enumerate(shown):
        axes.plot(
            found.recall,
            found.precision,
            color=colormaps["tab20"](k % 20),
            linestyle=("-", "--", ":", "-.")[k // 20 % 4],
            label=f"{found.name} {found.ap_area:.3f}",
        )
    what = result.classes[0].name if len(result.classes) == 1 else "mean"
    value = (
        f"{what}: AP {result.mean_ap_area:.4f} (area), {result.mean_ap_11_point:.4f} (11 points)"
    )
    axes.set(
        title=f"{value} at IoU {result.iou:g}, {result.images} images",
        xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02),
    )  # fmt: skip
    axes.grid(alpha=0.3)
    if shown:
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5), title="AP (area)")
    with new_file(path) as scratch:
        figure.savefig(scratch, format="png", dpi=100)


def draw_curves(result: VOCResult, folder) -> None:
    """Write a new folder of precision-recall curves: ``all.png``, and one for each class.

    Raises: InputError if the folder exists.
    """
    with new_folder(folder) as scratch:
        draw_precision_recall(result, Path(scratch, "all.png"))
        for number, one in enumerate(result.classes):
            alone = result._replace(
                classes=[one], mean_ap_11_point=one.ap_11_point, mean_ap_area=one.ap_area
            )
            path = Path(scratch, f"{number:02d}-{_escape_file_name(one.name)}.png")
            draw_precision_recall(alone, path)


def _escape_file_name(name: str) -> str:
    """Escape the characters that a file name cannot hold; different names stay different."""
    return name.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
