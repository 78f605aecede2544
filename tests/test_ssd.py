"""Detectors: anchors, names, the net and its weights, against slow loops and GluonCV."""

import importlib
import itertools
import math

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import ClassifierCard
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.evaluation.voc_ap import VOCEvaluator
from gluon_asymmnet.models.ssd import SSD
from gluon_asymmnet.models.ssd_spec import (
    DETECTORS,
    DetectorSpec,
    anchors,
    list_detectors,
    parse_detector,
    plan_detector,
)
from gluon_asymmnet.train.checkpoint import net_arrays
from gluon_asymmnet.train.ssd_loss import MultiBoxLoss
from gluon_asymmnet.weights.load import load_exact
from gluon_asymmnet.zoo import get_classifier, get_model
from tests.conftest import thorough_but
from tests.floats import NET, assert_close
from tests.test_ssd_targets import decoded, slow_overlap

nd = mx.nd
CLASSES = ["cat", "dog", "fish"]
SMALL, LITE = "ssd_300_asymmnet_small_0.35_custom", "ssdlite_300_asymmnet_small_0.35_custom"


def detector(name=SMALL, seed=1, **settings):
    net = get_model(name, **{"classes": CLASSES, **settings})
    mx.random.seed(seed)
    net.initialize(mx.init.MSRAPrelu())
    return net


def settled(name=SMALL):
    """A detector whose running statistics are those of ``pictures()``, so that values are not
    all near zero in inference."""
    net = detector(name, norm_kwargs={"momentum": 0.0})
    with mx.autograd.record():
        total = sum(v.sum() for v in net(pictures()))
    total.backward()  # which is when MXNet's batch normalisation takes its statistics over
    return net


def pictures(count=2, size=300, seed=0):
    return nd.array(np.random.default_rng(seed).normal(size=(count, 3, size, size)))


# --- Anchors and names -----------------------------------------------------------------------


@pytest.mark.parametrize("name", DETECTORS)
def test_anchors_cover_the_picture(name):
    spec = DETECTORS[name]
    maps, boxes = plan_detector(spec), anchors(spec)
    sides = [plan.side for plan in maps]
    assert sides == {300: [38, 19, 10, 5, 3, 2, 1], 320: [40, 20, 10, 5, 3, 2, 1],
                     512: [64, 32, 16, 8, 4, 2, 1]}[spec.size]  # fmt: skip
    assert all(plan.step * plan.side == pytest.approx(spec.size, rel=1e-12) for plan in maps)
    assert len(boxes) == sum(s * s * k for s, k in zip(sides, (4, 6, 6, 6, 6, 4, 4)))
    assert (boxes[:, :2] > 0).all()
    assert (boxes[:, :2] < spec.size).all()
    first = np.unique(
        boxes[: sides[0] ** 2 * 4, 0]
    )  # as far from the left border as from the right
    assert first[0] == pytest.approx(spec.size - first[-1], abs=1e-3)
    assert first[0] == pytest.approx(maps[0].step / 2)


@pytest.mark.parametrize("name", DETECTORS)
def test_maps_are_those_of_the_net(name):
    """The net's own shapes, at its size and at those of multi-scale training."""
    net = get_model(f"{name}_custom", classes=CLASSES)
    maps = mx.sym.Group(net.features(mx.sym.var("data")))
    size = net.spec.size
    for side in (size, size // 2, size * 2, size - 44):
        plans = plan_detector(net.spec._replace(size=side))
        _, shapes, _ = maps.infer_shape(data=(1, 3, side, side))
        assert shapes == [(1, plan.channels, plan.side, plan.side) for plan in plans]
        assert all(plan.step * plan.side == pytest.approx(side, rel=1e-12) for plan in plans)


def test_anchors_of_a_cell_by_hand():
    spec = DetectorSpec("asymmnet_small", 300)
    cell = anchors(spec)[:4]  # scales 0.07 and 0.15, ratios 1, 2, 1/2; step 300 / 38
    centre, side, between = 300 / 38 / 2, 21, math.sqrt(21 * 45)
    long, short = 21 * math.sqrt(2), 21 / math.sqrt(2)
    expected = [(side, side), (between, between), (long, short), (short, long)]
    assert_close(cell, [(centre, centre, *box) for box in expected], axes=())


def test_other_maps_are_a_valid_spec():
    spec = DetectorSpec(
        "asymmnet_small", maps=("c4", "squeeze"), width=0.35,
        scales=(0.1, 0.2, 0.375, 0.55, 0.725, 0.9, 1.05), ratios=((1, 2, 1 / 2),) * 6,
    )  # fmt: skip
    net = SSD(spec, get_classifier("asymmnet_small", width=0.35), CLASSES)
    net.initialize()
    assert net(pictures(1))[0].shape == (1, 100, 1)
    assert [plan.side for plan in net._maps] == [19, 10, 5, 3, 2, 1]
    with pytest.raises(
        InputError, match="7 maps take 8 scales and 7 tuples of ratios, got 7 and 6"
    ):
        plan_detector(spec._replace(maps=("c3", "c4", "squeeze")))
    with pytest.raises(InputError, match=r"has no maps \['c9'\]: choose from c2, c3"):
        plan_detector(spec._replace(maps=("c9",)))


def test_names():
    found = parse_detector("SSDLite_512_MobileNetV3_Large_0.75_voc")
    assert found.spec == DetectorSpec("mobilenetv3_large", 512, "ssdlite", 0.75, 0)
    assert found.dataset == "voc"
    assert parse_detector("ssd_300_asymmnet_large_w0.5_r2_custom").spec[2:5] == ("ssd", 0.5, 2)
    assert all(parse_detector(name) for name in list_detectors())
    assert get_model("ssd_300_asymmnet_small_0.35_voc").classes[-1] == "tvmonitor"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parse_detector("ssd_300_asymnet_large_voc"), "mean 'ssd_300_asymmnet_large_voc'"),
        (lambda: parse_detector("ssd_301_asymmnet_large_voc"), "300, 320, 512; asymmnet_large"),
        (lambda: get_model(SMALL), "needs the names of its classes"),
        (lambda: get_model("ssd_300_asymmnet_small_voc", classes=["a"]), "VOC's 20 classes"),
        (lambda: get_model(SMALL, classes=["a", "b", "a"]), "a is given more than once"),
        (lambda: get_model(SMALL, classes=[]), "at least one"),
        (lambda: get_model(SMALL, classes=CLASSES, pretrained=True), "no weights of .* published"),
        (
            lambda: get_model(SMALL, classes=CLASSES, pretrained_base="published"),
            "no published weights for asymmnet_small",
        ),
    ],
)
def test_what_cannot_be_built_says_why(call, message):
    with pytest.raises(InputError, match=message):
        call()


# --- The net ---------------------------------------------------------------------------------

KINDS = [
    f"{head}_300_{backbone}_0.35_custom"
    for head in ("ssd", "ssdlite")
    for backbone in ("asymmnet_small", "asymmnet_large", "mobilenetv3_small", "mobilenetv3_large")
]


@pytest.mark.parametrize("name", [*KINDS, "ssdlite_512_asymmnet_small_custom"])
def test_training_step_reaches_every_parameter(name):
    """With oneDNN on, and compiled, as training runs."""
    net = detector(name)
    net.hybridize(static_alloc=True, static_shape=True)
    x = pictures(3, net.spec.size)
    with mx.autograd.record():
        logits, offsets, boxes = net(x)
        targets = nd.array(np.random.default_rng(0).integers(0, 4, logits.shape[:2]))
        loss = sum(MultiBoxLoss()(logits, offsets, targets, nd.ones_like(offsets)))
    loss.backward()
    np.testing.assert_array_equal(boxes.asnumpy()[0], anchors(net.spec))
    assert logits.shape == (3, len(anchors(net.spec)), 4)
    still = [n for n, p in net.collect_params().items()
             if p.grad_req != "null" and not p.grad().asnumpy().any()]  # fmt: skip
    assert still == []
    assert np.isfinite(loss.asnumpy()).all()


@pytest.mark.parametrize("name", [SMALL, LITE])
def test_hybridized_equals_imperative_in_both_modes(name):
    """One compiled net goes from training to inference and back by itself."""
    net, x = settled(name), pictures()
    inferred = [v.asnumpy() for v in net(x)]
    with mx.autograd.train_mode():
        trained = [v.asnumpy() for v in net(x)]
    net.hybridize(static_alloc=True, static_shape=True)
    for _ in range(2):
        for plain, compiled in zip(inferred, net(x)):
            assert_close(compiled, plain, terms=NET)
        with mx.autograd.train_mode():
            for plain, compiled in zip(trained, net(x)):
                assert_close(compiled, plain, terms=NET)


def test_raw_heads_are_the_logits_and_offsets_decoded():
    net, x = settled(), pictures()
    with mx.autograd.predict_mode():
        logits, offsets = (v.asnumpy().astype(np.float64) for v in net.heads(nd, x))
    scores, boxes = (v.asnumpy() for v in net.raw()(x))
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    assert_close(scores, shares[..., 1:], terms=30)
    assert_close(boxes, decoded(offsets, anchors(net.spec)), terms=30)
    assert set(net.raw().collect_params()) == set(net.collect_params())


def slow_suppression(scores, boxes, threshold, top, kept):
    """One picture: every class on its own, from the highest score down."""
    rows = [(s, c, tuple(b)) for c in range(scores.shape[1])
            for s, b in zip(scores[:, c], boxes) if s > 0.01]  # fmt: skip
    rows = sorted(rows, key=lambda row: -row[0])[:top]
    left = []
    for score, label, box in rows:
        if all(c != label or slow_overlap(box, b) <= threshold for _, c, b in left):
            left.append((score, label, box))
    return left[:kept]


@pytest.mark.parametrize("nms", [(0.45, 400, 100), (0.3, 50, 5)])
def test_suppression_against_slow_loops(nms):
    net, x = settled(), pictures()
    net.set_nms(*nms)
    ids, scores, boxes = (v.asnumpy() for v in net(x))
    for number, (raw_scores, raw_boxes) in enumerate(zip(*(v.asnumpy() for v in net.raw()(x)))):
        expected = slow_suppression(raw_scores, raw_boxes, *nms)
        count = len(expected)
        assert (ids[number] >= 0).sum() == count
        assert_close(scores[number, :count, 0], [s for s, _, _ in expected])
        assert ids[number, :count, 0].tolist() == [c for _, c, _ in expected]
        assert_close(boxes[number, :count], [b for _, _, b in expected])
    net.set_nms(nms_thresh=-1)
    assert net(x)[0].shape == (2, 3 * len(anchors(net.spec)), 1)


@pytest.mark.parametrize("name", [SMALL, LITE])
@pytest.mark.parametrize("reuse", [["dog"], {"dog": "dog"}, {1: 1}, {"dog": 1}])
@pytest.mark.thorough
def test_reset_class(name, reuse):
    net, x = settled(name), pictures(1)
    net.hybridize()
    before = [v.asnumpy() for v in net.heads(nd, x)]
    net.reset_class(["bird", "dog"], reuse)
    assert (net.classes, net.num_classes) == (["bird", "dog"], 2)
    logits, offsets = (v.asnumpy() for v in net.heads(nd, x))
    assert_close(logits[..., [0, 2]], before[0][..., [0, 2]], terms=NET)
    assert_close(offsets, before[1], terms=NET)
    assert np.abs(logits[..., 1] - before[0][..., 1]).max() > 0.01  # "bird" is not "cat"
    assert set(net(x)[0].asnumpy().ravel()) <= {-1, 0, 1}
    names = list(net._collect_params_with_prefix())
    assert names == list(detector(name, classes=["bird", "dog"])._collect_params_with_prefix())


@pytest.mark.parametrize(
    ("reuse", "message"),
    [
        ({"dog": "cow"}, "'cow' is not one of the old classes: cat, dog, fish"),
        (["cat"], "'cat' is not one of the new classes: dog"),
        ({0: 3}, "3 is not one of the old classes"),
    ],
)
def test_reset_class_with_classes_that_are_not_there(reuse, message):
    net = detector()
    with pytest.raises(InputError, match=message):
        net.reset_class(["dog"], reuse)
    assert net.classes == CLASSES  # unchanged


def test_half_precision_and_other_norms():
    net = detector(norm_layer=mx.gluon.nn.GroupNorm, norm_kwargs={"num_groups": 4})
    kinds = {type(b).__name__ for b in _blocks(net)}
    assert "GroupNorm" in kinds
    assert "BatchNorm" not in kinds
    net.cast("float16")
    kinds = {n.rsplit(".", 1)[-1]: p.dtype for n, p in net._collect_params_with_prefix().items()}
    assert np.dtype(kinds.pop("anchors")) == np.float32  # a quarter pixel is too coarse
    assert {np.dtype(kind).name for kind in kinds.values()} == {"float16"}


def _blocks(block):
    for child in block._children.values():
        yield child
        yield from _blocks(child)


def test_added_layers_are_initialised_as_they_should():
    """MSRA: deviation sqrt(2 / fan); GluonCV's FeatureExpander leaves uniform 0.07 here."""
    net = get_model("ssd_300_asymmnet_small_voc")
    net.initialize()  # with Gluon's own default, uniform 0.07
    weight = net.features.extras[0].expand.conv.weight.data().asnumpy()
    fan = (weight.size / weight.shape[0] + weight.size / weight.shape[1]) / 2
    assert weight.std() == pytest.approx(math.sqrt(2 / fan), rel=0.05)


# --- GluonCV's parts on our net --------------------------------------------------------------


def test_gluoncvs_transform_loss_and_metric_run_on_it():
    from gluon_asymmnet._mxnet import gluoncv

    net = detector()
    with mx.autograd.train_mode():
        _, _, boxes_at = net(nd.zeros((1, 3, 300, 300)))
    presets = gluoncv.data.transforms.presets.ssd
    transform = presets.SSDDefaultTrainTransform(300, 300, boxes_at)
    rng = np.random.default_rng(0)
    rgb = nd.array(rng.integers(0, 256, (200, 260, 3)), dtype=np.uint8)
    label = np.array([[20.0, 30, 120, 150, 1], [100, 20, 200, 90, 2]])
    samples = [transform(rgb, label) for _ in range(2)]
    data, cls_target, box_target = (nd.stack(*column) for column in zip(*samples))
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01})
    loss = gluoncv.loss.SSDMultiBoxLoss()
    losses = []
    for _ in range(4):
        with mx.autograd.record():
            logits, offsets, _ = net(data)
            total, _, _ = loss(logits, offsets, cls_target, box_target)
        mx.autograd.backward(total)
        trainer.step(1)
        losses.append(float(total[0].sum().asscalar()))
    assert losses[-1] < losses[0]
    ids, scores, boxes = net(data)
    theirs = gluoncv.utils.metrics.voc_detection.VOC07MApMetric(class_names=CLASSES)
    ours = VOCEvaluator(CLASSES)
    truth = boxes[:, :2].asnumpy()  # the two best are right, the others wrong
    for number in range(2):
        args = (boxes[number].asnumpy(), ids[number].asnumpy(), scores[number].asnumpy())
        true_labels = ids[number, :2].asnumpy()
        theirs.update(*(a[None] for a in args), truth[number][None], true_labels[None])
        ours.add(number, *args, truth[number], true_labels)
    assert ours.result().mean_ap_11_point == pytest.approx(theirs.get()[1][-1], abs=1e-6)


def gluoncvs_generators(net):
    """GluonCV's anchor generators, with the sizes and the steps of our detector in pixels."""
    from gluon_asymmnet._mxnet import gluoncv

    spec, models = net.spec, importlib.import_module(f"{gluoncv.__name__}.model_zoo.ssd.anchor")
    for number, (plan, ratios) in enumerate(zip(net._maps, spec.ratios)):
        sizes = [scale * spec.size for scale in spec.scales[number : number + 2]]
        yield models.SSDAnchorGenerator(
            number, (spec.size, spec.size), sizes, ratios, plan.step, alloc_size=(50, 50)
        )


@pytest.mark.parametrize(
    ("shape", "compiled"),
    thorough_but(itertools.product([(320, 400), (64, 96), (300, 300)], [False, True]), 3),
)
def test_any_input_size_has_gluoncvs_anchors_and_boxes(shape, compiled):
    from gluon_asymmnet._mxnet import gluoncv

    net, x = settled(), nd.random.normal(shape=(2, 3, *shape))
    net.set_nms(nms_thresh=-1)  # all rows
    if compiled:
        net.hybridize()
    maps, parts = net.features(x), []
    for generator, feature_map in zip(gluoncvs_generators(net), maps):
        generator.initialize()
        parts.append(generator(feature_map))
    expected = nd.concat(*parts, dim=1)
    logits, offsets = net.heads(nd, x)
    with mx.autograd.train_mode():
        boxes_at = net(x)[2]
    assert boxes_at.shape == (1, logits.shape[1], 4)
    assert_close(boxes_at, expected, axes=())
    if shape == (300, 300):
        np.testing.assert_array_equal(boxes_at.asnumpy()[0], anchors(net.spec))
    ids, scores, boxes = net(x)
    coder = gluoncv.nn.coder
    corners = coder.NormalizedBoxCenterDecoder((0.1, 0.1, 0.2, 0.2))(offsets, expected)
    labels, shares = coder.MultiPerClassDecoder(4, thresh=0.01)(nd.softmax(logits, axis=-1))
    rows = (len(CLASSES), logits.shape[1])
    for number in range(2):
        for actual, theirs in ((ids, labels), (scores, shares)):
            assert_close(actual[number].reshape(rows), theirs[number].T, terms=NET)
        for part in boxes[number].reshape((*rows, 4)):
            assert_close(part, corners[number], terms=NET)


@pytest.mark.filterwarnings("ignore:Cannot decide type")  # of the input
def test_graph_traced_without_a_size_takes_any_and_computes_the_same_at_its_own():
    net = settled()
    block = mx.gluon.SymbolBlock(mx.sym.Group(net(mx.sym.var("data"))), mx.sym.var("data"),
                                 params=net.collect_params())  # fmt: skip
    for shape in ((300, 300), (96, 64)):
        x = nd.random.normal(shape=(1, 3, *shape))
        for actual, expected in zip(block(x), net(x)):
            np.testing.assert_array_equal(actual.asnumpy(), expected.asnumpy())


def test_a_backbone_without_published_weights_starts_from_random_ones_and_says_so():
    with pytest.warns(UserWarning, match="no weights of the backbone asymmnet_small_w0.35_r1 are"):
        net = get_model(SMALL, classes=CLASSES, pretrained_base=True)
    assert net(pictures(1, 64))[0].shape == (1, 100, 1)  # initialised, as with weights


@pytest.mark.parametrize("given", [{"use_global_stats": True},
                                   {"norm_kwargs": {"use_global_stats": True}}])  # fmt: skip
@pytest.mark.parametrize("name", [SMALL, "asymmnet_small_0.35"])
def test_global_statistics_in_training(name, given):
    if name == SMALL:
        given = {**given, "classes": CLASSES}
    net, x = get_model(name, **given), pictures(2, 64)
    net.initialize(mx.init.MSRAPrelu())
    before = net_arrays(net)
    with mx.autograd.train_mode():
        first = net.features(x)
    net.hybridize()
    with mx.autograd.record():
        sum(v.sum() for v in net(x)).backward()
    changed = [n for n, v in net_arrays(net).items() if not np.array_equal(v, before[n])]
    assert changed == []  # no statistic moved
    if name == SMALL:
        with mx.autograd.predict_mode():
            for trained, inferred in zip(first, net.features(x)):
                assert_close(trained, inferred, terms=NET)


def test_a_norm_without_global_statistics_refuses_them():
    with pytest.raises(InputError, match="GroupNorm has no use_global_stats: it takes num_groups"):
        get_model("asymmnet_small", norm_layer=mx.gluon.nn.GroupNorm, use_global_stats=True)


# --- Weights ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier of other classes, as a file and as the directory of its run."""
    folder = tmp_path_factory.mktemp("run")
    net = get_classifier("asymmnet_small", width=0.35, classes=7)
    net.initialize(mx.init.MSRAPrelu())
    net.save_parameters(str(folder / "best.params"))
    ClassifierCard(model="asymmnet_small", width=0.35, classes=7).save(folder / "card.json")
    return net, folder


@pytest.mark.parametrize("where", ["best.params", "."])
def test_backbone_from_a_classifier(classifier, where):
    theirs, folder = classifier
    net = get_model(SMALL, classes=CLASSES, pretrained_base=str(folder / where))
    x = pictures(1, 64)
    for mine, other in zip(net.features.backbone(x), theirs.feature_maps("c3", "c4", "squeeze")(x)):
        np.testing.assert_array_equal(mine.asnumpy(), other.asnumpy())
    assert net(pictures(1))[0].shape == (1, 100, 1)  # the added layers are initialised, too


def test_backbone_of_another_classifier_is_refused(classifier):
    _, folder = classifier
    with pytest.raises(InputError, match=r"is a run of asymmnet_small_w0.35_r1 .* asymmnet_l"):
        get_model("ssd_300_asymmnet_large_voc", pretrained_base=str(folder))
    with pytest.raises(FormatError, match="does not fit the net"):
        get_model("ssd_300_asymmnet_small_voc", pretrained_base=str(folder / "best.params"))


def test_weights_go_through_a_file_between_sizes(tmp_path):
    """Anchors follow from the spec; a file of another size has all the rest."""
    net = detector("ssd_300_asymmnet_small_0.35_custom")
    net.save_parameters(str(tmp_path / "a.params"))
    other = get_model("ssd_320_asymmnet_small_0.35_custom", classes=CLASSES,
                      pretrained=str(tmp_path / "a.params"))  # fmt: skip
    a, b = net_arrays(net), net_arrays(other)
    assert all(np.array_equal(a[n], b[n]) for n in a if n != "anchors")
    assert len(b["anchors"][0]) == len(anchors(other.spec))
    with pytest.raises(FormatError, match="wrongly shaped: class_predictors"):
        load_exact(detector(classes=["one"]), tmp_path / "a.params")
