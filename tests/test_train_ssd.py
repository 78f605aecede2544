"""Training of detectors: settings, figures, and real runs in processes of their own."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from gluon_asymmnet import DetectorPredictor
from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.cli import main
from gluon_asymmnet.data.boxes.sources import parse_splits
from gluon_asymmnet.data.boxes.voc import VOCSource
from gluon_asymmnet.errors import InputError, RunError
from gluon_asymmnet.evaluation.agreement import compare_detections
from gluon_asymmnet.evaluation.detection import detect, evaluate
from gluon_asymmnet.saved import open_saved
from gluon_asymmnet.train.config import parse_config
from gluon_asymmnet.train.detector import DetectorTask, train
from gluon_asymmnet.train.detector_config import DetectorConfig
from gluon_asymmnet.train.run_directory import RunDirectory
from gluon_asymmnet.utils.settings import from_json, to_json
from gluon_asymmnet.weights.params_file import read_params
from tests.conftest import ROOT, run_python
from tests.detector_runs import NOT_VALIDATED, command, config, run_dir

GLUONCVS = (
    "--network asymmnet_small --data-shape 320 --batch-size 16 --dataset voc --dataset-root /voc "
    "-j 3 --gpus 0,1 --epochs 200 --start-epoch 3 --resume a.params --lr 0.002 --lr-decay 0.2 "
    "--lr-decay-epoch 100,150 --momentum 0.8 --wd 0.001 --log-interval 7 --save-prefix out/ "
    "--save-interval 5 --val-interval 2 --seed 9 --syncbn"
)
OPTIONS = {"ema": 0.5, "clip_norm": 20.0, "patience": 2}  # of the whole runs


# --- Settings --------------------------------------------------------------------------------


def test_gluoncvs_flags_do_what_they_say(tmp_path):
    found = parse_config(DetectorConfig, GLUONCVS.split())
    assert found.model == "ssd_320_asymmnet_small_voc"
    assert (found.batch_size, found.num_workers, found.gpu_numbers) == (16, 3, [0, 1])
    assert (found.num_epochs, found.start_epoch, found.resume_params) == (200, 3, "a.params")
    assert (found.lr, found.lr_decay, found.lr_decay_epoch) == (0.002, 0.2, (100, 150))
    assert (found.momentum, found.wd, found.seed, found.syncbn) == (0.8, 0.001, 9, True)
    assert (found.save_frequency, found.val_interval, found.save_prefix) == (5, 2, "out/")
    (tmp_path / "config.json").write_text(to_json(found))
    assert from_json(DetectorConfig, tmp_path / "config.json") == found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--dali", "--dali is declined: DALI's MXNet plugin is gone"),
        ("--amp", "--amp is declined: .* single precision"),
        ("--horovod", "--horovod is declined"),
        ("--dataset coco", "voc from-coco"),
        ("--network asymnet_small", "did you mean 'ssd_300_asymmnet_small_voc'"),
        ("--data-shape 224", "300, 320, 512"),
        ("--batch-size 0", "--batch-size must be at least 1, got 0"),
        ("--epochs 1 --warmup-epochs 1", "--warmup-epochs 1 leaves nothing of the 1 epochs"),
        ("--start-epoch 3", "--start-epoch 3 needs --resume"),
        ("--start-epoch 300 --resume a", "--start-epoch 300 is not below --epochs 240"),
        ("--resume a --pretrained-base b", "not both"),
        ("--gpus 0 --num-gpus 1", "not both"),
        ("--gpus a", "--gpus takes numbers, with commas, got 'a'"),
        ("--syncbn", "--syncbn needs --gpus or --num-gpus"),
        ("--freeze-stages 6", r"--freeze-stages must be in \[0, 5\], got 6"),
        ("--freeze-stages 2", "--freeze-stages 2 needs --pretrained-base or --resume"),
        ("--samples 3 --val-splits=", "--samples 3 needs --val-splits"),
        ("--max-expansion nan", r"--max-expansion must be in \[1, 16\], got nan"),
        ("--classes a,b", "--classes a,b needs --dataset custom"),
        ("--train-splits trainval", "'trainval' is not a split"),
        ("--multi-scale 256,x", "--multi-scale takes sizes in pixels, with commas, got '256,x'"),
        ("--multi-scale 256", "two or more different sizes from 150 to 600 pixels .*, got '256'"),
        ("--multi-scale 256,300,256", "two or more different sizes"),
        ("--multi-scale 300,601", r"half to twice --data-shape 300\), got '300,601'"),
        ("--data-shape 512 --multi-scale 255,512", "from 256 to 1024 pixels"),
        ("--patience 2 --val-splits=", "--patience needs a validation set: give --val-splits"),
        ("--ema 1.5", r"--ema must be in \[0, 1\), got 1.5"),
        ("--clip-norm -1", "--clip-norm must be at least 0, got -1.0"),
        ("--rgb-std 1,1,0", "--rgb-std must be above 0, got 0.0"),
    ],
)
def test_settings_that_cannot_be_meant(line, message):
    with pytest.raises(InputError, match=message):
        parse_config(DetectorConfig, line.split())


def test_every_field_is_read_somewhere():
    code = "".join(p.read_text() for p in (ROOT / "gluon_asymmnet").rglob("*.py"))
    unread = [
        f.name for f in dataclasses.fields(DetectorConfig)
        if not re.search(rf"(config|self)\.{f.name}\b", code)
    ]  # fmt: skip
    assert unread == []


def test_splits():
    assert parse_splits("2007_test, my_set_train") == [(2007, "test"), ("my_set", "train")]
    assert parse_splits("") == []


# --- Evaluation ------------------------------------------------------------------------------


def test_both_kinds_of_pixels_against_gluoncvs_metric(boxes):
    """Predictions that are the truth, moved: what is a hit depends on the pixels."""
    from gluon_asymmnet._mxnet import gluoncv

    source, rng, shown = VOCSource(boxes, [(2007, "trainval")]), np.random.default_rng(0), []

    def predict(images):
        ids, scores = np.full((len(images), 9, 1), -1.0), rng.random((len(images), 9, 1))
        found = rng.uniform(-20, 320, (len(images), 9, 4))
        for row in range(min(len(images), len(source) - len(shown))):
            truth = source.annotation(len(shown))
            count, scale = len(truth.boxes), np.tile(300 / np.array(truth.size), 2)
            ids[row, :count, 0] = truth.labels
            found[row, :count] = truth.boxes * scale + rng.normal(0, 6, (count, 4))
            shown.append(truth)
        return ids, scores, found

    found = list(detect(predict, source, 300, 5, threads=1))
    ids = [source.annotation(i).image_id for i in range(12)]
    assert [example.image_id for example, _ in found] == ids
    result = evaluate(found, source.class_names, 300)
    for kind in ("original", "resized"):
        metric = gluoncv.utils.metrics.voc_detection.VOC07MApMetric(class_names=source.class_names)
        for example, one in found:
            resize = np.tile(np.float32(300) / np.float32(example.size), 2)
            scale = resize if kind == "resized" else 1
            columns = (one.boxes * scale, one.labels, one.scores, example.boxes * scale,
                       example.labels, example.difficult)  # fmt: skip
            metric.update(*(column[None] for column in columns))
        ours = getattr(result, kind).mean_ap_11_point
        assert ours == pytest.approx(metric.get()[1][-1], abs=1e-6)
        assert 0.2 < ours < 0.98


# --- Whole runs ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(boxes, tmp_path_factory):
    """A run of two epochs that nothing happened to."""
    prefix = tmp_path_factory.mktemp("runs")
    done = run_python(*command(boxes, prefix, **OPTIONS))
    assert done.returncode == 0, done.stderr
    return run_dir(prefix), done


def read_metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_run_directory(undisturbed):
    folder, done = undisturbed
    text, number = (folder / "log.txt").read_text(), r"[-\d.e]+"
    assert re.search(rf"Epoch\[0\] Batch \[1\]\tSpeed: {number} samples/sec\tSmoothL1=", text)
    assert re.search(rf"\[Epoch 1\] validation: mAP={number} mAP_area={number} mAP_resized=", text)
    rows = read_metrics(folder)
    assert [row["step"] for row in rows] == [3, 6]
    assert rows[0]["train_loss"] > rows[0]["train_SmoothL1"] > 0
    assert done.stdout.splitlines()[-1].startswith("best mAP ")
    card, net, _ = open_saved(folder)
    assert card.class_names == list(net.classes) == list("0123456789")
    assert (card.input_size, card.model) == (300, "ssd_300_asymmnet_small_0.35_custom")
    best = read_params(folder / "best.params")
    assert card.parameters == sum(
        a.size for n, a in best.items() if n != "anchors" and "running" not in n
    )
    figures = json.loads((folder / "validation/epoch-0001.json").read_text())
    assert figures["images"] == 5
    assert cv2.imread(str(folder / "samples/epoch-0001/01.jpg")) is not None
    assert cv2.imread(str(folder / "curves.png")) is not None
    assert {"val_ema_mAP", "val_ema_mAP_area", "val_ema_mAP_resized"} <= rows[1].keys()
    open_saved(folder / "best-ema.params")


@pytest.mark.thorough
def test_a_run_is_exported_and_three_engines_find_the_same(boxes, undisturbed, tmp_path, capsys):
    folder, _ = undisturbed
    assert main(["export", "all", str(folder), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.count("pixels in a box, on 4 images") == 5
    pictures = sorted((boxes / "VOC2007/JPEGImages").glob("*.jpg"))[:4]
    engines = ("mxnet", "onnxruntime", "openvino", "opencv")
    found = [
        DetectorPredictor(*where).detect(pictures, 0)
        for where in [(folder,), *((tmp_path / "out", e) for e in engines)]
    ]
    assert all(len(one.labels) == 100 for one in found[0])  # so little training: nothing stands out
    for other in found[1:]:
        # every box has nearly the same score, so that the last digit decides about some
        assert compare_detections(zip(found[0], other)).share > 0.98


def equal_weights(a, b):
    x, y = (read_params(folder / "last.params") for folder in (a, b))
    return x.keys() == y.keys() and all(np.array_equal(x[n], y[n]) for n in x)


def test_a_run_does_not_go_on_with_other_boxes(boxes, tmp_path):
    """One box moved by a pixel, in a run of which only the directory exists yet."""
    shutil.copytree(boxes, tmp_path / "voc")
    settings = config(tmp_path / "voc", save_prefix=f"{tmp_path}/")
    task = DetectorTask(settings, [mx.cpu()], tmp_path)
    assert task.data_line.startswith("data: training set: 12 images, 10 classes; ")
    folder = tmp_path / "run"
    RunDirectory(folder, settings, {}, task.fingerprints).close()
    RunDirectory(folder, settings, {}, task.fingerprints).close()
    xml = sorted((tmp_path / "voc").rglob("*.xml"))[0]
    moved = re.sub(r"<xmin>(\d+)", lambda m: f"<xmin>{int(m[1]) + 1}", xml.read_text(), count=1)
    xml.write_text(moved)
    again = DetectorTask(settings, [mx.cpu()], tmp_path)
    with pytest.raises(InputError, match=r"on other data .*images have other names or labels"):
        RunDirectory(folder, settings, {}, again.fingerprints)


def test_weights_decide_the_order_of_the_classes(boxes, tmp_path):
    settings = config(boxes)
    task = DetectorTask(settings, [mx.cpu()], tmp_path)
    weights = tmp_path / "last.params"
    task.net.save_parameters(str(weights))
    names = task.class_names
    dataclasses.replace(task.card, class_names=tuple(names[::-1])).save(tmp_path / "card.json")
    again = DetectorTask(config(boxes, resume_params=str(weights)), [mx.cpu()], tmp_path)
    assert again.class_names == names[::-1]
    before, after = task._input.source.annotation(0), again._input.source.annotation(0)
    assert [names[i] for i in before.labels] == [names[::-1][i] for i in after.labels]
    dataclasses.replace(task.card, class_names=(*names[:-1], "x")).save(tmp_path / "card.json")
    with pytest.raises(InputError, match=rf"'{names[-1]}'; only in .*'x'; --pretrained-base"):
        DetectorTask(config(boxes, resume_params=str(weights)), [mx.cpu()], tmp_path)


def kill_and_resume(line, folder, delay):
    """Kill a run when there is something to resume, or a moment later; run it to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, *line], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.time() + 60
    while time.time() < deadline and not list(folder.glob("checkpoints/step-*")):
        time.sleep(0.02)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = run_python(*line)
    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("delay", [0.0, 0.7])
def test_killed_and_resumed_ends_bit_for_bit_as_undisturbed(boxes, undisturbed, tmp_path, delay):
    folder = run_dir(tmp_path)
    kill_and_resume(command(boxes, tmp_path, checkpoint_steps=1, **OPTIONS), folder, delay)
    assert equal_weights(folder, undisturbed[0])
    rows = [
        [(r["step"], r["train_loss"], r["val_mAP"]) for r in read_metrics(f)]
        for f in (folder, undisturbed[0])
    ]
    assert rows[0] == rows[1]
    averages = [read_params(run / "last-ema.params") for run in (folder, undisturbed[0])]
    assert all(np.array_equal(averages[1][name], value) for name, value in averages[0].items())


@pytest.mark.thorough
def test_multi_scale_resumes_bit_for_bit(boxes, undisturbed, tmp_path):
    changes = {"multi_scale": "160,256", **NOT_VALIDATED}
    done = run_python(*command(boxes, tmp_path / "a", **changes))
    assert done.returncode == 0, done.stderr
    folders = run_dir(tmp_path / "a"), run_dir(tmp_path / "b")
    kill_and_resume(command(boxes, tmp_path / "b", checkpoint_steps=1, **changes), folders[1], 0)
    assert "resumed from" in (folders[1] / "log.txt").read_text()
    assert equal_weights(*folders)
    assert not equal_weights(folders[0], undisturbed[0])


def test_loss_that_is_not_finite_stops_the_run(boxes, tmp_path):
    settings = config(
        boxes, lr=1e30, lr_mode="step", warmup_epochs=0, **NOT_VALIDATED,
        save_prefix=f"{tmp_path}/", checkpoint_steps=1,
    )  # fmt: skip
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step \d+ \(epoch \d, batch \d+"):
        train(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_root": "/nowhere"}, "/nowhere"),
        ({"train_splits": "2007_nothing"}, "no such list of images"),
        ({"classes": "one,two"}, "unknown class; expected one of one, two"),
        ({"batch_size": 50}, "--batch-size 50 must be a multiple of .* at most the 12 training"),
        ({"num_gpus": 8}, "GPU 7 is not available"),
        ({"resume_params": "/nowhere/a.params"}, "/nowhere/a.params"),
        ({"pretrained_base": "/nowhere/a.params"}, "/nowhere/a.params"),
        ({"classes": "one,two", "skip_bad": True}, "--train-splits: none of the 12 images has an"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_says_why_and_writes_nothing(boxes, tmp_path, changes, message):
    with pytest.raises((InputError, FileNotFoundError), match=message):
        train(config(boxes, save_prefix=f"{tmp_path}/out/", **changes))
    assert not (tmp_path / "out").exists()
