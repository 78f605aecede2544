import json

import cv2
import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import ClassifierCard
from gluon_asymmnet.cli import main
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.data.sources import open_source
from gluon_asymmnet.data.transforms import Preprocessing
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.evaluation.classification import evaluate, read_batches, wilson_interval
from gluon_asymmnet.saved import open_weights
from gluon_asymmnet.zoo import get_model
from tests.conftest import ROOT, run_python
from tests.floats import NET, assert_close

IMAGES = 211  # prime
SMALL = Preprocessing(input_size=32, crop_ratio=1.0)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Images of 10 classes, and a network for them."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    with RecordWriter(folder / "a.rec", folder / "a.idx") as writer:
        for i in range(IMAGES):
            coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
            writer.write(i, float(rng.integers(10)), encode(cv2.resize(coarse, (40, 36))))
    net = get_model("asymmnet_small", width=0.35, classes=10)
    mx.random.seed(0)
    net.initialize(mx.init.MSRAPrelu())
    net.save_parameters(str(folder / "net.params"))
    card = ClassifierCard(
        model="asymmnet_small", width=0.35, classes=10, input_size=32, crop_ratio=1.0
    )
    card.save(folder / "card.json")
    return folder, card


@pytest.mark.parametrize("batch_size", [1, 7, 64, 2000])
@pytest.mark.thorough
def test_exactly_all_images_at_any_batch_size(many, batch_size):
    folder, card = many
    model = open_weights(folder / "net.params", card)
    source = open_source(rec=folder / "a.rec")
    expected = evaluate(model.predict, source, classes=10, preprocessing=SMALL, batch_size=17)
    found = evaluate(model.predict, source, classes=10, preprocessing=SMALL, batch_size=batch_size)
    assert found.images == IMAGES
    assert (found.top1, found.top5) == (expected.top1, expected.top5)
    assert_close(found.loss, expected.loss, terms=NET)
    np.testing.assert_array_equal(found.ranked, expected.ranked)


def test_against_mxnets_metrics(many):
    folder, card = many
    model = open_weights(folder / "net.params", card)
    source = open_source(rec=folder / "a.rec")
    metrics = mx.metric.Accuracy(), mx.metric.TopKAccuracy(5), mx.metric.CrossEntropy()
    for images, labels in read_batches(source, SMALL, 50):
        logits = mx.nd.array(model.predict(images))
        for metric, outputs in zip(metrics, (logits, logits, mx.nd.softmax(logits))):
            metric.update([mx.nd.array(labels)], [outputs])
    found = evaluate(model.predict, source, classes=10, preprocessing=SMALL)
    assert (found.top1, found.top5) == pytest.approx([m.get()[1] for m in metrics[:2]], abs=1e-12)
    assert found.loss == pytest.approx(metrics[2].get()[1], rel=1e-5)


def written(path, labels):
    image = encode(np.zeros((32, 32, 3), np.uint8))
    with RecordWriter(path, path.with_suffix(".idx")) as writer:
        for i, label in enumerate(labels):
            writer.write(i, label, image)
    return open_source(rec=path)


def test_by_hand(tmp_path):
    """Four images, seven classes; logits rise with the class, so 6 is first and 1 is sixth."""
    source = written(tmp_path / "a.rec", [6.0, 5.0, 1.0, 6.0])
    logits = np.arange(7, dtype=np.float32)
    found = evaluate(lambda x: np.tile(logits, (len(x), 1)), source, classes=7, preprocessing=SMALL)
    assert found.top1 == 0.5
    assert found.top5 == 0.75
    total = np.log(np.exp(logits).sum())
    assert found.loss == pytest.approx(np.mean(total - np.array([6, 5, 1, 6])), rel=1e-6)
    assert found.confidence[0] == pytest.approx(np.exp(6 - total), rel=1e-6)
    assert found.confusion(7)[:, 6].tolist() == [0, 1, 0, 0, 0, 1, 2]


def test_interval_by_hand():
    """Wilson's example figures: 0 of 10 gives 0 to 27.8 %, 5 of 10 gives 23.7 to 76.3 %."""
    assert wilson_interval(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_intervals_stay_inside_0_and_1():
    """Rounding gave -1e-17 for 0 of 7, which prints as -0.00."""
    for trials in range(1, 400):
        low, high = wilson_interval(0, trials)[0], wilson_interval(trials, trials)[1]
        assert (f"{100 * low:.2f}", high <= 1) == ("0.00", True)


@pytest.mark.parametrize("label", [7.0, -1.0, 0.5])
def test_a_label_outside_the_classes(tmp_path, label):
    source = written(tmp_path / "a.rec", [0.0, label])
    with pytest.raises(InputError, match=r"record 1 .*is not one of the 7 classes \(0 to 6\)"):
        evaluate(lambda x: np.zeros((len(x), 7)), source, classes=7, preprocessing=SMALL)


def test_bad_models(tmp_path):
    source = written(tmp_path / "a.rec", [0.0, 1.0])
    with pytest.raises(InputError, match=r"gives \(3,\) values per image, expected \(7,\)"):
        evaluate(lambda x: np.zeros((len(x), 3)), source, classes=7, preprocessing=SMALL)
    with pytest.raises(RunError, match="output is not finite on images 0"):
        evaluate(lambda x: np.full((len(x), 7), np.nan), source, classes=7, preprocessing=SMALL)
    with pytest.raises(InputError, match="batch size must be at least 1, got 0"):
        evaluate(lambda x: x, source, classes=7, preprocessing=SMALL, batch_size=0)


def test_an_undecodable_image_is_named(tmp_path):
    with RecordWriter(tmp_path / "a.rec", tmp_path / "a.idx") as writer:
        writer.write(0, 0.0, b"no image")
    with pytest.raises(FormatError, match=r"a\.rec, record 0 \(key 0\)"):
        evaluate(
            lambda x: np.zeros((len(x), 7)), open_source(rec=tmp_path / "a.rec"), classes=7,
            preprocessing=SMALL,
        )  # fmt: skip


def test_the_command_writes_all_it_is_asked_for(many, tmp_path):
    folder, _ = many
    done = run_python(
        ROOT / "eval.py", "imagenet", folder / "net.params", "--rec-val", folder / "a.rec",
        "--batch-size", 100, "--json", tmp_path / "r.json", "--predictions", tmp_path / "p.csv",
        "--confusion", tmp_path / "c.png", "--per-class",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{IMAGES} images" in done.stdout
    result = json.loads((tmp_path / "r.json").read_text())
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert result["images"] == len(lines) - 1 == IMAGES
    hits = sum(line.split(",")[1] == line.split(",")[2] for line in lines[1:])
    assert result["top1"] == hits / IMAGES
    assert sum(c["images"] for c in result["per_class"]) == IMAGES
    assert cv2.imread(str(tmp_path / "c.png")).shape[0] > 400
    low, high = result["top1_95"]
    assert low < result["top1"] < high


def test_the_command_leaves_out_damaged_images(many, tmp_path, capsys):
    """The right values: those of the readable images, at their places."""
    folder, card = many
    with RecordWriter(tmp_path / "a.rec") as writer, RecordWriter(tmp_path / "b.rec") as good:
        for i in range(12):
            record = open_source(rec=folder / "a.rec").read(i)
            if i in (4, 7):
                writer.write(i, 10.0 if i == 4 else 1.0, record.image if i == 4 else b"no image")
                continue
            writer.write(i, record.label, record.image)
            good.write(i, record.label, record.image)
    model = open_weights(folder / "net.params", card)
    expected = evaluate(
        model.predict, open_source(rec=tmp_path / "b.rec"), classes=10, preprocessing=SMALL
    )

    def run(*flags):
        code = main(["eval", "imagenet", str(folder / "net.params"), "--rec-val",
                     str(tmp_path / "a.rec"), "--batch-size", "5", *map(str, flags)])  # fmt: skip
        return code, capsys.readouterr()

    code, printed = run(
        "--max-bad-records", 2, "--json", tmp_path / "r.json", "--predictions", tmp_path / "p.csv"
    )
    assert code == 0
    assert printed.out.startswith("2 of 12 images left out: they cannot be read\n")
    assert "10 images" in printed.out
    assert f"left out: {tmp_path / 'a.rec'}, record 4 (key 4): label 10.0 is not" in printed.err
    assert f"left out: {tmp_path / 'a.rec'}, record 7 (key 7): " in printed.err
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["images"], result["left_out"]) == (10, 2)
    assert (result["top1"], result["top5"]) == (expected.top1, expected.top5)
    assert_close(result["loss"], expected.loss, terms=NET)
    lines = (tmp_path / "p.csv").read_text().splitlines()[1:]
    places = [i for i in range(12) if i not in (4, 7)]
    assert [int(line.split(",")[0]) for line in lines] == places
    assert [int(line.split(",")[2]) for line in lines] == expected.ranked[:, 0].tolist()

    code, printed = run("--max-bad-records", 2, "--walk", "published")
    assert code == 2
    assert "--walk published counts every image" in printed.err
    with RecordWriter(tmp_path / "a.rec", overwrite=True) as writer:
        writer.write(0, 0.0, b"no image")
    code, printed = run()
    assert code == 2
    assert "record 0 (key 0): " in printed.err
    assert "--max-bad-records N allows N such records" in printed.err


@pytest.mark.thorough
def test_a_bare_file_needs_its_name(many, tmp_path):
    folder, _ = many
    weights = tmp_path / "net.params"
    weights.write_bytes((folder / "net.params").read_bytes())
    arguments = [ROOT / "eval.py", "imagenet", weights, "--rec-val", folder / "a.rec"]
    done = run_python(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not say which network it holds; add --model" in done.stderr
    named = ["--model", "asymmnet_small_0.35", "--classes", 10, "--input-size", 32]
    done = run_python(*arguments, *named)
    assert done.returncode == 0, done.stderr
