"""``eval.py voc``: figures against GluonCV's own evaluation, and what is written."""

import argparse
import importlib
import json
import shutil
import sys

import numpy as np
import pytest

from gluon_asymmnet._mxnet import gluoncv, mx
from gluon_asymmnet.card import ClassifierCard, DetectorCard
from gluon_asymmnet.cli import evaluate_voc
from gluon_asymmnet.data.boxes.digits import write_digits_voc
from gluon_asymmnet.data.boxes.geometry import Detections
from gluon_asymmnet.data.boxes.loader import validation_batches
from gluon_asymmnet.data.boxes.voc import VOCSource
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.evaluation import detection_report as report
from gluon_asymmnet.evaluation.detection import detect, evaluate
from gluon_asymmnet.evaluation.voc_ap import VOCEvaluator
from gluon_asymmnet.export.formats import export_all
from gluon_asymmnet.models.ssd_spec import anchors
from gluon_asymmnet.saved import open_saved
from gluon_asymmnet.train.ssd_loss import MultiBoxLoss
from gluon_asymmnet.train.ssd_targets import TargetGenerator
from gluon_asymmnet.zoo import get_model
from tests.conftest import ROOT, run_python
from tests.floats import assert_close
from tests.test_detection_records import records_of

nd = mx.nd
NAME = "ssd_300_asymmnet_small_0.35_custom"
DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    """Twelve pictures, all larger than the input: GluonCV's resizing is then ours bit for bit, as
    both shrink by area; its MXNet has another OpenCV inside, which enlarges differently."""
    root = tmp_path_factory.mktemp("voc") / "digits"
    return write_digits_voc(root, images=(2, 12), size=(302, 400)).root


@pytest.fixture(scope="module")
def fitted(boxes, tmp_path_factory):
    """A parameter file with its card: predictors fitted to ten of the pictures, on random maps."""
    net = get_model(NAME, classes=DIGITS, norm_kwargs={"momentum": 0.0})
    mx.random.seed(0)
    net.initialize(mx.init.MSRAPrelu())
    batch = next(validation_batches(VOCSource(boxes), 10, 300))
    generate = TargetGenerator(anchors(net.spec))
    targets = [
        generate(one.boxes * np.tile(300 / np.array(one.size), 2), one.labels, one.difficult)
        for one in batch.examples
    ]
    classes, offsets = (nd.array(np.stack(column)) for column in zip(*targets))
    x = nd.array(batch.data)
    with mx.autograd.record():
        total = sum(m.sum() for m in net.features(x))
    total.backward()  # which is when MXNet's batch normalisation takes its statistics over
    maps = net.features(x)
    params = net.collect_params(".*_(class|box)_.*")
    trainer = mx.gluon.Trainer(params, "adam", {"learning_rate": 0.01})
    loss, matched = MultiBoxLoss(), float((classes > 0).sum().asscalar())
    for _ in range(40):
        with mx.autograd.record():
            found = (
                nd.concat(*(p(m) for p, m in zip(predictors, maps)), dim=-1)
                for predictors in (net.class_predictors, net.box_predictors)
            )
            logits, moves = (v.reshape((10, -1, n)) for v, n in zip(found, (11, 4)))
            total = sum(loss(logits, moves, classes, offsets)).sum()
        total.backward()
        trainer.step(matched)
    path = tmp_path_factory.mktemp("run") / "net.params"
    net.save_parameters(str(path))
    DetectorCard(NAME, 300, list(DIGITS)).save(path.with_name("card.json"))
    return path


def run(*words):
    parser = argparse.ArgumentParser()
    evaluate_voc.add_task(parser.add_subparsers())
    args = parser.parse_args(["voc", *map(str, words)])
    return args.run(args)


# --- The figures -----------------------------------------------------------------------------


class Digits(gluoncv.data.VOCDetection):
    """GluonCV's reader on our folder."""

    CLASSES = DIGITS

    def _validate_class_names(self, class_list):
        """GluonCV's own takes digits for capitals."""


def gluoncvs_evaluation(card, net, dataset, batch_size):
    """What GluonCV's eval_ssd.py does, on one device.

    Its transform is told the card's mean and deviation: ours are those the classifiers were trained
    with, 116.779 for green where GluonCV's detectors take 0.456 * 255 = 116.28.
    """
    mean, std = (tuple(v / 255 for v in values) for values in (card.rgb_mean, card.rgb_std))
    preset = importlib.import_module(f"{gluoncv.__name__}.data.transforms.presets.ssd")
    batchify = gluoncv.data.batchify
    loader = mx.gluon.data.DataLoader(
        dataset.transform(preset.SSDDefaultValTransform(300, 300, mean, std)),
        batchify_fn=batchify.Tuple(batchify.Stack(), batchify.Pad(pad_val=-1)),
        batch_size=batch_size, shuffle=False, last_batch="keep", num_workers=0,
    )  # fmt: skip
    metric = gluoncv.utils.metrics.voc_detection.VOC07MApMetric(
        iou_thresh=0.5, class_names=dataset.classes
    )
    net.set_nms(nms_thresh=0.45, nms_topk=400)
    net.hybridize()
    for batch in loader:
        x, y = (mx.gluon.utils.split_and_load(part, [mx.cpu()])[0] for part in batch)
        ids, scores, found = net(x)
        metric.update(
            [found.clip(0, x.shape[2])], [ids], [scores], [y.slice_axis(axis=-1, begin=0, end=4)],
            [y.slice_axis(axis=-1, begin=4, end=5)], [y.slice_axis(axis=-1, begin=5, end=6)],
        )  # fmt: skip
    return metric.get()[1]


@pytest.mark.parametrize("batch_size", [1, 5, 12])
@pytest.mark.thorough
def test_gluoncvs_own_evaluation_gives_our_figure_in_resized_pixels(
    boxes, fitted, tmp_path, batch_size
):
    card, net, _ = open_saved(fitted)
    dataset = Digits(str(boxes), splits=((2007, "test"),))
    *classes, mean = gluoncvs_evaluation(card, net, dataset, batch_size)
    run(fitted, "--dataset-root", boxes, "--json", tmp_path / "r.json", "--batch-size", 7)
    ours = json.loads((tmp_path / "r.json").read_text())["resized_pixels"]
    assert ours["mean_ap_11_point"] == pytest.approx(mean, abs=1e-6)
    assert 0.2 < mean < 0.8
    found = [
        np.nan if one["ap_11_point"] is None else one["ap_11_point"] for one in ours["classes"]
    ]
    assert_close(found, classes, axes=())
    assert sum(one["difficult"] for one in ours["classes"]) > 0


@pytest.mark.thorough
def test_exactly_all_images_at_any_batch_size(boxes, fitted, tmp_path):
    results = []
    for batch_size in (1, 7, 64):
        path = tmp_path / f"{batch_size}.json"
        run(fitted, "--dataset-root", boxes, "--json", path, "--batch-size", batch_size)
        results.append(json.loads(path.read_text()))
    objects = sum((~VOCSource(boxes).annotation(i).difficult).sum() for i in range(12))
    for found in results:
        assert found["images"] == 12
        assert sum(one["positives"] for one in found["original_pixels"]["classes"]) == objects
        assert found == results[0]


def test_the_two_kinds_of_pixels_differ_where_a_pixel_counts(fitted, tmp_path):
    """4 of 8 pixels are half of it; resized 8 times, (32 - 7 + 1) of (64 - 7 + 1) are less."""
    source = VOCSource(write_digits_voc(tmp_path / "d", images=(1, 1)).root)
    example = source.annotation(0)._replace(
        boxes=np.float32([[0, 0, 7, 7]]), labels=np.array([0]), difficult=np.array([False]),
        size=(8, 8),
    )  # fmt: skip
    found = Detections(np.array([0]), np.float32([0.9]), np.float32([[0, 0, 3, 7]]))
    result = evaluate([(example, found)], ["a"], 64)
    assert result.original.mean_ap_area == 1
    assert result.resized.mean_ap_area == 0
    assert "original pixels (the devkit's)             1.0000" in report.mean_table(result)


def test_a_damaged_picture_is_left_out_where_allowed(boxes, fitted, tmp_path, capsys):
    """The right value: that of the split without the picture."""
    root, listed = tmp_path / "voc", "VOC2007/ImageSets/Main/test.txt"
    shutil.copytree(boxes, root)
    names = (root / listed).read_text().split()[:3]
    (root / listed).write_text("\n".join(names) + "\n")
    (root / listed).with_name("two.txt").write_text("\n".join(names[::2]) + "\n")
    picture = root / f"VOC2007/JPEGImages/{names[1]}.jpg"
    picture.write_bytes(picture.read_bytes()[:-4000])

    def figures(*flags):
        file = tmp_path / "r.json"
        assert run(fitted, "--dataset-root", root, "--json", file, *flags) == 0
        return json.loads(file.read_text())

    found = figures("--max-bad-records", 1)
    assert "1 of 3 images left out: they cannot be read\n" in capsys.readouterr().out
    expected = figures("--val-splits", "2007_two")
    assert (found["images"], found["left_out"], expected["left_out"]) == (2, 1, 0)
    assert found["original_pixels"] == expected["original_pixels"]
    with pytest.raises(FormatError, match=r"jpg: .*; --max-bad-records N allows N such records"):
        figures()


def test_a_detector_that_drops_pictures_is_refused(boxes):
    def predict(images):
        return [np.full((len(images) - 1, 3, n), -1.0) for n in (1, 1, 4)]

    with pytest.raises(RunError, match="gives 3, 3, 3 rows for a batch of 4 images"):
        list(detect(predict, VOCSource(boxes), 300, 4))


# --- The command -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(boxes, fitted, tmp_path_factory):
    """All that the command writes, by a process of its own."""
    folder = tmp_path_factory.mktemp("written")
    done = run_python(
        ROOT / "eval.py", "voc", fitted, "--dataset-root", boxes, "--batch-size", 5, "-j", 1,
        "--threads", 1, "--per-class", "--json", folder / "r.json", "--curves", folder / "curves",
        "--predictions", folder / "found",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_what_is_printed_and_written(written, fitted, boxes):
    folder, text = written
    result = json.loads((folder / "r.json").read_text())
    assert text.startswith("12 images, IoU 0.5; mean AP:")
    for kind, name in (("original", "the devkit's"), ("resized", "GluonCV's")):
        found = result[f"{kind}_pixels"]
        row = next(line for line in text.splitlines() if line.startswith(f"{kind} pixels ({name})"))
        figures = [float(word) for word in row.split()[-2:]]
        assert figures == pytest.approx(
            [found["mean_ap_11_point"], found["mean_ap_area"]], abs=1e-4
        )
    assert (result["weights"], result["engine"], result["model"]) == (str(fitted), "mxnet", NAME)
    assert (result["dataset_root"], result["splits"]) == (str(boxes), "2007_test")
    assert (result["nms_thresh"], result["original_pixels"]["iou"]) == (0.45, 0.5)
    rows = text.splitlines()[-10:]
    for row, one in zip(rows, result["original_pixels"]["classes"]):
        name, *numbers = row.split()
        assert (name, int(numbers[0]), int(numbers[3])) == (
            one["name"], one["positives"], one["hits"],
        )  # fmt: skip
    pictures = sorted(path.name for path in (folder / "curves").iterdir())
    assert pictures == [*(f"{k:02d}-{k}.png" for k in range(10)), "all.png"]
    assert decode((folder / "curves/03-3.png").read_bytes()).shape == (600, 1000, 3)


def test_predictions_in_the_devkits_form_give_the_same_figure(written, boxes):
    """Read as the devkit does, pixels from 1, and counted by GluonCV's metric."""
    folder, _ = written
    found = {}
    for label in range(10):
        text = (folder / f"found/comp4_det_test_{label}.txt").read_text()
        for image, *numbers in map(str.split, text.splitlines()):
            found.setdefault(image, []).append([label, *map(float, numbers)])
    dataset = Digits(str(boxes), splits=((2007, "test"),))
    metric = gluoncv.utils.metrics.voc_detection.VOC07MApMetric(class_names=DIGITS)
    for (_, image), (_, truth) in zip(dataset._items, dataset):
        rows = np.array(found[image])
        metric.update(
            [rows[None, :, 2:] - 1], [rows[None, :, :1]], [rows[None, :, 1:2]],
            [truth[None, :, :4]], [truth[None, :, 4:5]], [truth[None, :, 5:]],
        )  # fmt: skip
    ours = json.loads((folder / "r.json").read_text())["original_pixels"]["mean_ap_11_point"]
    assert ours == pytest.approx(metric.get()[1][-1], abs=1e-9)


@pytest.mark.thorough
def test_cocos_figures(boxes, fitted, tmp_path, capsys):
    """AP50 is VOC's area but for two things: 101 points instead of all, and difficult objects."""
    arguments = (fitted, "--dataset-root", boxes, "--coco", "--json", tmp_path / "r.json")
    run(*arguments)
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["coco"]["AP50"] == pytest.approx(
        result["original_pixels"]["mean_ap_area"], abs=0.02
    )
    assert 0 < result["coco"]["AP"] < result["coco"]["AP50"]
    assert f"COCO: AP {result['coco']['AP']:.4f}, AP50" in capsys.readouterr().out


def test_coco_without_pycocotools_is_refused_before_the_work(boxes, fitted, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(InputError, match=r"pycocotools, which is not installed: pip install '"):
        run(fitted, "--dataset-root", boxes, "--coco")
    assert capsys.readouterr().out == ""


@pytest.mark.thorough
def test_gluoncvs_records_give_the_figure_of_the_folder(boxes, fitted, tmp_path):
    records_of(VOCSource(boxes), tmp_path / "test.rec")
    figures = []
    for root, splits in ((boxes, "2007_test"), (tmp_path, "test.rec")):
        run(fitted, "--dataset-root", root, "--val-splits", splits, "--json", tmp_path / "r.json")
        result = json.loads((tmp_path / "r.json").read_text())
        figures.append((result["images"], result["original_pixels"]["mean_ap_11_point"]))
    assert figures[0] == pytest.approx(figures[1], abs=1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch-size", 0], "--batch-size must be at least 1, got 0"),
        (["-j", 0], "--num-workers must be at least 1, got 0"),
        (["--iou", 1.5], "--iou must be above 0 and at most 1, got 1.5"),
        (["--curves", "."], "--curves . exists already; remove it or name a new folder"),
        (["--predictions", "p", "--val-splits", "2007_test,2012_test"], "takes one split"),
        (["--val-splits", "test"], "'test' is not a split"),
        (["--val-splits", "2012_test"], "VOC2012.*test.txt: no such list of images"),
        (["--val-splits", "a.rec"], "a.rec"),
        (["--dataset-root", "/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_evaluated_says_why(boxes, fitted, flags, message):
    with pytest.raises((InputError, FileNotFoundError), match=message):
        run(fitted, "--dataset-root", boxes, *flags)


@pytest.mark.thorough
def test_every_engine_gives_the_figures(boxes, fitted, tmp_path):
    # On its own images: on noise, one unit in the last place moves its boxes by 800 pixels.
    images = next(validation_batches(VOCSource(boxes), 4, 300)).data
    out = export_all(open_saved(fitted), tmp_path / "out", formats=["onnx"], images=images)
    figures = []
    for engine in ("mxnet", "onnxruntime", "openvino", "opencv"):
        file, model = tmp_path / f"{engine}.json", fitted if engine == "mxnet" else out
        run(model, "--dataset-root", boxes, "--engine", engine, "--json", file)
        found = json.loads(file.read_text())
        assert found["engine"] == engine
        figures.append(found["original_pixels"]["mean_ap_11_point"])
    assert 0.2 < figures[0] < 0.6
    assert np.ptp(figures) < 0.01


def test_models_that_are_not_detectors(boxes, fitted, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"net.params: no such file or folder"):
        run(tmp_path / "net.params", "--dataset-root", boxes)
    (tmp_path / "net.params").write_bytes(fitted.read_bytes())
    ClassifierCard(model="asymmnet_small", classes=4).save(tmp_path / "card.json")
    with pytest.raises(FormatError, match="not a parameter file of asymmnet_small"):
        run(tmp_path / "net.params", "--dataset-root", boxes)


@pytest.mark.thorough
def test_pictures_of_other_classes(boxes, fitted, tmp_path, capsys):
    """Named, or left out and counted."""
    card = DetectorCard(NAME, 300, [*"012345678", "nine"])
    (tmp_path / "net.params").write_bytes(fitted.read_bytes())
    card.save(tmp_path / "card.json")
    arguments = (tmp_path / "net.params", "--dataset-root", boxes)
    with pytest.raises(
        FormatError, match=r"object \d \('9'\): unknown class; expected one of 0, 1"
    ):
        run(*arguments)
    run(*arguments, "--skip-bad", "--per-class")
    text = capsys.readouterr().out
    nines = sum((VOCSource(boxes).annotation(i).labels == 9).sum() for i in range(12))
    assert (
        f"left out {nines} objects of 1 classes that are none of the 10: '9' {nines} times" in text
    )
    assert text.splitlines()[-1].split()[0::5] == ["nine", "nan"]


def test_class_names_that_files_cannot_have(tmp_path):
    names = ["a/b", "a%2Fb", "plain"]
    evaluator = VOCEvaluator(names)
    evaluator.add(0, [[0, 0, 9, 9]], [0], [0.5], [[0, 0, 9, 9]], [0])
    report.draw_curves(evaluator.result(), tmp_path / "curves")
    report.write_predictions([], names, "test", tmp_path / "found")
    assert sorted(p.name for p in (tmp_path / "found").iterdir()) == [
        "comp4_det_test_a%252Fb.txt", "comp4_det_test_a%2Fb.txt", "comp4_det_test_plain.txt",
    ]  # fmt: skip
    with pytest.raises(InputError, match="exists already"):
        report.write_predictions([], names, "test", tmp_path / "found")
