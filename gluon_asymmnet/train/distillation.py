"""Distillation: a teacher network's probabilities as targets, besides the labels.

Source: Hinton et al. 2015, arXiv:1503.02531, in the form of GluonCV's
``DistillationSoftmaxCrossEntropyLoss``, whose ``temperature`` and ``hard_weight`` these are.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Callable, NamedTuple, Optional

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.data.class_names import match_classes
from gluon_asymmnet.data.transforms import Normalization
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.predict import Predictor, choose_engine
from gluon_asymmnet.weights.load import load_exact


class Teacher(NamedTuple):
    """A trained network with its classes, input size and normalisation."""

    predict: Callable  # (n, 3, size, size) float32 array of MXNet to (n, classes) logits of it
    classes: int
    class_names: Optional[Sequence[str]]
    size: int  # height and width of its input, pixels
    normalization: Normalization

    def __call__(self, images, student: Normalization):
        """Return logits for a batch of the student: augmented, mixed and normalised.

        The images are converted to the teacher's normalisation, which is exact for mixed images,
        too, and resized to its input size by bilinear interpolation.

        Args:
            images: ``(n, 3, H, H)`` array of MXNet.
        """
        images = images.astype("float32", copy=False)
        if student != self.normalization:
            images = _renormalize(images, student, self.normalization)
        if images.shape[2] != self.size:
            images = mx.nd.contrib.BilinearResize2D(images, height=self.size, width=self.size)
        return self.predict(images)


class Distillation:
    """The loss of a student.

    Args:
        teacher: the trained network.
        temperature: divides the logits of both; its square scales the loss back.
        hard_weight: weight of the labels in the loss, at least 0 and below 1.
        student: the normalisation of the student's images.
        remark: how the classes of both were matched, for the log.
    """

    def __init__(
        self, teacher: Teacher, temperature: float, hard_weight: float, student: Normalization,
        remark: str = "",
    ):  # fmt: skip
        self.teacher, self.student, self.remark = teacher, student, remark
        self.temperature, self.hard_weight = temperature, hard_weight
        self._entropy = mx.gluon.loss.SoftmaxCrossEntropyLoss(sparse_label=False)

    def soft_target(self, images):
        """Return the teacher's probabilities, ``(n, classes)`` float32, at the temperature."""
        return mx.nd.softmax(self.teacher(images, self.student) / self.temperature)

    def loss(self, logits, target, soft_target):
        """Return ``(n,)``; ``target`` and ``soft_target`` are ``(n, classes)`` probabilities."""
        soft = self._entropy(logits / self.temperature, soft_target)
        hard = self._entropy(logits, target)
        return (1 - self.hard_weight) * self.temperature**2 * soft + self.hard_weight * hard


def make_distillation(config, classes: int, class_names, devices) -> Optional[Distillation]:
    """Return the distillation that ``config``, a ``ClassifierConfig``, requests, or None.

    Raises: InputError, FormatError, FileNotFoundError if the teacher cannot be read or has
        other classes.
    """
    if not config.teacher:
        return None
    student = Normalization(config.rgb_mean, config.rgb_std)
    if Path(config.teacher).exists():
        if config.teacher_params:
            raise InputError("--teacher-params goes with the name of a GluonCV model")
        teacher = open_teacher(config.teacher, devices, config.threads)
    else:
        teacher = gluoncv_teacher(
            config.teacher, config.teacher_params, classes, config.input_size, devices
        )
    columns, remark = list(range(teacher.classes)), "classes matched by name"
    if teacher.class_names and class_names:
        columns = match_classes(
            class_names, teacher.class_names, "the training set", f"--teacher {config.teacher}"
        )
    elif teacher.classes == classes:
        remark = "classes matched by number: one side has no class names"
    else:
        raise InputError(
            f"--teacher {config.teacher} has {teacher.classes} classes, the training set {classes}"
        )
    if columns != list(range(teacher.classes)):
        teacher = teacher._replace(predict=_columns_of(teacher.predict, columns))
    return Distillation(
        teacher, config.temperature, config.hard_weight, student, f"--teacher: {remark}"
    )


def _columns_of(predict: Callable, columns: Sequence[int]) -> Callable:
    """Return ``predict`` with the logits of some classes, in the order of ``columns``."""

    def chosen(images):
        logits = predict(images)
        return mx.nd.take(logits, mx.nd.array(columns, ctx=logits.context), axis=1)

    return chosen


def open_teacher(path, devices, threads: int = 0) -> Teacher:
    """Open a run directory, an exported folder or a file of it as ``predict`` does.

    A network that MXNet runs goes to the training devices, others stay on the CPU.
    """
    engine, _ = choose_engine(path)  # not the fastest: a resumed run must have the same one
    predictor = Predictor(path, engine, threads=threads)
    card = predictor.card
    if predictor.engine == "mxnet":
        predict = predictor.net
        predict.collect_params().reset_ctx(devices)
    else:

        def predict(images):
            return mx.nd.array(predictor.predict(images.asnumpy()), ctx=images.context)

    normalization = Normalization(card.rgb_mean, card.rgb_std)
    return Teacher(predict, card.classes, card.class_names, card.input_size, normalization)


def gluoncv_teacher(name: str, params: str, classes: int, size: int, devices) -> Teacher:
    """Build a model of GluonCV's zoo.

    It gets images of the student's ``size``, in the normalisation of GluonCV's training script.

    Args:
        params: its weights; empty: those of ImageNet's 1,000 classes, which GluonCV downloads.
    """
    from gluon_asymmnet._mxnet import gluoncv

    zoo = gluoncv.model_zoo.model_zoo
    if name.lower() not in zoo.get_model_list():
        raise InputError(
            f"--teacher {name}: no such file or folder, and no model of GluonCV; e.g. resnet50_v1"
        )
    try:
        net = zoo.get_model(name, **({"classes": classes} if params else {"pretrained": True}))
    except Exception as error:  # of a download or a constructor: they share no base class
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"--teacher {name}: GluonCV cannot give it: {reason}; give --teacher-params"
        ) from None
    if params:
        net.initialize(ctx=devices)
    net.collect_params().reset_ctx(devices)
    found = _classes(net, name, size, devices[0])
    if params:
        load_exact(net, params)
    net.hybridize(static_alloc=True, static_shape=True)
    return Teacher(net, found, None, size, Normalization())


def _classes(net, name: str, size: int, device) -> int:
    """Return the number of classes from one forward pass, which also infers the shapes."""
    try:
        logits = net(mx.nd.zeros((1, 3, size, size), ctx=device))
    except (mx.base.MXNetError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"--teacher {name} takes no images of {size} pixels: {reason}") from None
    if not isinstance(logits, mx.nd.NDArray) or logits.ndim != 2:
        raise InputError(f"--teacher {name} is not a classifier of images")
    return logits.shape[1]


def _renormalize(images, old: Normalization, new: Normalization):
    """Return images normalised by ``new`` instead of ``old``."""
    old_mean, old_std, new_mean, new_std = (np.float64(v) for v in (*old, *new))

    def spread(values):
        return mx.nd.array(values.reshape(1, 3, 1, 1), ctx=images.context)

    return mx.nd.broadcast_add(
        mx.nd.broadcast_mul(images, spread(old_std / new_std)),
        spread((old_mean - new_mean) / new_std),
    )
