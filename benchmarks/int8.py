"""Accuracy and speed of int8: the page ``benchmarks/int8.md``.

Two nets per engine.  The demo's net gives the accuracy on its held-out digits.  AsymmNet-Large with
random weights, on crops of two photographs, gives the speed and the change of the logits at 224
pixels.  Its normalisation statistics are those of the crops, so its activations have the scale of a
trained net's.  Its classes lie close together, so the share of images that keep their best class is
pessimistic, and no substitute for a measurement on ImageNet.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import photographs
from benchmarks.report import machine_line
from gluon_asymmnet.models.registry import ModelSpec
from gluon_asymmnet.utils.atomic import write_text
from gluon_asymmnet.utils.doctor import environment
from gluon_asymmnet.utils.extras import installed
from tools.markdown import markdown_table

ENGINES = ("onnxruntime", "openvino")
_CROPS = 64  # for calibration, and as many for evaluation
_DIGITS = 128  # for calibration
_ANY_LOSS = 101.0  # points: with random weights speed alone decides what stays in float
_STATISTICS = 16  # crops that give the random net its normalisation statistics


def measure(
    run,
    digits,
    *,
    threads: int = 0,
    name: str = "asymmnet_large",
    size: int = 224,
    crops: int = _CROPS,
    engines=ENGINES,
) -> Iterator[dict]:
    """Quantise both nets; yield the results after each engine, which takes minutes.

    Without NNCF, OpenVINO is left out.

    Args:
        run: the demo's run directory.
        digits: the folder with its ``train.rec`` and ``val.rec``.
        name: model of the net with random weights.
        size: its input, pixels.
    """
    from gluon_asymmnet.data.sources import open_source
    from gluon_asymmnet.evaluation.classification import read_batches
    from gluon_asymmnet.saved import open_saved

    trained = open_saved(Path(run) / "last.params")
    train, val = (open_source(rec=str(Path(digits) / f"{n}.rec")) for n in ("train", "val"))
    calibration, _ = next(read_batches(train, trained.card.preprocessing, _DIGITS))
    random, photos = random_model(name, size, crops)
    found = {"machine": environment(), "digits": [], "photographs": []}
    for engine in engines:
        if engine == "openvino" and not installed("nncf"):
            print("left out: openvino: nncf is not installed", file=sys.stderr)
            continue
        found["digits"].append(_quantise(trained, calibration, None, engine, threads, val))
        found["photographs"].append(
            _quantise(random, photos[:crops], photos[crops:], engine, threads, None)
        )
        yield found


def _quantise(model, images, unseen, engine: str, threads: int, validation) -> dict:
    from gluon_asymmnet.export.int8.export import MAX_LOSS, export_int8, signal_to_noise
    from gluon_asymmnet.predict import Predictor

    print(f"int8: {model.card.model} for {engine}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "int8"
        report = export_int8(
            model, out, images, engine=engine, validation=validation, threads=threads,
            max_loss=MAX_LOSS if validation else _ANY_LOSS,
            progress=lambda line: print(f"  {line}", file=sys.stderr, flush=True),
        )  # fmt: skip
        found = json.loads(report.json())
        if unseen is not None:
            logits = Predictor(out, engine, threads=threads).predict(unseen)
            expected = model.predict(unseen)
            found["unseen"] = {
                "images": len(unseen),
                "sqnr": round(signal_to_noise(expected, logits), 2),
                "cosine": round(_cosine(expected, logits), 5),
                "agreement": float((expected.argmax(axis=1) == logits.argmax(axis=1)).mean()),
            }
    return found


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean cosine of the rows."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / norms).mean())


def random_model(name: str, size: int, crops: int):
    """Return a net with random weights, and ``2 * crops`` preprocessed crops."""
    from gluon_asymmnet import get_model
    from gluon_asymmnet._mxnet import mx
    from gluon_asymmnet.card import ClassifierCard
    from gluon_asymmnet.saved import Saved

    card = ClassifierCard.of(ModelSpec.parse(name), input_size=size)
    images = photographs.crops(2 * crops, size, card.preprocessing.normalization)
    # momentum 0: one step sets the statistics
    net = get_model(card.model, width=card.width, norm_kwargs={"momentum": 0.0})
    mx.random.seed(0)
    net.initialize(mx.init.MSRAPrelu())
    with mx.autograd.record():
        logits = net(mx.nd.array(images[:_STATISTICS]))
    logits.backward()  # the backward pass stores the statistics
    mx.nd.waitall()
    net.hybridize(static_alloc=True, static_shape=True)
    return Saved(card, net, Path("random.params")), images


def write(found: dict, out: str) -> None:
    """Write ``out.json`` and ``out.md``, made from it."""
    write_text(f"{out}.json", json.dumps(found, indent=1) + "\n")
    write_text(f"{out}.md", document(found))


def document(found: dict) -> str:
    """Return the page made from the results of ``measure``."""
    target = found["digits"][0]["target_speed"]
    parts = [
        "# 8 bits\n",
        f"{machine_line(found['machine'])}\n",
        f"Times the speed of the same engine's float32, in turn; the target is {target}. Made by "
        f"`benchmark.py int8`.\n",
        f"## The demo's network ({found['digits'][0]['model']}), 449 held-out digits\n",
        _digits_table(found["digits"]),
    ]
    unseen = found["photographs"][0]["unseen"]["images"]
    parts += [
        f"\n## Random weights ({found['photographs'][0]['model']}), crops of two photographs\n",
        f"{unseen} crops that did not calibrate. The weights are random, the normalisation "
        f"statistics those of the crops: the figures show what the arithmetic does to the logits, "
        f"not what it costs on ImageNet; with classes that lie this close together the share that "
        f"keeps its best class is pessimistic. What stays in float was chosen by speed alone.\n",
        _photographs_table(found["photographs"]),
    ]
    for kind, title in (("digits", "The demo's network"), ("photographs", "Random weights")):
        parts += [f"\n## {title}: what leaving one part in float wins\n", _sensitivity(found[kind])]
    return "\n".join(parts) + "\n"


_SPEEDS_AND_KEPT = ("speed, batch 1", "batch 32", "in float")


def _digits_table(rows: list) -> str:
    head = ("engine", "top-1, f32", "top-1, int8", "loses, points", "agreement", *_SPEEDS_AND_KEPT)
    lines = []
    for row in rows:
        score = row["score"]
        lines.append((
            row["engine"], f"{100 * row['float_top1']:.2f} %", f"{100 * score['top1']:.2f} %",
            f"{score['loss']:.2f}", f"{100 * score['agreement']:.1f} %", *_speeds_and_kept(row),
        ))  # fmt: skip
    return markdown_table(head, lines)


def _photographs_table(rows: list) -> str:
    lines = []
    for row in rows:
        new = row["unseen"]
        lines.append((
            row["engine"], f"{new['sqnr']:.1f}", f"{new['cosine']:.4f}",
            f"{100 * new['agreement']:.1f} %", *_speeds_and_kept(row),
        ))  # fmt: skip
    head = ("engine", "SQNR, dB", "cosine", "same best class", *_SPEEDS_AND_KEPT)
    return markdown_table(head, lines)


def _speeds_and_kept(row: dict) -> tuple[str, ...]:
    speeds = (f"{row['speeds'][batch]:.2f}" for batch in ("1", "32"))
    return *speeds, ", ".join(row["kept_in_float"]) or "nothing"


def _sensitivity(rows: list) -> str:
    scores = {"nothing": [row["all_in_8_bits"] for row in rows]}
    for part in rows[0]["only_this_part_in_float"]:
        scores[part] = [row["only_this_part_in_float"][part] for row in rows]
    head, lines = ["in float"], [[part] for part in scores]
    for number, row in enumerate(rows):
        head += [f"{row['engine']}: dB", "times f32"]
        for line, of_part in zip(lines, scores.values()):
            line += [f"{of_part[number]['sqnr']:.1f}", f"{of_part[number]['speed']:.2f}"]
    return markdown_table(head, lines)
