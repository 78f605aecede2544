"""A teacher beside the labels: the loss, and every kind of teacher."""

import dataclasses

import numpy as np
import pytest

from gluon_asymmnet._mxnet import gluoncv, mx
from gluon_asymmnet.card import read_card
from gluon_asymmnet.data.transforms import Normalization
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.export.onnx.export import export_onnx
from gluon_asymmnet.export.openvino import export_openvino
from gluon_asymmnet.predict import Predictor, choose_engine
from gluon_asymmnet.saved import open_saved
from gluon_asymmnet.train import checkpoint
from gluon_asymmnet.train.classifier import FP16_LOSS_SCALE, ClassifierTask
from gluon_asymmnet.train.distillation import Distillation, Teacher, _classes
from gluon_asymmnet.weights.params_file import read_params, write_params
from gluon_asymmnet.zoo import get_model
from tests.conftest import GREY
from tests.digits_runs import config, one_batch
from tests.floats import NET, assert_close

TEACHERS = Normalization(*GREY)
DIGITS = list("0123456789")


def softmax(logits):
    spread = np.exp(logits - logits.max(axis=1, keepdims=True))
    return spread / spread.sum(axis=1, keepdims=True)


def distillation(temperature, hard_weight, teacher=None):
    return Distillation(teacher, temperature, hard_weight, Normalization())


@pytest.mark.parametrize(("temperature", "hard_weight"), [(20, 0.5), (3, 0.1), (1, 0.7), (4, 0)])
def test_loss_and_gradient_are_gluoncvs_and_the_papers(temperature, hard_weight):
    rng = np.random.default_rng(0)
    logits, hints = rng.normal(0, 4, (2, 6, 10)).astype(np.float32)
    target = np.full((6, 10), 0.01, np.float32)
    target[np.arange(6), rng.integers(0, 10, 6)] = 0.91
    soft = mx.nd.softmax(mx.nd.array(hints) / temperature)
    student = mx.nd.array(logits)
    student.attach_grad()
    with mx.autograd.record():
        loss = distillation(temperature, hard_weight).loss(student, mx.nd.array(target), soft)
    loss.backward()
    theirs = gluoncv.loss.DistillationSoftmaxCrossEntropyLoss(
        temperature=temperature, hard_weight=hard_weight, sparse_label=False
    )(mx.nd.array(logits), mx.nd.array(target), soft)
    assert_close(loss, theirs, terms=100)
    # arXiv:1503.02531, equation 2: dC/dz = (q - p) / T, times T**2; and the labels' q - y
    p, q = softmax(hints / temperature), softmax(logits / temperature)
    expected = (1 - hard_weight) * temperature * (q - p)
    expected += hard_weight * (softmax(logits) - target)
    # of terms T q and T p, which nearly cancel; exp magnifies the rounding of its argument by it
    assert_close(
        student.grad, expected, terms=30, scale=temperature * q.max(),
        condition=1 + np.abs(logits).max() / temperature,
    )  # fmt: skip


def test_soft_targets_by_hand():
    """exp(4 ln 3 / 4) is 3: a quarter and three quarters."""
    logits = mx.nd.array([[0, 4 * np.log(3)]])
    teacher = Teacher(lambda images: logits, 2, None, 8, Normalization())
    found = distillation(4, 0.5, teacher).soft_target(mx.nd.zeros((1, 3, 8, 8)))
    assert_close(found, [[0.25, 0.75]], terms=2)


def test_a_teacher_gets_its_own_normalisation_and_size():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.float32)
    seen = []

    def predict(images):
        seen.append(images.asnumpy())
        return images

    def asked(size, normalization):
        images = mx.nd.array(np.stack([TEACHERS(rgb) for rgb in pixels]))
        Teacher(predict, 1, None, size, normalization)(images, TEACHERS)
        return seen[-1]

    expected = np.stack([Normalization()(rgb) for rgb in pixels])
    assert_close(asked(8, Normalization()), expected, terms=4)
    same = np.stack([TEACHERS(rgb) for rgb in pixels])
    np.testing.assert_array_equal(asked(8, TEACHERS), same)  # nothing to do
    larger = asked(15, TEACHERS)  # corners on corners: every second pixel is a given one
    assert_close(larger[:, :, ::2, ::2], same, terms=4)
    between = (same[:, :, :, :-1] + same[:, :, :, 1:]) / 2
    assert_close(larger[:, :, ::2, 1::2], between, terms=4)


def task_of(digits, teacher, **changes):
    settings = {"batch_size": 8, "dropout": 0.0, "teacher": str(teacher), **changes}
    return ClassifierTask(config(digits, **settings), [mx.cpu()])


def probabilities(predictor, batch, temperature):
    """By another way: back to pixels and on to the teacher's input, with its predictor."""
    student = Normalization()
    pixels = batch.data * np.reshape(student.std, (3, 1, 1)) + np.reshape(student.mean, (3, 1, 1))
    images = (pixels - np.reshape(TEACHERS.mean, (3, 1, 1))) / np.reshape(TEACHERS.std, (3, 1, 1))
    size = predictor.card.input_size
    images = mx.nd.contrib.BilinearResize2D(mx.nd.array(images), height=size, width=size)
    return softmax(predictor.predict(images.asnumpy()).astype(np.float64) / temperature)


@pytest.mark.thorough
def test_a_run_directory_teaches(digits, teacher_run):
    task = task_of(digits, teacher_run, temperature=4.0)
    batch = one_batch(digits)
    soft = task._distillation.soft_target(mx.nd.array(batch.data)).asnumpy()
    expected = probabilities(Predictor(teacher_run, "mxnet"), batch, 4)
    assert_close(soft, expected, terms=NET)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.thorough
def test_an_exported_file_teaches_as_its_network_does(digits, teacher_run, tmp_path, engine):
    export, suffix = {
        "onnxruntime": (export_onnx, ".onnx"),
        "openvino": (export_openvino, ".xml"),
    }[engine]
    file = next(export(open_saved(teacher_run), tmp_path / "out").glob(f"*{suffix}"))
    assert choose_engine(file) == (engine, file)
    task = task_of(digits, file, temperature=4.0)
    batch = one_batch(digits)
    soft = task._distillation.soft_target(mx.nd.array(batch.data)).asnumpy()
    expected = probabilities(Predictor(teacher_run, "mxnet"), batch, 4)
    assert_close(soft, expected, terms=NET)
    assert np.isfinite(task.step(batch, 0, np.random.default_rng(0)).asnumpy()).all()


@pytest.mark.parametrize("temperature", [4.0, 20.0, 100.0])
@pytest.mark.thorough
def test_half_precision_does_not_overflow_at_any_temperature(digits, teacher_run, temperature):
    """20 squared times a loss of 2 times the loss scale 128 is above 65,504."""
    task = task_of(digits, teacher_run, temperature=temperature)
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (8, 10)).astype(np.float16)
    target, soft = (mx.nd.softmax(mx.nd.array(rng.normal(0, 2, (8, 10)))) for _ in range(2))

    def loss_and_gradient(dtype):
        student = mx.nd.array(logits, dtype=dtype)
        student.attach_grad()
        with mx.autograd.record():
            loss = task._loss(student, target, soft) * FP16_LOSS_SCALE
        loss.backward()
        return loss.asnumpy(), student.grad.asnumpy()

    half, single = loss_and_gradient("float16"), loss_and_gradient("float32")
    assert_close(half[0], single[0])
    assert_close(half[1], single[1], precision="float16")


def test_a_gluoncv_model_teaches(digits, tmp_path):
    net = gluoncv.model_zoo.get_model("mobilenet0.25", classes=10)
    net.initialize()
    images = mx.nd.array(one_batch(digits).data)
    expected = mx.nd.softmax(net(images) / 20).asnumpy()
    net.save_parameters(str(tmp_path / "teacher.params"))
    task = task_of(digits, "mobilenet0.25", teacher_params=str(tmp_path / "teacher.params"))
    assert_close(task._distillation.soft_target(images), expected, terms=NET)


def test_the_loss_of_a_step_is_that_of_the_mixed_images(digits, teacher_run):
    """The teacher sees what the student sees: the batch after CutMix."""
    task = task_of(digits, teacher_run, cutmix=1.0, temperature=4.0, hard_weight=0.3)
    batch, rng = one_batch(digits), np.random.default_rng(1)
    mix = task._sample_mixup(0, np.random.default_rng(1))
    assert mix.box.area > 0
    images = mix.images(mx.nd.array(batch.data))
    with mx.autograd.train_mode():
        logits = task.net(images).asnumpy().astype(np.float64)
    target = np.full((8, 10), 0.01)
    target[np.arange(8), batch.label.astype(int)] = 0.91
    target = mix.share * target + (1 - mix.share) * target[::-1]
    soft = probabilities(Predictor(teacher_run), batch._replace(data=images.asnumpy()), 4)
    hard_loss = -(target * np.log(softmax(logits))).sum()
    soft_loss = -(soft * np.log(softmax(logits / 4))).sum()
    loss, _ = task.step(batch, 0, rng).asnumpy()
    assert loss == pytest.approx(0.7 * 16 * soft_loss + 0.3 * hard_loss, rel=1e-3)


def test_a_teacher_stays_as_it_is(digits, teacher_run):
    task = task_of(digits, teacher_run)
    net = task._distillation.teacher.predict
    before = checkpoint.net_arrays(net)
    task.step(one_batch(digits), 0, np.random.default_rng(0)).wait_to_read()
    after = checkpoint.net_arrays(net)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    ours = {id(param) for param in task.net.collect_params().values()}
    assert not ours & {id(param) for param in net.collect_params().values()}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"teacher": "/nowhere/run"}, InputError, "no such file or folder, and no model of"),
        ({"teacher": "resnet50_v9"}, InputError, "--teacher resnet50_v9: no such file or folder"),
        ({"teacher_params": "x.params"}, InputError, "goes with the name of a GluonCV model"),
        ({"teacher": "mobilenet0.25", "teacher_params": "/nowhere/a.params"},
         FileNotFoundError, "/nowhere/a.params"),
        ({"teacher": "ssd_512_mobilenet1.0_voc", "teacher_params": "x"}, InputError,
         "GluonCV cannot give it|no classifier of images|takes no images"),
        ({"teacher": "alexnet", "teacher_params": "x"}, InputError,
         r"alexnet takes no images of 32 pixels: .*kernel size \(3\) exceeds input"),
    ],
)  # fmt: skip
def test_what_cannot_teach_says_why(digits, teacher_run, changes, error, message):
    with pytest.raises(error, match=message):
        task_of(digits, **{"teacher": teacher_run, **changes})


@pytest.mark.parametrize("net", [lambda x: x, lambda x: [x, x]])
def test_what_gives_no_logits_is_no_classifier(net):
    with pytest.raises(InputError, match="--teacher net is not a classifier of images"):
        _classes(net, "net", 8, mx.cpu())


def test_classes_must_be_the_same(digits, teacher_run, tmp_path):
    card = read_card(teacher_run / "card.json")
    weights = read_params(teacher_run / "best.params")
    (bias,) = (name for name, array in weights.items() if "output" in name and array.shape == (10,))
    weights[bias] = np.arange(10, dtype=np.float32)  # its own are nearly equal after few steps
    batch = mx.nd.array(one_batch(digits).data)
    tasks = []
    for folder, names in ((tmp_path / "theirs", DIGITS), (tmp_path, DIGITS[::-1])):
        folder.mkdir(exist_ok=True)
        write_params(folder / "best.params", weights)
        dataclasses.replace(card, class_names=names).save(folder / "card.json")
        tasks.append(task_of(digits, folder, temperature=1.0))
    theirs, found = (task._distillation.soft_target(batch).asnumpy() for task in tasks)
    assert_close(found, theirs[:, ::-1], terms=10)  # by name, not by place; a sum of 10
    assert np.abs(theirs - theirs[:, ::-1]).max() > 0.1
    matched = tasks[1]
    assert "--teacher: classes matched by name" in matched.data_line
    dataclasses.replace(card, class_names=[*DIGITS[:9], "nine"]).save(tmp_path / "card.json")
    with pytest.raises(
        InputError, match=r"only in the training set: '9'; only in --teacher .*'nine'"
    ):
        task_of(digits, tmp_path)
    net = get_model("asymmnet_small", width=0.35, classes=4)
    net.initialize()
    write_params(tmp_path / "best.params", checkpoint.net_arrays(net))
    dataclasses.replace(card, classes=4, class_names=None).save(tmp_path / "card.json")
    with pytest.raises(InputError, match="has 4 classes, the training set 10"):
        task_of(digits, tmp_path)
