"""What a detector is to predict, and its loss, against slow loops and against GluonCV."""

import importlib
import math

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.data.boxes.geometry import box_iou
from gluon_asymmnet.models.ssd_box_coder import encode, to_corners
from gluon_asymmnet.models.ssd_spec import VARIANCES, anchors, parse_detector
from gluon_asymmnet.train.ssd_loss import MultiBoxLoss
from gluon_asymmnet.train.ssd_targets import TargetGenerator, match
from tests.floats import assert_close

nd = mx.nd


def objects(rng, count, size=300):
    """Random boxes of 10 pixels or more, labels, and some difficult ones."""
    low = rng.uniform(0, size - 20, (count, 2))
    high = np.minimum(low + rng.uniform(10, 150, (count, 2)), size)
    return np.hstack([low, high]), rng.integers(0, 3, count), rng.random(count) < 0.3


# --- Targets ---------------------------------------------------------------------------------


def decoded(offsets, anchors):
    """The inverse of ``encode`` in double precision: corners ``(A, 4)``."""
    offsets = offsets * VARIANCES
    centres = offsets[..., :2] * anchors[:, 2:] + anchors[:, :2]
    return to_corners(np.concatenate([centres, np.exp(offsets[..., 2:]) * anchors[:, 2:]], -1))


def slow_overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def slow_targets(boxes_at, boxes, labels, difficult, use_difficult=False):
    """The paper's matching, one anchor and one object at a time."""
    corners = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in boxes_at]
    wanted = [k for k in range(len(boxes)) if use_difficult or not difficult[k]]
    overlap = {(a, k): slow_overlap(c, boxes[k])
               for a, c in enumerate(corners) for k in range(len(boxes))}  # fmt: skip
    matched, free = {}, list(wanted)
    while free:  # the best pair of all, then the best of the rest
        best, a, k = max((overlap[a, k], -a, -k) for a in range(len(corners)) for k in free
                         if a not in matched)  # fmt: skip
        if best == 0:
            break
        matched[-a] = -k
        free.remove(-k)
    for a in range(len(corners)):
        near = max(wanted, key=lambda k: overlap[a, k], default=None)
        if near is not None and a not in matched and overlap[a, near] >= 0.5:
            matched[a] = near
    classes, offsets = np.zeros(len(corners)), np.zeros((len(corners), 4))
    for a, (x, y, w, h) in enumerate(boxes_at):
        if a in matched:
            xmin, ymin, xmax, ymax = boxes[matched[a]]
            classes[a] = labels[matched[a]] + 1
            offsets[a] = (
                ((xmin + xmax) / 2 - x) / w / 0.1, ((ymin + ymax) / 2 - y) / h / 0.1,
                math.log((xmax - xmin) / w) / 0.2, math.log((ymax - ymin) / h) / 0.2,
            )  # fmt: skip
        elif any(overlap[a, k] >= 0.5 for k in range(len(boxes)) if k not in wanted):
            classes[a] = -1
    return classes, offsets


@pytest.fixture(scope="module")
def few_anchors():
    """Those of the five coarser maps of a 300-pixel detector: 824."""
    return anchors(parse_detector("ssd_300_asymmnet_small_custom").spec)[-824:].astype(np.float64)


@pytest.mark.parametrize("use_difficult", [False, True])
@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_targets_against_slow_loops(few_anchors, count, use_difficult):
    boxes, labels, difficult = objects(np.random.default_rng(count), count)
    if count == 9:  # two objects in one place want the same anchor
        boxes[1], difficult[:2] = boxes[0], False
    found = TargetGenerator(few_anchors, use_difficult=use_difficult)(boxes, labels, difficult)
    classes, offsets = slow_targets(few_anchors, boxes, labels, difficult, use_difficult)
    np.testing.assert_array_equal(found.classes, classes)
    assert_close(found.boxes, offsets, terms=4)
    assert (found.classes > 0).sum() >= (count if use_difficult else (~difficult).sum())


def test_a_difficult_object_is_neither_wanted_nor_background(few_anchors):
    box = to_corners(few_anchors[[300]])
    generate = TargetGenerator(few_anchors)
    found = generate(box, np.array([1]), np.array([True]))
    assert found.classes[300] == -1
    assert not (found.classes > 0).any()
    both = generate(np.vstack([box, box]), np.array([1, 2]), np.array([True, False]))
    assert both.classes[300] == 3  # an object to be found comes first


def test_an_object_no_anchor_touches_is_left_alone(few_anchors):
    far = np.array([[-900.0, -900, -890, -890]])
    assert not TargetGenerator(few_anchors)(far, np.array([0]), np.array([False])).classes.any()


def test_matching_by_hand():
    overlaps = np.array([[0.9, 0.8], [0.6, 0.3], [0.1, 0.55], [0.2, 0.1]])
    # object 0 takes anchor 0; object 1, which wanted it, too, takes anchor 2; anchor 1 is over 0.5
    assert match(overlaps).tolist() == [0, 0, 1, -1]
    assert match(overlaps * 0.5).tolist() == [0, -1, 1, -1]  # each object keeps its best
    assert match(np.array([[0.9], [0.5], [0.49]])).tolist() == [0, 0, -1]  # 0.5 is enough


def test_half_a_difficult_object_is_enough_to_ignore_an_anchor():
    generate = TargetGenerator(np.array([[5.0, 5, 10, 10], [5, 5, 10, 9]]))  # centre, size
    found = generate(np.array([[0.0, 0, 10, 5]]), np.array([0]), np.array([True]))
    assert found.classes.tolist() == [-1, 0]  # overlaps 1/2 and 45/95


def test_decoding_undoes_coding(few_anchors):
    rng = np.random.default_rng(0)
    boxes, _, _ = objects(rng, len(few_anchors))
    assert_close(
        decoded(encode(boxes, few_anchors), few_anchors), boxes, terms=4, precision="float64"
    )


def test_targets_are_gluoncvs(few_anchors):
    """But for ties: of several anchors that overlap an object most, as all those around a small one
    do, GluonCV takes all."""
    from gluon_asymmnet._mxnet import gluoncv

    target = importlib.import_module(f"{gluoncv.__name__}.model_zoo.ssd.target")
    theirs = target.SSDTargetGenerator(negative_mining_ratio=-1)
    ours = TargetGenerator(few_anchors, use_difficult=True)
    for seed in range(5):
        boxes, labels, difficult = objects(np.random.default_rng(seed), 6)
        found = ours(boxes, labels, difficult)
        classes, offsets, _ = theirs(
            nd.array(few_anchors[None]),
            None,
            nd.array(boxes[None]),
            nd.array(labels[None, :, None]),
        )
        overlaps = box_iou(to_corners(few_anchors), boxes)
        most = (overlaps >= overlaps.max(axis=0) - 1e-6).any(axis=1)
        same = classes.asnumpy()[0] == found.classes
        assert same[~most].all()
        assert same.mean() > 0.95
        # divided by 0.1, the variance of the centres
        assert_close(offsets.asnumpy()[0][same], found.boxes[same], terms=4, condition=10)


# --- Loss ------------------------------------------------------------------------------------


def batch_of_targets(rng, pictures_=3, count=60, ignored=True):
    """Logits, offsets and targets; the last picture has no object."""
    targets = rng.integers(0, 4, (pictures_, count)) * (rng.random((pictures_, count)) < 0.15)
    targets[-1] = 0
    if ignored:
        targets[rng.random(targets.shape) < 0.1] = -1
    return (rng.normal(size=(pictures_, count, 4)) * 2, rng.normal(size=(pictures_, count, 4)),
            targets.astype(float), rng.normal(size=(pictures_, count, 4)) * 3)  # fmt: skip


def slow_loss(logits, offsets, targets, box_targets, ratio, least):
    sums = []
    for x, b, t, g in zip(logits, offsets, targets, box_targets):
        entropy = [math.log(np.exp(row).sum()) - row[max(int(c), 0)] for row, c in zip(x, t)]
        positive = [i for i, c in enumerate(t) if c > 0]
        background = sorted((i for i, c in enumerate(t) if c == 0), key=lambda i: -entropy[i])
        chosen = positive + background[: int(max(ratio * len(positive), least))]
        distances = np.abs([b[i] - g[i] for i in positive]).ravel()
        smooth = [d - 0.5 if d > 1 else d * d / 2 for d in distances]
        sums.append((sum(entropy[i] for i in chosen), sum(smooth)))
    return np.array(sums).T


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("confidence", [0, 6])
@pytest.mark.parametrize(("ratio", "least"), [(3, 0), (1, 7)])
def test_loss_against_slow_loops(ratio, least, confidence, hybrid):
    arrays = batch_of_targets(np.random.default_rng(ratio))
    arrays[0][..., 0] += confidence  # a trained net is sure of the background: losses below 1
    loss = MultiBoxLoss(ratio, least)
    if hybrid:
        loss.hybridize()
    found = np.array([v.asnumpy() for v in loss(*map(nd.array, arrays))])
    assert_close(found, slow_loss(*arrays, ratio, least), terms=100)
    assert (found[:, -1] > 0).tolist() == [least > 0, False]  # the picture without objects


def test_loss_and_its_gradient_are_gluoncvs():
    from gluon_asymmnet._mxnet import gluoncv

    arrays = batch_of_targets(np.random.default_rng(5), ignored=False)
    matched = (arrays[2] > 0).sum()
    gradients = []
    for ours in (True, False):
        logits, offsets, *targets = map(nd.array, arrays)
        logits.attach_grad()
        offsets.attach_grad()
        with mx.autograd.record():
            if ours:
                loss = sum(MultiBoxLoss()(logits, offsets, *targets)) / matched
            else:
                loss = gluoncv.loss.SSDMultiBoxLoss()(logits, offsets, *targets)[0][0]
        loss.backward()
        gradients.append((loss.asnumpy(), logits.grad.asnumpy(), offsets.grad.asnumpy()))
    for mine, theirs in zip(*gradients):
        assert_close(mine, theirs, terms=100)


def test_loss_without_any_object_is_zero_with_finite_gradients():
    logits, offsets = nd.ones((2, 5, 4)), nd.ones((2, 5, 4))
    logits.attach_grad()
    with mx.autograd.record():
        entropy, distance = MultiBoxLoss()(logits, offsets, nd.zeros((2, 5)), nd.zeros((2, 5, 4)))
        total = entropy + distance
    total.backward()
    assert total.sum().asscalar() == 0
    assert np.isfinite(logits.grad.asnumpy()).all()
