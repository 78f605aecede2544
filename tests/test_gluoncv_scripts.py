"""GluonCV's scripts on our nets: the library calls that each of them makes, in its order.

Written from the documented interface of GluonCV and Gluon; only the data are smaller, and the
pictures are read without worker processes.
"""

import warnings

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.data.boxes.digits import write_digits_voc
from gluon_asymmnet.data.boxes.voc import VOC_CLASSES
from gluon_asymmnet.zoo import get_model
from tests.floats import NET, assert_close

pytestmark = [
    pytest.mark.thorough,
    # SymbolBlock.imports, of the input, whose type nobody can give
    pytest.mark.filterwarnings("ignore:Cannot decide type"),
]

nd, gluon, autograd = mx.nd, mx.gluon, mx.autograd
CTX = [mx.cpu()]
SSD_NAME, SIDE = "ssd_300_asymmnet_small_0.35_voc", 300
CLASSIFIER = "asymmnet_small_0.35"


@pytest.fixture(scope="module")
def gluoncv():
    from gluon_asymmnet._mxnet import gluoncv

    return gluoncv


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """Digits in VOC's layout, under ten of VOC's class names."""
    root = tmp_path_factory.mktemp("voc") / "digits"
    write_digits_voc(root, images=(4, 3), size=(64, 96), digit=(12, 42))
    for path in root.glob("VOC2007/Annotations/*.xml"):
        text = path.read_text()
        for digit in range(10):
            text = text.replace(f"<name>{digit}</name>", f"<name>{VOC_CLASSES[digit]}</name>")
        path.write_text(text)
    return root


def dataset(gluoncv, voc, split):
    return gluoncv.data.VOCDetection(root=str(voc), splits=[(2007, split)])


def training_loader(gluoncv, net, source, size=SIDE):
    """Targets come from the anchors of one pass over zeros."""
    with autograd.train_mode():
        _, _, anchors = net(nd.zeros((1, 3, size, size), CTX[0]))
    anchors = anchors.as_in_context(mx.cpu())
    batchify = gluoncv.data.batchify.Tuple(*(gluoncv.data.batchify.Stack() for _ in range(3)))
    transform = gluoncv.data.transforms.presets.ssd.SSDDefaultTrainTransform(size, size, anchors)
    return gluon.data.DataLoader(
        source.transform(transform), 2, True, batchify_fn=batchify, last_batch="rollover"
    )


def validation_loader(gluoncv, source, size=SIDE):
    batchify = gluoncv.data.batchify
    transform = gluoncv.data.transforms.presets.ssd.SSDDefaultValTransform(size, size)
    return gluon.data.DataLoader(
        source.transform(transform), 2, False, last_batch="keep",
        batchify_fn=batchify.Tuple(batchify.Stack(), batchify.Pad(pad_val=-1)),
    )  # fmt: skip


def scores_of(net, loader, metric):
    """The evaluation of train_ssd and of eval_ssd."""
    metric.reset()
    nd.waitall()
    net.collect_params().reset_ctx(CTX)
    net.hybridize(static_alloc=True, static_shape=True)
    split = gluon.utils.split_and_load
    for batch in loader:
        images, labels = (split(part, CTX, batch_axis=0, even_split=False) for part in batch)
        for x, y in zip(images, labels):
            ids, scores, boxes = net(x)
            ids_there, boxes_there = (
                y.slice_axis(-1, begin, end) for begin, end in ((4, 5), (0, 4))
            )
            difficult = y.slice_axis(-1, 5, 6) if y.shape[-1] > 5 else None
            boxes = boxes.clip(0, x.shape[2])
            metric.update([boxes], [ids], [scores], [boxes_there], [ids_there], [difficult])
    return metric.get()


def trained_detector(gluoncv, voc, name=SSD_NAME, size=SIDE, norm_layer=gluon.nn.BatchNorm):
    """train_ssd up to the first validation."""
    with pytest.warns(UserWarning, match="no weights of the backbone"):
        net = get_model(name, pretrained_base=True, norm_layer=norm_layer)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        net.initialize()
        net.collect_params().reset_ctx(CTX[0])
    loader = training_loader(gluoncv, net, dataset(gluoncv, voc, "trainval"), size)
    net.collect_params().reset_ctx(CTX)
    trainer = gluon.Trainer(
        net.collect_params(), "sgd", {"learning_rate": 1e-3, "wd": 5e-4, "momentum": 0.9},
        update_on_kvstore=None,
    )  # fmt: skip
    loss = gluoncv.loss.SSDMultiBoxLoss()
    entropy, distance = mx.metric.Loss("CrossEntropy"), mx.metric.Loss("SmoothL1")
    trainer.set_learning_rate(trainer.learning_rate * 0.1)
    net.hybridize(static_alloc=True, static_shape=True)
    before = {n: p.data().asnumpy() for n, p in net.collect_params(".*weight").items()}
    for batch in loader:
        images, labels, targets = (gluon.utils.split_and_load(part, CTX) for part in batch)
        with autograd.record():
            logits, offsets = zip(*(net(x)[:2] for x in images))
            total, entropies, distances = loss(logits, offsets, labels, targets)
            autograd.backward(total)
        trainer.step(1)
        entropy.update(0, [part * 2 for part in entropies])
        distance.update(0, [part * 2 for part in distances])
    still = [n for n, v in before.items() if (net.collect_params()[n].data().asnumpy() == v).all()]
    assert still == []
    assert np.isfinite([entropy.get()[1], distance.get()[1]]).all()
    return net


@pytest.fixture(scope="module")
def trained(gluoncv, voc):
    return trained_detector(gluoncv, voc)


def assert_equal_nets(one, other, x):
    for a, b in zip(one(x), other(x)):
        np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())


# --- Detection -------------------------------------------------------------------------------


def test_train_ssd_validates_saves_and_resumes(gluoncv, voc, trained, tmp_path):
    source = dataset(gluoncv, voc, "test")
    metric = gluoncv.utils.metrics.voc_detection.VOC07MApMetric(0.5, source.classes)
    trained.set_nms(nms_thresh=0.45, nms_topk=400)
    names, values = scores_of(trained, validation_loader(gluoncv, source), metric)
    assert names == [*VOC_CLASSES, "mAP"]
    assert 0 <= values[-1] <= 1
    path = str(tmp_path / f"{SSD_NAME}_0000_{values[-1]:.4f}.params")
    trained.save_params(path)
    resumed = get_model(SSD_NAME, pretrained_base=False, norm_layer=gluon.nn.BatchNorm)
    resumed.load_parameters(path)
    assert_equal_nets(resumed, trained, nd.random.normal(shape=(1, 3, SIDE, SIDE)))


def test_train_ssd_at_another_size_than_the_names(gluoncv, voc):
    """--data-shape names the net there; here any data go into any net."""
    net = trained_detector(gluoncv, voc, size=96)
    assert net(nd.zeros((1, 3, 96, 96)))[0].shape == (1, 100, 1)


def test_train_ssd_with_synchronised_norms(tmp_path):
    """--syncbn: a twin with plain norms gives the anchors, and takes the same files."""
    sync = {"norm_layer": gluon.contrib.nn.SyncBatchNorm, "norm_kwargs": {"num_devices": 2}}
    with pytest.warns(UserWarning, match="no weights of the backbone"):
        net = get_model(SSD_NAME, pretrained_base=True, **sync)
    twin = get_model(SSD_NAME, pretrained_base=False)
    net.save_params(str(tmp_path / "a.params"))
    twin.load_parameters(str(tmp_path / "a.params"))
    assert_equal_nets(net, twin, nd.random.normal(shape=(1, 3, 64, 64)))


def test_eval_ssd_from_a_file(gluoncv, voc, trained, tmp_path):
    trained.save_parameters(str(tmp_path / "a.params"))
    net = get_model(SSD_NAME, pretrained=False)
    net.load_parameters(str(tmp_path / "a.params"))
    net.set_nms(nms_thresh=0.45, nms_topk=400)
    source = dataset(gluoncv, voc, "test")
    metric = gluoncv.utils.metrics.voc_detection.VOC07MApMetric(0.5, source.classes)
    loader = validation_loader(gluoncv, source)
    names, values = scores_of(net, loader, metric)
    assert names == [*VOC_CLASSES, "mAP"]
    np.testing.assert_array_equal(values, scores_of(trained, loader, metric)[1])


@pytest.mark.parametrize("exported_at", [300, 224])
def test_export_and_eval_ssd_deployed(gluoncv, trained, tmp_path, exported_at):
    """Without a preprocessing block; an exported graph takes every size, as GluonCV's do."""
    prefix = str(tmp_path / "deploy")
    gluoncv.utils.export_block(
        prefix, trained, data_shape=(3, exported_at, exported_at), preprocess=None, layout="CHW"
    )
    net = gluon.SymbolBlock.imports(f"{prefix}-symbol.json", ["data"], f"{prefix}-0000.params")
    net.hybridize(static_alloc=True, static_shape=True)
    x = nd.random.normal(shape=(2, 3, exported_at, exported_at))
    for actual, expected in zip(net(x), trained(x)):
        assert_close(actual, expected, terms=NET)


def test_export_with_preprocessing_and_no_size(gluoncv, trained, tmp_path):
    """The input is then RGB of 0 to 255; the first of the sizes that are tried goes through."""
    prefix = str(tmp_path / "whole")
    gluoncv.utils.export_block(prefix, trained, preprocess=True, layout="HWC")
    net = gluon.SymbolBlock.imports(f"{prefix}-symbol.json", ["data"], f"{prefix}-0000.params")
    mean, deviation = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    for shape in ((300, 300), (96, 128)):
        rgb = np.random.default_rng(0).integers(0, 256, (1, *shape, 3)).astype(np.float32)
        x = nd.array(((rgb - mean) / deviation).transpose(0, 3, 1, 2))
        for actual, expected in zip(net(nd.array(rgb)), trained(x)):
            assert_close(actual, expected, terms=NET)


def test_demo_ssd_draws_pictures_of_any_shape(gluoncv, voc, trained, tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    trained.save_params(str(tmp_path / "a.params"))
    net = get_model(SSD_NAME, pretrained=False, pretrained_base=False)
    net.load_parameters(str(tmp_path / "a.params"))
    net.set_nms(0.45, 200)
    net.collect_params().reset_ctx(ctx=CTX)
    for path in sorted(voc.glob("VOC2007/JPEGImages/1*.jpg"))[:2]:
        x, picture = gluoncv.data.transforms.presets.ssd.load_test(str(path), short=128)
        assert x.shape[2:] == picture.shape[:2] != (128, 128)
        ids, scores, boxes = [part[0].asnumpy() for part in net(x.as_in_context(CTX[0]))]
        assert (ids >= 0).any()
        assert np.isfinite(boxes).all()
        axes = gluoncv.utils.viz.plot_bbox(
            picture, boxes, scores, ids, thresh=0.05, class_names=net.classes
        )
        axes.figure.savefig(tmp_path / "drawn.png")
        matplotlib.pyplot.close(axes.figure)


# --- Classification --------------------------------------------------------------------------

CLASSES = 3


def batches(count=2, size=64):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield nd.array(rng.normal(size=(4, 3, size, size))), nd.array(rng.integers(0, CLASSES, 4))


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *((CLASSIFIER, mode) for mode in ("plain", "mixup", "label smoothing", "teacher")),
        ("mobilenetv3_small_0.35", "plain"),
        ("mobilenetv2_0.35", "plain"),
    ],
)
def test_train_imagenet(gluoncv, name, mode, tmp_path):
    schedule = gluoncv.utils.LRSequential([
        gluoncv.utils.LRScheduler("linear", base_lr=0, target_lr=0.1, nepochs=1, iters_per_epoch=2),
        gluoncv.utils.LRScheduler("cosine", base_lr=0.1, target_lr=0, nepochs=1, iters_per_epoch=2),
    ])  # fmt: skip
    net = get_model(name, ctx=CTX, pretrained=False, classes=CLASSES)
    net.cast("float32")
    net.initialize(mx.init.MSRAPrelu(), ctx=CTX)
    for _, param in net.collect_params(".*beta|.*gamma|.*bias").items():
        param.wd_mult = 0.0
    decayed = [n for n, p in net.collect_params().items() if p.wd_mult and p.grad_req != "null"]
    assert all(name.endswith("weight") for name in decayed)
    sgd = {"wd": 1e-4, "momentum": 0.9, "lr_scheduler": schedule}
    trainer = gluon.Trainer(net.collect_params(), "nag", sgd)
    sparse = mode == "plain"
    loss = gluon.loss.SoftmaxCrossEntropyLoss(sparse_label=sparse)
    if mode == "teacher":
        teacher = get_model(CLASSIFIER, ctx=CTX, pretrained=False, classes=CLASSES)
        teacher.initialize(mx.init.MSRAPrelu(), ctx=CTX)
        teacher.cast("float32")
        teacher.hybridize(static_alloc=True, static_shape=True)
        loss = gluoncv.loss.DistillationSoftmaxCrossEntropyLoss(temperature=20, hard_weight=0.5,
                                                                sparse_label=False)  # fmt: skip
    net.hybridize(static_alloc=True, static_shape=True)
    metric = mx.metric.Accuracy() if sparse else mx.metric.RMSE()
    for x, label in batches():
        target = (
            label if sparse else nd.one_hot(label, CLASSES, 1 - 0.1 + 0.1 / CLASSES, 0.1 / CLASSES)
        )
        if mode == "mixup":
            x, target = (0.3 * part + 0.7 * part[::-1] for part in (x, target))
        extra = [nd.softmax(teacher(x) / 20)] if mode == "teacher" else []
        with autograd.record():
            outputs = net(x)
            value = loss(outputs, target, *extra)
        value.backward()
        trainer.step(4)
        metric.update([target], [outputs if sparse else nd.softmax(outputs)])
        assert np.isfinite(value.asnumpy()).all()
    # With static memory MXNet writes the running statistics after all that it lets others wait for.
    nd.waitall()
    net.save_parameters(str(tmp_path / "a.params"))
    trainer.save_states(str(tmp_path / "a.states"))
    resumed = get_model(name, ctx=CTX, pretrained=False, classes=CLASSES)
    resumed.cast("float32")
    resumed.load_parameters(str(tmp_path / "a.params"), ctx=CTX)
    twin = gluon.Trainer(resumed.collect_params(), "nag", {**sgd, "lr_scheduler": schedule})
    twin.load_states(str(tmp_path / "a.states"))
    x, _ = next(batches())
    assert_close(resumed(x), net(x), terms=NET)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    net = get_model(CLASSIFIER, classes=CLASSES)
    net.initialize(mx.init.MSRAPrelu())
    for x, _ in batches():
        with autograd.train_mode():
            net(x).wait_to_read()
    path = tmp_path_factory.mktemp("classifier") / "a.params"
    net.save_parameters(str(path))
    return net, str(path)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_verify_pretrained_from_a_file(classifier, dtype):
    trained, path = classifier
    net = get_model(CLASSIFIER, pretrained=False, classes=CLASSES)
    net.cast(dtype)
    net.load_parameters(path, ctx=CTX, cast_dtype=True)
    net.hybridize(static_alloc=True, static_shape=True)
    top1, top5 = mx.metric.Accuracy(), mx.metric.TopKAccuracy(2)
    right = 0
    for x, label in batches():
        outputs = [net(part.astype(dtype, copy=False)) for part in [x]]
        top1.update([label], outputs)
        top5.update([label], outputs)
        right += int((trained(x).asnumpy().argmax(1) == label.asnumpy()).sum())
    assert top1.get()[1] == right / 8
    assert top5.get()[1] >= top1.get()[1]


@pytest.mark.parametrize("shape", [None, (96, 96, 3)])
def test_export_and_verify_deployed(gluoncv, classifier, tmp_path, shape):
    trained, _ = classifier
    prefix = str(tmp_path / "deploy")
    gluoncv.utils.export_block(prefix, trained, data_shape=shape, preprocess=True, layout="HWC")
    net = gluon.SymbolBlock.imports(f"{prefix}-symbol.json", ["data"], f"{prefix}-0000.params")
    net.hybridize(static_alloc=True, static_shape=True)
    rgb = np.random.default_rng(0).integers(0, 256, (2, 64, 80, 3)).astype(np.float32)
    mean, deviation = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    x = nd.array(((rgb - mean) / deviation).transpose(0, 3, 1, 2))
    assert_close(net(nd.array(rgb)), trained(x), terms=NET)
