"""Train an image classifier."""

import dataclasses
import functools
import time
from pathlib import Path

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import CLASSIFIER, ClassifierCard, card_beside
from gluon_asymmnet.data.bad_records import LeftOut, SkippedRecords
from gluon_asymmnet.data.class_names import common_classes, quote_names
from gluon_asymmnet.data.constants import IMAGENET_CLASSES
from gluon_asymmnet.data.datasets import DATASETS, open_dataset
from gluon_asymmnet.data.loader import RecordIterInput, Shard, ThreadedInput
from gluon_asymmnet.data.sources import check_labels, count_rotated, match_source, open_source
from gluon_asymmnet.data.transforms import Augmentation, Normalization
from gluon_asymmnet.distributed.workers import ALONE, Workers
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.evaluation.classification import evaluate_distributed
from gluon_asymmnet.models.build import build_classifier
from gluon_asymmnet.models.complexity import count_model
from gluon_asymmnet.models.registry import ModelSpec
from gluon_asymmnet.nn.depthwise import note_map_sizes
from gluon_asymmnet.nn.onednn import INFERENCE, TRAINING, set_graph_mode
from gluon_asymmnet.train import optimization as gradients
from gluon_asymmnet.train.checkpoint import load_states_file, load_trainer, set_updates
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.distillation import make_distillation
from gluon_asymmnet.train.finetune import describe_start, source_card
from gluon_asymmnet.train.loop import Result, run_in
from gluon_asymmnet.train.losses import checked_loss
from gluon_asymmnet.train.mixing import Mixup, make_mixing
from gluon_asymmnet.train.optimization import decay_rates, freeze_classifier
from gluon_asymmnet.train.run_directory import FREE_SETTINGS, settle
from gluon_asymmnet.train.task import Task, training_devices
from gluon_asymmnet.weights.load import find_weights, load_published, load_weights

SMOOTHING = 0.1  # fixed in the authors' train.py
_RESET = "--reset-output starts with a new classifier, for other classes"
FP16_LOSS_SCALE = 128  # keeps small gradients above half precision's smallest number


def train(config: ClassifierConfig, workers: Workers = ALONE, callbacks=()) -> Result:
    """Train with the settings of ``config``, or resume an interrupted run of the same settings.

    Args:
        workers: the processes that train together, from ``distributed.group``; each calls this.
        callbacks: as in ``session.run``.

    Raises:
        InputError: for data, weights or settings that do not fit together.
        RunError: if the loss is not finite.
    """
    path = Path(config.save_dir) / config.dataset / f"{config.model_name}_{config.tag_name}"
    config = settle(config, path)
    task = ClassifierTask(config, training_devices(range(config.num_gpus)), workers)
    if config.dry_run:
        return _dry_run(task, config)
    task.synchronize_workers()
    task.callbacks = callbacks
    return run_in(path, task)


class ClassifierTask(Task):
    """The training of an image classifier."""

    def __init__(self, config: ClassifierConfig, devices, workers: Workers = ALONE):
        super().__init__(config, devices, workers)
        self.own_images = config.batch_size * len(devices) * config.accumulate
        images_per_step = self.own_images * workers.world_size
        self.metric = "RMSE" if config.mixes else "accuracy"
        self._spec = ModelSpec.parse(
            config.model, width=config.width, rate=config.rate,
            shuffle_groups=config.shuffle_groups, stem=config.stem,
        )  # fmt: skip
        self._mixing = make_mixing(config)
        source, training = _checked_training_source(config)
        self.classes, self.class_names = training.classes, source.class_names
        self._validation = _validation_source(config)
        self.data = {"training set": training}
        if self._validation is not None:
            self._validation = match_source(
                self._validation, self.class_names, self.classes, "the training set"
            )
            self.data["validation set"] = check_labels(
                self._validation, self.classes, allowed=config.max_bad_records
            )
        images = config.num_training_samples or len(source)
        if images > len(source):
            raise InputError(
                f"--num-training-samples {images}: the training set has only {len(source)} images"
            )
        if images < images_per_step:
            times = f", {config.accumulate} times" if config.accumulate > 1 else ""
            raise InputError(
                f"a batch of {images_per_step} images ({config.batch_size} on each of "
                f"{len(devices) * workers.world_size} devices{times}) is larger than the training "
                f"set of {images}: lower --batch-size"
            )
        scale = images_per_step / config.lr_base_batch if config.lr_base_batch else 1
        self.peak_lr = config.lr * scale
        self.loss_scale = FP16_LOSS_SCALE if config.dtype == "float16" else 1
        self._entropy = checked_loss(config.loss)
        self._distillation = make_distillation(config, self.classes, self.class_names, devices)
        if self._distillation:
            training.remarks.append(self._distillation.remark)
        self._build(
            images_per_step=images_per_step, steps_per_epoch=images // images_per_step,
            first_epoch=config.resume_epoch, peak_lr=self.peak_lr,
            multi_precision=config.dtype == "float16",
        )  # fmt: skip
        if config.resume_states.endswith(".states"):
            load_states_file(config.resume_states, self.net, self.trainer, trust=config.trust)
        elif config.resume_states:
            load_trainer(config.resume_states, self.net, self.trainer)
        if config.resume_states:
            set_updates(self.trainer, self.first_step)
        self.skipped = SkippedRecords(config.max_bad_records)
        self._input = self._training_input(source)

    def _training_input(self, source):
        config = self.config
        settings = dict(
            steps=self.steps_per_epoch,
            augmentation=Augmentation(
                min_area=config.min_random_area, mirror=not config.no_mirror,
                jitter=config.jitter, pca_noise=config.pca_noise,
                operations=config.randaugment, magnitude=config.randaugment_magnitude,
                erasing=config.random_erasing, further=config.augmentation,
            ),
            normalization=Normalization(config.rgb_mean, config.rgb_std),
            seed=config.seed,
            threads=config.num_workers,
            shard=Shard(self.workers.rank, self.workers.world_size),
        )  # fmt: skip
        batch, size, together = self.own_images, config.input_size, self.workers.world_size > 1
        if together and config.data_backend == "mxnet":
            raise InputError(
                "--data-backend mxnet is for one process: ImageRecordIter cuts the records into "
                "parts of unequal size; several workers take opencv"
            )
        if config.data_backend == "mxnet":
            return RecordIterInput(
                config.rec_train, config.train_index, batch, size, new_labels=source.new_labels,
                **settings,
            )  # fmt: skip
        return ThreadedInput(
            source, batch, size, classes=self.classes, skipped=self.skipped, **settings
        )

    @functools.cached_property
    def card(self) -> ClassifierCard:
        """The model card, which evaluation and export of this run read."""
        config = self.config
        cost = count_model(self._spec, classes=self.classes, input_size=config.input_size)
        return ClassifierCard.of(
            self._spec, classes=self.classes, input_size=config.input_size,
            class_names=self.class_names,
            imports=list(config.imports) if self._spec.needs_own else None,
            crop_ratio=config.crop_ratio, rgb_mean=config.rgb_mean, rgb_std=config.rgb_std,
            parameters=cost.parameters, macs=cost.macs,
        )  # fmt: skip

    def describe(self) -> str:
        """Return the first line of the log."""
        config = self.config
        scaled = ""
        if config.lr_base_batch:
            scaled = (
                f" (= {config.lr:g} x {self.images_per_step} / {config.lr_base_batch}, "
                f"scaled by the global batch)"
            )
        together = f"{self.workers.world_size} workers of " if self.workers.world_size > 1 else ""
        repeats = ""
        if config.data_backend == "mxnet":
            repeats = (
                "; --data-backend mxnet repeats its random crops and colours in every epoch and "
                "for every seed, opencv does not"
            )
        return (
            f"{config.model_name}: {self.classes} classes, {self.steps_per_epoch} steps of "
            f"{self.images_per_step} images per epoch on {together}{len(self.devices)} "
            f"{self.devices[0].device_type}(s), peak lr {self.peak_lr:g}{scaled}{repeats}"
        )

    def synchronize_workers(self) -> None:
        """Check that all workers have the same data and settings; copy worker 0's weights to all.

        Raises: InputError if they differ.
        """
        settings = dataclasses.asdict(self.config)
        decisive = {k: v for k, v in settings.items() if k not in FREE_SETTINGS}
        self.workers.check_same("task", {**self.fingerprints, **decisive})
        self.workers.share_parameters(self.net)

    def step(self, batch, epoch: int, rng: np.random.Generator):
        """Do one update; return the sums of loss and metric, as ``Task.step``."""
        config, outputs = self.config, []
        for images, labels in self._passes(batch):
            mixup = self._sample_mixup(epoch, rng)
            inputs = [
                self._with_targets(mixup, image, label)
                for image, label in zip(self._split(images), self._split(labels))
            ]
            losses = []
            with mx.autograd.record():
                for image, label, target, soft_target in inputs:
                    logits = self.net(image.astype(config.dtype, copy=False))
                    loss = self._loss(logits, target, soft_target)
                    losses.append(loss * self.loss_scale)
                    outputs.append((logits, label, target, loss))
            mx.autograd.backward(losses)
        scale = self.images_per_step * self.loss_scale
        self.trainer.allreduce_grads()  # over this worker's devices
        self.workers.sum_gradients(self.trainer)
        if config.clip_norm:
            gradients.clip_norm(self.trainer, config.clip_norm * scale)
        self.trainer.update(scale)
        if config.accumulate > 1:
            gradients.clear(self.net)
        return self._sums(outputs)

    def _passes(self, batch):
        """Yield the images and labels of each forward and backward pass of a step."""
        length = self.own_images // self.config.accumulate
        for first in range(0, self.own_images, length):
            yield batch.data[first : first + length], batch.label[first : first + length]

    def _split(self, array) -> list:
        """Return the part of each device."""
        return mx.gluon.utils.split_and_load(mx.nd.array(array), self.devices)

    def _sample_mixup(self, epoch: int, rng: np.random.Generator) -> Mixup:
        if epoch >= self.config.num_epochs - self.config.mixup_off_epoch:
            return Mixup()
        return self._mixing.sample(self.config.input_size, rng)

    def _with_targets(self, mixup: Mixup, image, label) -> tuple:
        """Return mixed images, labels, target and the teacher's soft target, or None."""
        image = mixup.images(image)
        soft_target = self._distillation.soft_target(image) if self._distillation else None
        return image, label, mixup.labels(self._target(label)), soft_target

    def _target(self, label):
        """Return ``(N, classes)`` probabilities, smoothed."""
        eta = SMOOTHING if self.config.label_smoothing else 0
        low = eta / self.classes
        return label.one_hot(self.classes, on_value=1 - eta + low, off_value=low)

    def _loss(self, logits, target, soft_target):
        # In float16 the loss times the squared temperature and the loss scale overflows.
        logits = logits.astype("float32", copy=False)
        if soft_target is None:
            return self._entropy(logits, target)
        return self._distillation.loss(logits, target, soft_target)

    def _sums(self, outputs):
        pairs = []
        for logits, label, target, loss in outputs:
            if self.config.mixes:
                error = mx.nd.softmax(logits.astype("float32")) - target
                metric = mx.nd.sqrt(mx.nd.mean(error**2)) * len(label)
            else:
                metric = (logits.argmax(axis=1) == label).sum()
            pair = mx.nd.stack(loss.astype("float32").sum(), metric.astype("float32").sum())
            pairs.append(pair.reshape(2).as_in_context(self.devices[0]))
        return mx.nd.add_n(*pairs)

    def _evaluate(self, epoch, left_out: LeftOut) -> dict[str, float]:
        metrics, self.left_out = evaluate_distributed(
            self.workers, self._predict, self._validation, classes=self.classes,
            preprocessing=self.card.preprocessing, batch_size=self.config.batch_size,
            threads=self.config.num_workers, left_out=left_out,
        )  # fmt: skip
        return metrics

    def _predict(self, images: np.ndarray) -> np.ndarray:
        batch = mx.nd.array(images, ctx=self.devices[0], dtype=self.config.dtype)
        return self._eval_net(batch).astype("float32").asnumpy()

    def _new_net(self):
        config = self.config
        net = build_classifier(
            self._spec, classes=self.classes, dropout=config.dropout,
            last_gamma=config.last_gamma, input_size=config.input_size,
        )  # fmt: skip
        net.cast(config.dtype)
        if config.mode == "hybrid":
            net.hybridize(static_alloc=True, static_shape=True)
        return net

    def _make_net(self):
        config, net = self.config, self._new_net()
        if self.devices[0].device_type == "cpu":
            set_graph_mode(net, TRAINING)
            note_map_sizes(net, (1, 3, config.input_size, config.input_size))
        net.initialize(mx.init.MSRAPrelu(), ctx=self.devices)
        if config.use_pretrained:
            load_published(net, skip_output=self.classes != IMAGENET_CLASSES)
        elif config.resume_params:
            try:
                load_weights(net, config.resume_params, skip_output=config.reset_output)
            except FormatError as error:
                if "output" in str(error) and not config.reset_output:
                    raise FormatError(f"{error}; {_RESET}") from None
                raise
        elif config.finetune:
            self.start_line = self._fine_tune(net)
        freeze_classifier(net, config.freeze_stages, norms=config.freeze_bn)
        if config.layer_decay < 1:
            decay_rates(net, config.layer_decay)
        if config.accumulate > 1:
            gradients.set_accumulation(net)
        return net

    def _fine_tune(self, net) -> str:
        """Load the weights of ``--finetune``, and return the line of the log about them."""
        weights = find_weights(self.config.finetune)
        card = source_card(self.config.finetune, CLASSIFIER)
        old_names = card.class_names if card else None
        rows = common_classes(self.class_names or (), old_names or ())
        load_weights(net, weights, skip_output=True, rows=rows)
        return describe_start(weights, self.class_names, old_names, rows)

    def _make_eval_net(self):
        net = self._new_net()
        if self.devices[0].device_type == "cpu":
            set_graph_mode(net, INFERENCE)
        return net


def _training_source(config: ClassifierConfig):
    if config.own_dataset:
        return open_dataset(config.dataset, "train")
    if config.reads_folders:
        return open_source(folder=str(Path(config.data_dir) / "train"))
    return open_source(
        rec=config.rec_train, idx=config.train_index, sample=not config.max_bad_records
    )


def _checked_training_source(config: ClassifierConfig) -> tuple:
    """Return the training set and its ``Contents``.

    Raises: InputError if the classes are not those of ``--dataset``, or of ``--resume-params``.
    """
    source, card = _training_source(config), None
    if config.data_backend == "mxnet" and (rotated := count_rotated(source)):
        source.remarks.append(
            f"{rotated} images looked at have an EXIF rotation, which ImageRecordIter ignores and "
            f"validation applies: use --data-backend opencv, or pack the images again"
        )
    if config.resume_params and not config.reset_output:
        card = card_beside(config.resume_params, CLASSIFIER)
        if card is None:
            source.remarks.append("--resume-params: classes matched by number, no card beside it")
        else:
            source = match_source(
                source, card.class_names, card.classes, config.resume_params, _RESET, same=True
            )
    contents = check_labels(source, allowed=config.max_bad_records)
    row = DATASETS.find(config.dataset)
    expected = contents.classes if config.own_dataset else row.classes or contents.classes
    if contents.classes != expected:
        names = f" ({quote_names(source.class_names)})" if source.class_names else ""
        raise InputError(
            f"--dataset {config.dataset} has {expected} classes, {source.path} has "
            f"{contents.classes}{names}: --dataset custom takes the classes of the data"
        )
    if card is not None and contents.classes != card.classes:
        raise InputError(
            f"{config.resume_params} has {card.classes} classes, {source.path} has "
            f"{contents.classes}; {_RESET}"
        )
    return source, contents


def _validation_source(config: ClassifierConfig):
    if config.own_dataset:
        return open_dataset(config.dataset, "val")
    if config.reads_folders:
        return open_source(folder=str(Path(config.data_dir) / "val"))
    if not config.rec_val:
        return None
    return open_source(rec=config.rec_val, idx=config.val_index, sample=not config.max_bad_records)


def _dry_run(task: ClassifierTask, config: ClassifierConfig) -> Result:
    size = config.input_size
    batch = mx.nd.random.normal(shape=(1, 3, size, size), ctx=task.devices[0], dtype=config.dtype)
    task.net(batch).wait_to_read()
    begun = time.perf_counter()
    for _ in range(config.dry_run):
        task.net(batch).wait_to_read()
    milliseconds = (time.perf_counter() - begun) * 1000 / config.dry_run
    print(f"speed: {milliseconds:.3f} ms per image, {config.dry_run} passes")
    return Result("", True, 0, None, None, "")
