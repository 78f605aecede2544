"""Suppression in NumPy against MXNet's operator, a slow loop, and by hand."""

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.data.boxes.geometry import Detections
from gluon_asymmnet.evaluation.agreement import compare_detections
from gluon_asymmnet.predict.detector import _select
from gluon_asymmnet.predict.nms import box_nms, suppress
from tests.test_ssd_targets import slow_overlap


def candidates(seed, count, *, coarse):
    """Ids, scores and boxes; ``coarse``: many equal scores, and overlaps that are simple ratios.

    Some boxes are empty or inverted, some reach outside.
    """
    rng = np.random.default_rng(seed)
    scores = rng.random(count)
    low = rng.uniform(-10, 30, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(-5, 60, (count, 2))], axis=1)
    if coarse:
        scores, boxes = np.round(scores * 8) / 8, np.round(boxes / 10) * 10
    return rng.integers(0, 3, count), np.float32(scores), np.float32(boxes)


def by_mxnet(ids, scores, boxes, overlap, top):
    """Which rows ``box_nms`` keeps, in its order; each row carries its number."""
    number = np.arange(len(ids))
    rows = np.column_stack([ids, scores, boxes, number]).astype(np.float32)
    kept = mx.nd.contrib.box_nms(
        mx.nd.array(rows[None]), overlap_thresh=overlap, topk=top, valid_thresh=0.01, id_index=0,
        score_index=1, coord_start=2,
    ).asnumpy()[0]  # fmt: skip
    return kept[kept[:, 0] >= 0, 6].astype(int).tolist()


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("top", [-1, 1, 40, 1000])
@pytest.mark.parametrize("overlap", [0.25, 1 / 3, 0.45, 0.5, 0.999])
def test_the_boxes_that_mxnet_keeps_in_its_order(coarse, top, overlap):
    for seed in range(6):
        ids, scores, boxes = candidates(seed, 5 + 60 * seed, coarse=coarse)
        valid = np.flatnonzero(scores > np.float32(0.01))
        found = box_nms(
            ids[valid], scores[valid], boxes[valid], overlap_thresh=overlap, topk=top
        )  # fmt: skip
        assert valid[found].tolist() == by_mxnet(ids, scores, boxes, overlap, top)


def test_the_boxes_that_a_slow_loop_keeps():
    ids, scores, boxes = candidates(9, 150, coarse=False)
    kept = []
    for i in sorted(range(150), key=lambda i: -scores[i]):
        rivals = [k for k in kept if ids[k] == ids[i]]
        if all(slow_overlap(boxes[k], boxes[i]) <= 0.45 for k in rivals):
            kept.append(i)
    assert box_nms(ids, scores, boxes, overlap_thresh=0.45).tolist() == kept
    assert box_nms(ids, scores, boxes, overlap_thresh=0.45, max_boxes=7).tolist() == kept[:7]
    assert 20 < len(kept) < 140


def by_hand(scores, boxes, **changes):
    settings = dict(nms_thresh=0.5, nms_topk=400, post_nms=100, score_threshold=0.01)
    found = suppress(np.float32(scores), np.float32(boxes), **{**settings, **changes})
    return list(zip(found.labels.tolist(), found.scores.tolist(), found.boxes[:, 0].tolist()))


def test_suppression_by_hand():
    """Boxes 10 wide; the second overlaps the first by 8 of 12, the third by 2 of 18."""
    boxes = [(0, 0, 10, 10), (2, 0, 12, 10), (8, 0, 18, 10)]
    scores = [(0.5, 0.25), (0.75, 0.01), (0.125, 0.25)]
    assert by_hand(scores, boxes) == [(0, 0.75, 2), (1, 0.25, 0), (1, 0.25, 8), (0, 0.125, 8)]
    # 8/12: not above 0.67; equal scores: class, then box
    assert by_hand(scores, boxes, nms_thresh=0.67)[:3] == [(0, 0.75, 2), (0, 0.5, 0), (1, 0.25, 0)]
    # of the best two, both of class 0, one is left
    assert by_hand(scores, boxes, nms_topk=2) == [(0, 0.75, 2)]
    assert by_hand(scores, boxes, post_nms=2) == [(0, 0.75, 2), (1, 0.25, 0)]
    assert by_hand(scores, boxes, score_threshold=0.25) == [(0, 0.75, 2)]  # strictly above
    # none are suppressed: class by class, box by box
    everything = [(0, 0.5, 0), (0, 0.75, 2), (0, 0.125, 8), (1, 0.25, 0), (1, 0.25, 8)]
    for off in (0, 1, -1):
        assert by_hand(scores, boxes, nms_thresh=off) == everything
    assert by_hand(np.zeros((3, 2)), boxes) == []


def test_agreement_by_hand():
    def found(*rows):
        labels, scores, *corners = (np.array(column) for column in zip(*rows))
        return Detections(labels, scores, np.stack(corners, axis=1))

    one = found((0, 0.9, 0, 0, 10, 10), (1, 0.5, 0, 0, 10, 10), (1, 0.2, 50, 50, 60, 60))
    same = found((1, 0.5005, 0, 0, 10, 10.25), (0, 0.9, 0, 0, 10, 10))  # in another order
    assert compare_detections([(one, one)]) == (6, 1, 0, 0)
    detections, share, scores, boxes = compare_detections([(one, same)])
    assert (detections, share, boxes) == (5, 4 / 5, 0.25)
    assert scores == pytest.approx(0.0005)
    assert compare_detections([(one, same)], score_threshold=0.3)[:2] == (4, 1)
    for other in ((0, 0.898, 0, 0, 10, 10), (0, 0.9, 0.6, 0, 10, 10), (1, 0.9, 0, 0, 10, 10)):
        assert compare_detections([(one, found(other))], score_threshold=0.6)[:2] == (2, 0)
    nothing = Detections(np.zeros(0), np.zeros(0), np.zeros((0, 4)))
    assert compare_detections([(nothing, nothing)]) == (0, 1, 0, 0)
    assert compare_detections([(one, nothing)])[:2] == (3, 0)
    far = found((0, 0.9, 0, 0, 10, 1e6)), found((0, 0.9, 0, 0, 10, 1e6 + 9))
    assert compare_detections([far])[1] == 1  # 9 of a million
    assert compare_detections([far], side=1e6)[1] == 0


def test_boxes_without_an_area_are_not_results():
    """A box beyond the border is a line or a point after clipping."""
    boxes = np.float32([[0, 0, 9, 9], [9, 0, 9, 9], [0, 9, 9, 9], [5, 5, 3, 9], [2, 2, 3, 3]])
    scores = np.float32([0.9, 0.8, 0.7, 0.6, 0.05])
    found = Detections(np.zeros(5, np.int64), scores, boxes)
    kept = _select(found, np.float32([0.1]))
    assert kept.boxes.tolist() == [[0, 0, 9, 9]]
