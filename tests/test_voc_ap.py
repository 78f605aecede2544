"""VOC's average precision: by hand, against GluonCV's metric, and what it refuses."""

import json
import subprocess
import sys

import numpy as np
import pytest

from gluon_asymmnet.data.boxes.geometry import box_iou
from gluon_asymmnet.data.image_headers import image_info
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation.coco_ap import COCOEvaluator
from gluon_asymmnet.evaluation.detection_report import draw_precision_recall, write_json
from gluon_asymmnet.evaluation.voc_ap import VOCEvaluator, ap_11_point, ap_area
from tests.conftest import ROOT
from tests.floats import assert_close

NONE = [], [], []


def boxes(*lefts):
    """Boxes of 10 x 10 pixels (last ones included) side by side, 20 pixels apart."""
    return [[20 * k, 0, 20 * k + 9, 9] for k in lefts]


def evaluated(*images, classes=("a",), **options):
    evaluator = VOCEvaluator(classes, **options)
    for n, image in enumerate(images):
        evaluator.add(n, *image)
    return evaluator.result()


# ------------------------------------------------------------------- overlaps


def test_overlap_by_hand():
    """10 x 10 pixels and the same moved by 5: 50 common, 150 in all; 9 wide and 4 without the 1."""
    a, b = np.float64([[0, 0, 9, 9]]), np.float64([[5, 0, 14, 9], [10, 0, 19, 9], [9, 9, 20, 20]])
    touching = 1 / (100 + 144 - 1)  # one pixel
    assert_close(box_iou(a, b, plus_one=True), [[50 / 150, 0, touching]], precision="float64")
    assert_close(box_iou(a, b), [[36 / (81 + 81 - 36), 0, 0]], precision="float64")


def test_overlap_of_empty_boxes_is_none():
    empty = np.float64([[3, 3, 3, 3]])
    assert box_iou(empty, empty) == 0
    assert box_iou(empty, empty, plus_one=True) == 1  # one pixel
    assert box_iou(np.zeros((0, 4)), empty).shape == (0, 1)


@pytest.mark.parametrize("plus_one", [False, True])
def test_overlap_against_slow_loops(plus_one):
    """Pixels are counted one by one."""
    low = np.random.default_rng(0).integers(0, 12, (2, 9, 2))
    high = low + np.random.default_rng(1).integers(1, 9, (2, 9, 2))
    a, b = np.concatenate([low, high], axis=-1)
    found = box_iou(a.astype(float), b.astype(float), plus_one=plus_one)
    for (n, m), overlap in np.ndenumerate(found):
        inside = [
            {(x, y) for x in range(left, right + plus_one) for y in range(top, bottom + plus_one)}
            for left, top, right, bottom in (a[n].tolist(), b[m].tolist())
        ]
        common, union = inside[0] & inside[1], inside[0] | inside[1]
        assert overlap == pytest.approx(len(common) / len(union), abs=1e-12)


@pytest.mark.parametrize("plus_one, hits", [(True, 1), (False, 0)])
def test_plus_one_decides(plus_one, hits):
    """4 x 1 pixels on 8 x 1: 4 / 8 with the last ones, (3 * 0) / ... = 0 without."""
    image = [[0, 0, 3, 0]], [0], [0.9], [[0, 0, 7, 0]], [0]
    assert evaluated(image, plus_one=plus_one).classes[0].hits == hits


# ------------------------------------------------------------------- AP by hand


def test_one_hit_one_miss():
    """Two objects; .9 hits, .8 misses.  Recall .5, .5; precision 1, 1/2.

    11 points: at recalls 0 to .5, six of them, the best precision is 1, beyond it 0: 6/11.
    Area: precision 1 up to recall .5: 1/2.
    """
    result = evaluated((boxes(0, 5), [0, 0], [0.9, 0.8], boxes(0, 1), [0, 0]))
    found = result.classes[0]
    assert found.recall.tolist() == [0.5, 0.5]
    assert found.precision.tolist() == [1, 0.5]
    assert found.scores.tolist() == [0.9, 0.8]
    assert found.ap_11_point == pytest.approx(6 / 11, abs=1e-15)
    assert found.ap_area == 0.5
    assert (found.positives, found.predictions, found.hits, found.misses) == (2, 2, 1, 1)
    assert (result.mean_ap_11_point, result.mean_ap_area) == (found.ap_11_point, 0.5)


def test_order_of_scores_goes_over_all_images():
    """Four objects in two images; by score: hit, miss, hit, miss, miss, hit.

    Recall 1/4, 1/4, 1/2, 1/2, 1/2, 3/4; precision 1, 1/2, 2/3, 1/2, 2/5, 1/2.
    Area: 1/4 * 1 + 1/4 * 2/3 + 1/4 * 1/2 = 13/24.
    11 points: 0, .1, .2 -> 1; .3, .4, .5 -> 2/3; .6, .7 -> 1/2; .8, .9, 1 -> 0; in all 6/11.
    """
    first = boxes(0, 5, 1), [0, 0, 0], [0.9, 0.8, 0.4], boxes(0, 1), [0, 0]
    second = boxes(0, 5, 6), [0, 0, 0], [0.7, 0.6, 0.5], boxes(0, 1), [0, 0]
    for images in ((first, second), (second, first)):
        found = evaluated(*images).classes[0]
        assert found.recall.tolist() == [0.25, 0.25, 0.5, 0.5, 0.5, 0.75]
        assert_close(found.precision, [1, 1 / 2, 2 / 3, 1 / 2, 2 / 5, 1 / 2], precision="float64")
        assert found.ap_area == pytest.approx(13 / 24, abs=1e-15)
        assert found.ap_11_point == pytest.approx((3 + 3 * 2 / 3 + 2 / 2) / 11, abs=1e-15)


def test_second_prediction_of_one_object_is_a_miss():
    found = evaluated((boxes(0, 0), [0, 0], [0.8, 0.9], boxes(0), [0])).classes[0]
    assert (found.hits, found.misses) == (1, 1)
    assert found.recall.tolist() == [1, 1]
    assert found.scores.tolist() == [0.9, 0.8]


def test_a_prediction_belongs_to_the_box_it_overlaps_most():
    """Its best is taken; that it would also reach 0.5 with the other does not help it (devkit)."""
    true = [[0, 0, 9, 9], [0, 3, 9, 12]]  # overlap 70 / 130
    found = evaluated(([[0, 0, 9, 9], [0, 1, 9, 10]], [0, 0], [0.9, 0.8], true, [0, 0])).classes[0]
    # The second one overlaps 90 / 110 and 80 / 120: it belongs to the first box, too.
    assert (found.hits, found.misses) == (1, 1)


def test_classes_do_not_help_each_other():
    result = evaluated((boxes(0), [1], [0.9], boxes(0), [0]), classes=("a", "b"))
    assert result.classes[0].ap_area == 0
    assert np.isnan(result.classes[1].ap_area)  # nothing to find, one miss
    assert result.classes[1].misses == 1
    assert result.mean_ap_area == 0


def test_threshold_is_reached_exactly():
    """5 x 10 of 10 x 10 pixels: an overlap of exactly 1/2 is a hit."""
    image = [[0, 0, 4, 9]], [0], [0.9], boxes(0), [0]
    assert evaluated(image).classes[0].hits == 1
    assert evaluated(image, iou=0.51).classes[0].hits == 0


# ------------------------------------------------------------------- difficult objects


def test_difficult_objects_are_neither_hit_nor_miss():
    """Found twice, they change nothing; missed neither.  One of one other is found: AP 1."""
    image = boxes(0, 1, 1), [0, 0, 0], [0.7, 0.9, 0.8], boxes(0, 1, 2), [0, 0, 0], [0, 1, 1]
    found = evaluated(image).classes[0]
    assert (found.positives, found.difficult, found.predictions) == (1, 2, 3)
    assert (found.hits, found.misses) == (1, 0)
    assert found.recall.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(found.precision, [np.nan, np.nan, 1])
    assert found.ap_area == 1
    assert found.ap_11_point == pytest.approx(1, abs=1e-15)


def test_only_difficult_objects_are_nothing_to_find():
    result = evaluated((boxes(0), [0], [0.9], boxes(0), [0], [True]))
    assert np.isnan(result.classes[0].ap_11_point)
    assert np.isnan(result.mean_ap_11_point)
    assert result.classes[0].difficult == 1


# ------------------------------------------------------------------- edges


def test_no_predictions_are_zero():
    result = evaluated((*NONE, boxes(0), [0]), classes=("a", "b"))
    assert (result.classes[0].ap_11_point, result.classes[0].ap_area) == (0, 0)
    assert np.isnan(result.classes[1].ap_area)
    assert (result.mean_ap_11_point, result.mean_ap_area) == (0, 0)


def test_nothing_at_all():
    for result in (VOCEvaluator(["a"]).result(), evaluated((*NONE, [], []))):
        assert np.isnan(result.mean_ap_area) and result.classes[0].positives == 0
    assert result.images == 1


def test_padding_is_left_out_and_columns_are_taken():
    """As GluonCV's detectors return them: (n, 1) labels and scores, -1 for rows that are none."""
    pred = np.float32([*boxes(0), [-1] * 4]), np.float32([[0], [-1]]), np.float32([[0.9], [-1]])
    true = np.float32([*boxes(0), [-1] * 4]), np.float32([[0], [-1]]), np.float32([[0], [-1]])
    found = evaluated((*pred, *true)).classes[0]
    assert (found.positives, found.predictions, found.hits) == (1, 1, 1)


def test_equal_scores_keep_their_order():
    image = boxes(5, 0), [0, 0], [0.5, 0.5], boxes(0), [0]
    assert evaluated(image).classes[0].precision.tolist() == [0, 0.5]


def test_curves_alone():
    recall, precision = np.array([0.5, 1.0]), np.array([0.5, 1.0])
    assert ap_area(recall, precision) == 1  # the best precision at a recall or beyond it
    assert ap_11_point(recall, precision) == pytest.approx(1, abs=1e-15)
    assert ap_area(np.zeros(0), np.zeros(0)) == ap_11_point(np.zeros(0), np.zeros(0)) == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((boxes(0), [0, 0], [0.9], *NONE[:2]), r"predicted boxes.* \(1, 4\), \(2,\) and \(1,\)"),
        (([1, 2, 3, 4], [0], [0.9], *NONE[:2]), r"have the shapes \(4,\), \(1,\) and \(1,\)"),
        ((*NONE, boxes(0), [0], [0, 1]), "image 'x': true boxes"),
        ((boxes(0), [1], [0.9], *NONE[:2]), "predicted label 1 is not one of the 1 classes"),
        ((boxes(0), [-2], [0.9], *NONE[:2]), "label -2 is not one"),
        ((boxes(0), [0.5], [0.9], *NONE[:2]), "label 0.5 is not one"),
        ((boxes(0), [0], [np.nan], *NONE[:2]), "predicted boxes or scores are not finite"),
        (([[0, 0, np.inf, 9]], [0], [0.9], *NONE[:2]), "are not finite"),
    ],
)
def test_what_is_refused_counts_for_nothing(arguments, message):
    evaluator = VOCEvaluator(["a"])
    with pytest.raises(InputError, match=message):
        evaluator.add("x", *arguments)
    assert evaluator.result().images == 0
    evaluator.add("x", *NONE, boxes(0), [0])
    assert evaluator.result().classes[0].positives == 1


def test_an_image_is_counted_once():
    evaluator = VOCEvaluator(["a"])
    evaluator.add("000005", *NONE, boxes(0), [0])
    with pytest.raises(InputError, match="image '000005' was added before"):
        evaluator.add("000005", *NONE, boxes(0), [0])
    assert evaluator.result().classes[0].positives == 1


@pytest.mark.parametrize("classes, iou", [([], 0.5), (["a"], 0), (["a"], 1.5), (["a"], np.nan)])
def test_wrong_arguments(classes, iou):
    with pytest.raises(InputError, match=r"expected class names|iou must be above 0 and at most 1"):
        VOCEvaluator(classes, iou)


# ------------------------------------------------------------------- GluonCV


def random_image(random, classes):
    """True boxes, some difficult, and predictions near them, some with other labels."""
    m, n = random.randint(0, 6), random.randint(0, 25)
    low = random.uniform(0, 200, (m, 2))
    true, labels = (
        np.hstack([low, low + random.uniform(5, 90, (m, 2))]),
        random.randint(0, classes, m),
    )
    near = random.randint(0, m, n) if m else np.zeros(n, int)
    pred = (true[near] if m else random.uniform(0, 50, (n, 4))) + random.normal(0, 7, (n, 4))
    pred[:, 2:] = np.maximum(pred[:, 2:], pred[:, :2] + 1)
    guess = np.where(random.rand(n) < 0.7, labels[near] if m else 0, random.randint(0, classes, n))
    return pred, guess, random.rand(n), true, labels, random.rand(m) < 0.2


@pytest.mark.parametrize("seed, iou", [(0, 0.5), (1, 0.5), (2, 0.75), (3, 0.3)])
def test_gluoncvs_metrics(seed, iou):
    from gluon_asymmnet._mxnet import gluoncv

    names, random = list("abcdefgh"), np.random.RandomState(seed)
    metrics = gluoncv.utils.metrics
    theirs = {
        "ap_11_point": metrics.voc_detection.VOC07MApMetric(iou, names),
        "ap_area": metrics.voc_detection.VOCMApMetric(iou, names),
    }
    evaluator = VOCEvaluator(names, iou)
    for n in range(80):
        # Of the last class there are only predictions, never an object: nan.
        pred, guess, scores, true, labels, hard = random_image(random, len(names) - 1)
        guess[:1] = len(names) - 1
        evaluator.add(n, pred, guess, scores, true, labels, hard)
        for metric in theirs.values():
            columns = (guess, scores), (labels, hard.astype(float))
            (guesses, values), (truths, flags) = ([c[None, :, None] for c in p] for p in columns)
            metric.update([pred[None]], [guesses], [values], [true[None]], [truths], [flags])
    result = evaluator.result()
    for name, metric in theirs.items():
        *expected, mean = metric.get()[1]
        ours = [getattr(found, name) for found in result.classes]
        assert_close(ours, expected, precision="float64")
        assert np.isnan(ours).tolist() == [False] * (len(names) - 1) + [True]
        assert 0.02 < mean < 0.98
        assert getattr(result, f"mean_{name}") == pytest.approx(mean, abs=1e-9)


# ------------------------------------------------------------------- what is written


def test_json(tmp_path):
    result = evaluated((boxes(0), [0], [0.9], boxes(0), [0]), classes=("a", "b"))
    write_json(result, tmp_path / "ap.json")
    found = json.loads((tmp_path / "ap.json").read_text())
    assert found["mean_ap_area"] == 1 and found["images"] == 1 and found["plus_one"] is True
    assert found["classes"][1] == {
        "name": "b", "ap_11_point": None, "ap_area": None, "positives": 0, "difficult": 0,
        "predictions": 0, "hits": 0, "misses": 0,
    }  # fmt: skip


@pytest.mark.parametrize("classes", [1, 30])
def test_picture(tmp_path, classes):
    names = [f"class {k}" for k in range(classes)]
    image = boxes(*range(classes)), range(classes), np.linspace(0.1, 0.9, classes)
    draw_precision_recall(
        evaluated((*image, *image[:2]), classes=[*names, "absent"]), tmp_path / "pr.png"
    )
    data = (tmp_path / "pr.png").read_bytes()
    assert image_info(data).format == "png"
    assert len(np.unique(decode(data).reshape(-1, 3), axis=0)) > 20  # not an empty sheet


def test_picture_of_nothing(tmp_path):
    draw_precision_recall(evaluated(), tmp_path / "pr.png")
    assert (tmp_path / "pr.png").stat().st_size > 1000


def test_boxes_include_their_last_pixels_unless_told():
    for evaluator in (VOCEvaluator(["a"]), COCOEvaluator(["a"])):
        assert evaluator.plus_one is True


def test_coco_tells_zero_from_nothing_to_find():
    evaluator = COCOEvaluator(["a"])
    evaluator.add(0, np.array([[50.0, 50, 60, 60]]), [0], [0.9], np.array([[0.0, 0, 9, 9]]), [0])
    found = evaluator.result()  # a small object is missed; there is no large one
    assert found["AP"] == found["AP_small"] == 0
    assert np.isnan(found["AP_large"])


@pytest.mark.parametrize("plus_one", [True, False])
def test_coco_measures_the_pixels_of_an_object(plus_one):
    evaluator = COCOEvaluator(["a"], plus_one=plus_one)
    box = np.array([[0.0, 0, 32, 32]])  # 33 pixels wide, or 32: small ends at 32 x 32
    evaluator.add(0, box, [0], [0.9], box, [0])
    found = evaluator.result()
    assert found["AP_medium"] > 0.999
    assert np.isnan(found["AP_small"]) == plus_one


def test_coco_does_not_ask_for_difficult_objects():
    evaluator = COCOEvaluator(["a"])
    boxes_ = np.array([[0.0, 0, 50, 50], [100, 100, 150, 150]])
    evaluator.add(0, boxes_[:1], [0], [0.9], boxes_, [0, 0], [False, True])
    found = evaluator.result()
    assert found["AP"] > 0.999 and found["AR_100"] == 1


def test_coco_without_pycocotools():
    """In a process of its own, where it cannot be imported whether it is installed or not."""
    code = (
        "import sys; sys.modules['pycocotools'] = None\n"
        "from gluon_asymmnet.evaluation.coco_ap import COCOEvaluator\n"
        "COCOEvaluator(['a'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "InputError: COCO's metrics need pycocotools" in done.stderr
    assert "gluon_asymmnet[coco]" in done.stderr
