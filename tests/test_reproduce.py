"""The comparison with the published accuracy, and the page about it."""

import json
import statistics
from collections import Counter

import cv2
import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.arch import LARGE, plan_net
from gluon_asymmnet.card import ClassifierCard
from gluon_asymmnet.cli import main
from gluon_asymmnet.data.constants import IMAGENET_MEAN, IMAGENET_STD
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.data.sources import open_source
from gluon_asymmnet.evaluation.classification import Evaluation, evaluate
from gluon_asymmnet.evaluation.published import (
    PUBLISHED,
    PassResult,
    compare_with_published,
    comparison_text,
    pass_results,
    possible_hits,
    validation_passes,
)
from gluon_asymmnet.models.complexity import count_plan
from gluon_asymmnet.saved import open_weights
from gluon_asymmnet.train.schedules import Schedule
from gluon_asymmnet.weights.layouts import entries
from gluon_asymmnet.weights.params_file import write_params
from gluon_asymmnet.weights.published import git_blob_id
from gluon_asymmnet.zoo import get_model
from tests.conftest import ROOT, run_python, with_damaged_record
from tests.test_validation_passes import CURVE

pytestmark = pytest.mark.thorough

PAGE = (ROOT / "docs/reproduction.md").read_text()
RECORDS, BATCH = 24, 10


def shifted(top1=0, top5=0):
    """The published reading with so many more images right."""
    return PUBLISHED._replace(
        top1_hits=PUBLISHED.top1_hits + top1, top5_hits=PUBLISHED.top5_hits + top5
    )


@pytest.mark.parametrize(
    ("top1", "top5", "word"),
    [  # 49 / 49,152 = 0.000997 and 50 / 49,152 = 0.001017
        (0, 0, "reproduced"),
        (49, -49, "reproduced"),
        (-49, 49, "reproduced"),
        (50, 0, "not reproduced"),
        (-50, 0, "not reproduced"),
        (0, 50, "not reproduced"),
        (0, -50, "not reproduced"),
    ],
)
def test_verdict_by_hand(top1, top5, word):
    verdict = compare_with_published(shifted(top1, top5))
    assert verdict.verdict == word
    assert verdict.top1_difference == pytest.approx(top1 / 49_152, abs=1e-12)
    assert verdict.top5_difference == pytest.approx(top5 / 49_152, abs=1e-12)


@pytest.mark.parametrize(("records", "batch", "number"), [(49_999, 2048, 358), (50_000, 2048, 357),
                                                          (50_000, 1024, 358)])  # fmt: skip
def test_other_passes_are_not_compared(records, batch, number):
    walked = validation_passes(records, batch, number + 1)[number]
    assert compare_with_published(PassResult(number, walked, 37_072, 45_470)) == (
        "not comparable",
        None,
        None,
    )


def published_like(left_out_hits):
    """A result on 50,000 records with the published hits in the published pass."""
    labels = np.full(50_000, 9)  # outside the best five
    seen = np.random.default_rng(0).permutation(PUBLISHED.validation_pass.positions)
    labels[seen[:37_072]] = 0
    labels[seen[37_072:45_470]] = 1
    labels[np.array(PUBLISHED.validation_pass.left_out)[:left_out_hits]] = 0
    ranked = np.tile(np.arange(5), (50_000, 1))
    return Evaluation(
        50_000, np.mean(labels == 0), np.mean(labels < 5), 0.0, labels, ranked, np.ones(50_000)
    )


@pytest.mark.parametrize("left_out_hits", [0, 640, 848])
def test_a_result_with_the_published_hits(left_out_hits):
    result = published_like(left_out_hits)
    reading = pass_results(result, 2048, 359)[-1]
    assert reading == PUBLISHED
    total = int((result.labels == 0).sum())
    assert total == 37_072 + left_out_hits
    assert total in possible_hits(37_072)
    text = comparison_text(result, reading)
    assert "720 to 1,567 (848) left out" in text
    assert f"top-1 {total:,} (37,072 to 37,920)" in text
    assert "verdict: reproduced (largest difference 0.000000" in text


def test_what_is_possible_ends_there():
    assert (possible_hits(37_072)[0], possible_hits(37_072)[-1]) == (37_072, 37_072 + 848)


def test_a_result_that_is_not_reproduced():
    result = published_like(0)
    labels = result.labels.copy()
    labels[
        PUBLISHED.validation_pass.positions[labels[PUBLISHED.validation_pass.positions] == 0][:60]
    ] = 1
    result = result._replace(labels=labels, top1=np.mean(labels == 0))
    text = comparison_text(result, pass_results(result, 2048, 359)[-1])
    assert "verdict: not reproduced (largest difference 0.001221" in text  # 60 / 49,152
    assert "top-1 37,012 (37,072 to 37,920)" in text


# --------------------------------------------------------------------------- the real command


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A seeded net in the published layout, and records of which it gets a third right."""
    folder = tmp_path_factory.mktemp("reproduce")
    net = get_model("asymmnet_large")
    mx.random.seed(0)
    net.initialize(mx.init.MSRAPrelu())
    arrays = [p.data().asnumpy() for p in net._collect_params_with_prefix().values()]
    names = [e.name for e in entries(net.plan, 1000, "published")]
    write_params(folder / "net.params", dict(zip(names, arrays)))
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (5, 6, 3), dtype=np.uint8) for _ in range(RECORDS)]
    images = [encode(cv2.resize(c, (70, 60))) for c in coarse]
    write_records(folder / "blank.rec", images, np.zeros(RECORDS))
    model = open_weights(folder / "net.params", ClassifierCard())
    ranked = evaluate(
        model.predict, open_source(rec=folder / "blank.rec"), classes=1000,
        preprocessing=ClassifierCard().preprocessing,
    ).ranked  # fmt: skip
    outside = [next(c for c in range(1000) if c not in r) for r in ranked]
    wanted = np.stack([ranked[:, 0], ranked[:, 3], outside])
    labels = wanted[rng.integers(3, size=RECORDS), np.arange(RECORDS)]
    write_records(folder / "val.rec", images, labels)
    return folder, model.net


def write_records(path, images, labels):
    with RecordWriter(path) as writer:
        for i, (image, label) in enumerate(zip(images, labels)):
            writer.write(i, float(label), image)


def mxnets_reading(folder, net, number):
    """Top-1 and top-5 of a pass with MXNet's own reader and metrics, as the authors take them."""
    arguments = dict(zip(("mean_r", "mean_g", "mean_b"), IMAGENET_MEAN))
    arguments.update(zip(("std_r", "std_g", "std_b"), IMAGENET_STD))
    reader = mx.io.ImageRecordIter(
        path_imgrec=str(folder / "val.rec"), path_imgidx=str(folder / "val.idx"), resize=256,
        data_shape=(3, 224, 224), batch_size=BATCH, preprocess_threads=2, verbose=False,
        **arguments,
    )  # fmt: skip
    for _ in range(number):
        for _ in reader:
            pass
        reader.reset()
    metrics = mx.metric.Accuracy(), mx.metric.TopKAccuracy(5)
    for batch in reader:
        outputs = net(batch.data[0].as_in_context(mx.cpu()))
        for metric in metrics:
            metric.update(batch.label, [outputs])
    return [metric.get()[1] for metric in metrics]


def test_the_command_and_mxnets_own_evaluation(measured):
    """24 records in tens start 0, 6, 2, 8, 4 behind the front: pass 358 is pass 3 again."""
    folder, net = measured
    done = run_python(
        "-m", "gluon_asymmnet", "reproduce", "--rec-val", folder / "val.rec", "--rec-val-idx",
        folder / "val.idx", "--params", folder / "net.params", "--walk-batch-size", BATCH,
        "--json", folder / "r.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "24 images" in done.stdout
    assert "after epoch 358: 20 images, records 4 to 7 (4) left out" in done.stdout
    assert "published    top-1 0.754232 (37,072 of 49,152)" in done.stdout
    assert (
        "verdict: not comparable (the published figures are of 50,000 records in batches of 2,048)"
        in done.stdout
    )
    report = json.loads((folder / "r.json").read_text())
    assert [report["walk"]["top1"], report["walk"]["top5"]] == mxnets_reading(folder, net, 3)
    assert 0 < report["walk"]["top1"] < report["walk"]["top5"] < 1
    assert report["walk"]["never"] == [4, 7]
    assert report["exact"]["images"] == 24
    assert (report["verdict"], report["top1_difference"]) == ("not comparable", None)
    assert report["git_blob_id"] == git_blob_id(folder / "net.params")
    assert report["published_weights"] is False
    assert report["published"]["top1_hits"] == 37_072


def test_an_evaluation_reports_the_walk(measured):
    folder, net = measured
    done = run_python(
        ROOT / "eval.py", "imagenet", folder / "net.params", "--model", "asymmnet_large",
        "--rec-val", folder / "val.rec", "--walk", "published", "--walk-batch-size", BATCH,
        "--passes", 4, "--json", folder / "e.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "4 to 7 (4) left out" in done.stdout
    passes = json.loads((folder / "e.json").read_text())["walk"]["passes"]
    assert [p["images"] for p in passes] == [30, 20, 30, 20]
    for number in (0, 3):
        found = [passes[number]["top1"], passes[number]["top5"]]
        assert found == mxnets_reading(folder, net, number)


def test_mistakes_are_said_before_the_work(measured, capsys):
    folder, _ = measured

    def said(*flags):
        assert main(["reproduce", *map(str, flags)]) == 2
        return capsys.readouterr().err

    val = ("--rec-val", folder / "val.rec")
    small = ("--walk-batch-size", BATCH)
    assert "batch size 2048 is above the number of records, 24" in said(*val)
    assert "--batch-size must be at least 1, got 0" in said(*val, "--batch-size", 0)
    assert "gone.params" in said(*val, *small, "--params", folder / "gone.params")
    rec = with_damaged_record(folder / "val.rec", folder / "damaged.rec", 4)
    damaged = said("--rec-val", rec, *small, "--params", folder / "net.params")
    assert f"{rec}, record 4 (key 4): not a picture" in damaged
    assert damaged.count("\n") == 1
    with RecordWriter(folder / "bad.rec") as writer:
        for i in range(BATCH):
            writer.write(i, 1000.0, b"")
    assert "label 1000 is not one of the 1000 classes" in said(
        "--rec-val", folder / "bad.rec", *small
    )


# --------------------------------------------------------------------------- the page


def rows(*cells):
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def test_the_curve_on_the_page():
    shown = (0, 1, 5, 10, 50, 100, 200, 300, 350, 357, 358, 359)
    column = CURVE["columns"].index
    cells = []
    for epoch in shown:
        row, images = CURVE["epochs"][epoch], validation_passes(50_000, 2048, 360)[epoch].images
        shares = [row[column(name)] for name in ("top1", "top5")]
        cells.append([
            str(epoch), f"{row[column('train_accuracy')]:.6f}", f"{images:,}",
            *(f"{share:.6f} | {round(share * images):,}" for share in shares),
        ])  # fmt: skip
    expected = rows(*cells)
    assert expected in PAGE, f"docs/reproduction.md must contain:\n{expected}"


def test_the_figures_of_the_run_on_the_page():
    epochs = dict(zip(CURVE["columns"], zip(*CURVE["epochs"])))
    top1, top5, last = epochs["top1"], epochs["top5"], epochs["top1"][-10:]
    near = [e for e, share in enumerate(top1) if max(top1) - share <= 0.001]
    images = Counter(walked.images for walked in validation_passes(50_000, 2048, 360))
    steps = Counter(walked.images // 2048 for walked in validation_passes(1_281_167, 2048, 360))
    updates = sum(n * epochs for n, epochs in steps.items())
    rate = Schedule("cosine", 2.6, 5 * 625, 355 * 625)
    expected = rows(
        ["readings over 51,200 and over 49,152 images", f"{images[51_200]} and {images[49_152]}"],
        ["best top-1", f"{max(top1):.6f}, epoch {top1.index(max(top1))}"],
        ["best top-5", f"{max(top5):.6f}, epoch {top5.index(max(top5))}"],
        ["last top-1", f"{top1[-1]:.6f}"],
        ["last ten top-1", f"{min(last):.6f} to {max(last):.6f}, mean {statistics.mean(last):.6f}"],
        ["epochs within 0.001 of the best", f"{len(near)}: {', '.join(map(str, near))}"],
        ["epochs of 626 and of 625 updates", f"{steps[626]} and {steps[625]}"],
        [
            "updates done; at rate 0",
            f"{updates:,}; the last {sum(rate(t) == 0 for t in range(1, updates + 1))}",
        ],
        ["updates the schedule was made for", f"{360 * (1_281_167 // 2048):,}"],
        ["images per second, median", f"{statistics.median(epochs['images_per_s']):,.0f}"],
        ["hours", f"{sum(epochs['seconds']) / 3600:.2f}"],
    )
    assert expected in PAGE, f"docs/reproduction.md must contain:\n{expected}"


def test_the_counts_on_the_page():
    cost = count_plan(plan_net(LARGE))
    for number in (cost.parameters, cost.authors_parameters, cost.macs):
        assert f"{number:,}" in PAGE
