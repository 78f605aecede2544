"""One update of a detector: the gradient, the optimizer, devices, frozen parts, sizes of images."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import ClassifierCard
from gluon_asymmnet.data.boxes.loader import DetectionBatch
from gluon_asymmnet.data.boxes.voc import VOCSource
from gluon_asymmnet.models.ssd import SSD
from gluon_asymmnet.models.ssd_spec import anchors
from gluon_asymmnet.train.checkpoint import net_arrays
from gluon_asymmnet.train.detector import DetectorTask
from gluon_asymmnet.train.ssd_loss import MultiBoxLoss
from gluon_asymmnet.zoo import get_classifier
from tests.detector_runs import NOT_VALIDATED, config
from tests.floats import NET, assert_close
from tests.test_detection_records import records_of


def test_one_update_is_the_gradient_over_the_matched_anchors(boxes, tmp_path):
    """v = m v - lr (g / matched + wd w), w += v, with the gradients MXNet left."""
    task = DetectorTask(config(boxes, wd=0.01, momentum=0.9), [mx.cpu()], tmp_path)
    batch = next(task.batches(0, 0))
    before = net_arrays(task.net)
    task.trainer.set_learning_rate(0.05)
    loss, distance = task.step(batch, 0, np.random.default_rng(0)).asnumpy()
    assert loss > distance > 0
    matched = (batch.cls_target > 0).sum()
    assert matched >= 4
    for name, param in task.net._collect_params_with_prefix().items():
        if param.grad_req != "null":
            gradient = param.grad().asnumpy() / matched
            expected = before[name] - 0.05 * (gradient + 0.01 * before[name])
            assert_close(param.data(), expected, terms=NET)


def test_an_update_by_adam(boxes, tmp_path):
    """--optimizer and its settings: Kingma and Ba 2015, first step, with decay in the gradient."""
    settings = {"optimizer": "adam", "beta1": 0.8, "beta2": 0.9, "epsilon": 1e-3, "wd": 0.01}
    task = DetectorTask(config(boxes, **settings), [mx.cpu()], tmp_path)
    batch = next(task.batches(0, 0))
    before = net_arrays(task.net)
    task.trainer.set_learning_rate(0.05)
    task.step(batch, 0, np.random.default_rng(0)).wait_to_read()
    matched, root = (batch.cls_target > 0).sum(), np.sqrt(1 - 0.9)
    for name, param in task.net._collect_params_with_prefix().items():
        if param.grad_req != "null":
            gradient = param.grad().asnumpy() / matched + 0.01 * before[name]
            step = 0.05 * root * gradient / (root * np.abs(gradient) + 1e-3)
            assert_close(param.data(), before[name] - step, terms=NET)


def test_clipping_bounds_the_gradient_over_the_matched_anchors(boxes, tmp_path):
    task = DetectorTask(config(boxes, clip_norm=0.25), [mx.cpu()], tmp_path)
    batch = next(task.batches(0, 0))
    task.step(batch, 0, np.random.default_rng(0)).wait_to_read()
    matched = (batch.cls_target > 0).sum()
    params = task.net._collect_params_with_prefix().values()
    squares = [(p.grad().asnumpy() ** 2).sum() for p in params if p.grad_req != "null"]
    assert np.sqrt(np.sum(squares)) / matched == pytest.approx(0.25, rel=1e-3)


def test_two_devices_do_what_one_does(boxes, tmp_path):
    """Two CPU contexts stand for two GPUs; frozen statistics, as a batch has others than halves."""
    one = DetectorTask(config(boxes), [mx.cpu()], tmp_path)
    two = DetectorTask(config(boxes), [mx.cpu(0), mx.cpu(1)], tmp_path)
    for task in (one, two):
        task.net.apply(_fixed)
    for p, q in zip(*(t.net._collect_params_with_prefix().values() for t in (one, two))):
        q.set_data(p.data())
    batch = next(one.batches(0, 0))
    sums = [t.step(batch, 0, np.random.default_rng(0)).asnumpy() for t in (one, two)]
    assert_close(sums[0], sums[1], terms=NET)
    a, b = (net_arrays(t.net) for t in (one, two))
    for name in a:
        assert_close(b[name], a[name], terms=NET)


def _fixed(block):
    if isinstance(block, mx.gluon.nn.BatchNorm):
        block._kwargs["use_global_stats"] = True


def test_pictures_without_objects_change_nothing_but_decay(boxes, tmp_path):
    task = DetectorTask(config(boxes, wd=0.0), [mx.cpu()], tmp_path)
    batch = next(task.batches(0, 0))
    empty = DetectionBatch(batch.data, 0 * batch.cls_target, 0 * batch.box_target)
    before = net_arrays(task.net)
    assert task.step(empty, 0, np.random.default_rng(0)).asnumpy().tolist() == [0, 0]
    after = net_arrays(task.net)
    assert all(np.array_equal(before[n], after[n]) for n in before if "running" not in n)


@pytest.mark.parametrize(("stages", "norms"), [(2, False), (0, True)])
def test_frozen_parts_stay_as_they_are(boxes, tmp_path, stages, norms):
    frozen = dataclasses.replace(config(boxes), freeze_stages=stages, freeze_bn=norms)
    task = DetectorTask(frozen, [mx.cpu()], tmp_path)
    before = net_arrays(task.net)
    task.trainer.set_learning_rate(0.1)
    task.step(next(task.batches(0, 0)), 0, np.random.default_rng(0)).wait_to_read()
    after = net_arrays(task.net)
    changed = {n for n in before if not np.array_equal(before[n], after[n])}
    backbone = {n for n in before if n.startswith("features.backbone.")}
    early = {n for n in backbone if re.match(r"features\.backbone\.(stem|blocks\.0)\.", n)}
    frozen = early if stages else {n for n in backbone if ".norm." in n}
    assert frozen
    assert not changed & frozen
    assert changed >= backbone - frozen


def test_starts_from_a_classifiers_run_and_from_a_detector(boxes, tmp_path):
    theirs = get_classifier("asymmnet_small", width=0.35, classes=4)
    theirs.initialize()
    folder = tmp_path / "run"
    folder.mkdir()
    theirs.save_parameters(str(folder / "best.params"))
    ClassifierCard(model="asymmnet_small", width=0.35, classes=4).save(folder / "card.json")
    task = DetectorTask(config(boxes, pretrained_base=str(folder)), [mx.cpu()], tmp_path)
    stem = theirs.features.stem.conv.weight.data().asnumpy()
    np.testing.assert_array_equal(net_arrays(task.net)["features.backbone.stem.conv.weight"], stem)
    assert str(folder) in task.describe()
    task.net.save_parameters(str(tmp_path / "detector.params"))
    again = DetectorTask(
        config(boxes, resume_params=str(tmp_path / "detector.params"), start_epoch=1),
        [mx.cpu()], tmp_path,
    )  # fmt: skip
    a, b = net_arrays(task.net), net_arrays(again.net)
    assert all(np.array_equal(a[n], b[n]) for n in a)
    assert again.first_step == 3


@pytest.mark.thorough
def test_multi_scale_steps_are_those_of_detectors_of_these_sizes(boxes, tmp_path):
    """Every gradient, against a net of that size that is not compiled; and none is zero."""
    task = DetectorTask(config(boxes, multi_scale="160,256,352"), [mx.cpu()], tmp_path)
    assert "images of 160, 256, 352 pixels per epoch" in task.describe()
    assert task.card.input_size == 300
    task.trainer.set_learning_rate(0.0)
    seen, compiled, rng = set(), None, np.random.default_rng(0)
    for found in itertools.chain.from_iterable(task.batches(e, 0) for e in range(3)):
        # objects on all maps, so that every parameter has a gradient
        batch = found._replace(
            cls_target=rng.integers(0, 4, found.cls_target.shape).astype(np.float32),
            box_target=rng.normal(size=found.box_target.shape).astype(np.float32),
        )
        task.step(batch, 0, rng).wait_to_read()
        compiled = compiled or task.net._cached_op
        assert task.net._cached_op is compiled  # not traced anew
        size = batch.data.shape[-1]
        if size not in seen:
            seen.add(size)
            _compare_gradients(task.net, size, batch)
    assert seen == {160, 256, 352}


def _compare_gradients(trained, size, batch):
    spec = trained.spec._replace(size=size)
    net = SSD(spec, get_classifier(spec.backbone, width=spec.width, dropout=0), trained.classes)
    net.initialize()
    params, others = (n._collect_params_with_prefix() for n in (trained, net))
    for name in params.keys() - {"anchors"}:
        others[name].set_data(params[name].data())
    image, classes, offsets = map(mx.nd.array, batch)
    with mx.autograd.record():
        logits, moves, boxes_at = net(image)
        loss = sum(MultiBoxLoss()(logits, moves, classes, offsets))
    loss.backward()
    np.testing.assert_array_equal(boxes_at[0].asnumpy(), anchors(spec))
    assert logits.shape[1] == classes.shape[1] == len(anchors(spec))
    for name, param in params.items():
        if param.grad_req != "null":
            expected = others[name].grad().asnumpy()
            scale = np.abs(expected).max()
            assert scale > 0, name
            assert_close(param.grad(), expected, terms=NET)


def test_gluoncvs_records_give_the_batches_of_the_folder(boxes, tmp_path):
    records_of(VOCSource(boxes, [(2007, "trainval")]), tmp_path / "train.rec")
    changes = {"dataset_root": str(tmp_path), "train_splits": "train.rec", **NOT_VALIDATED}
    folder, records = (
        DetectorTask(config(boxes, **c), [mx.cpu()], tmp_path) for c in ({}, changes)
    )
    assert records.class_names == folder.class_names
    for ours, theirs in zip(folder.batches(0, 0), records.batches(0, 0)):
        np.testing.assert_array_equal(theirs.data, ours.data)
        np.testing.assert_array_equal(theirs.cls_target, ours.cls_target)
        assert_close(theirs.box_target, ours.box_target, terms=4, condition=10)
