"""Train a single-shot detector."""

import functools
from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import CARD_FILE
from gluon_asymmnet.data.bad_records import SkippedRecords
from gluon_asymmnet.data.boxes.loader import DetectionBatch, DetectionInput
from gluon_asymmnet.data.boxes.sources import open_boxes
from gluon_asymmnet.data.boxes.transforms import BoxAugmentation
from gluon_asymmnet.data.boxes.voc import VOC_CLASSES
from gluon_asymmnet.data.transforms import Normalization
from gluon_asymmnet.detector_card import DetectorCard
from gluon_asymmnet.distributed.workers import ALONE
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation.detection import detect, evaluate
from gluon_asymmnet.evaluation.detection_report import write_json
from gluon_asymmnet.evaluation.drawing import save_example
from gluon_asymmnet.models.ssd import SCORE_THRESHOLD
from gluon_asymmnet.models.ssd_spec import anchors
from gluon_asymmnet.train.detector_config import DetectorConfig
from gluon_asymmnet.train.ema import METRIC_PREFIX, make_average
from gluon_asymmnet.train.loop import Result, run
from gluon_asymmnet.train.optimization import (
    clip_norm,
    freeze,
    freeze_norms,
    make_schedule,
    stages_of,
)
from gluon_asymmnet.train.run_directory import RunDirectory
from gluon_asymmnet.train.ssd_loss import MultiBoxLoss
from gluon_asymmnet.train.ssd_targets import TargetGenerator
from gluon_asymmnet.utils.doctor import environment
from gluon_asymmnet.zoo import get_detector


def train(config: DetectorConfig) -> Result:
    """Train as ``config`` says, or go on where a run of the same config stopped.

    Raises:
        InputError: for data, weights or settings that do not fit together.
        RunError: if the loss is not finite.
    """
    path = Path(config.run_dir)
    task = DetectorTask(config, _devices(config.gpu_numbers), path)
    directory = RunDirectory(path, config, environment())
    try:
        task.card.save(path / CARD_FILE)
        task.skipped.log_to(path, directory.add_event)
        return run(task, config, directory, task.describe)
    finally:
        directory.close()


class DetectorTask:
    """The network, its data and its update, for ``loop.run``.

    Args:
        folder: where pictures and figures of validations go.
    """

    metric = "SmoothL1"

    def __init__(self, config: DetectorConfig, devices, folder):
        self.config, self.devices, self.folder = config, devices, Path(folder)
        self.workers = ALONE
        self.images_per_step = config.batch_size
        source, self._validation = _sources(config)
        self.class_names = list(source.class_names)
        self.steps_per_epoch = len(source) // config.batch_size
        if not self.steps_per_epoch or config.batch_size % len(devices):
            raise InputError(
                f"--batch-size {config.batch_size} must be a multiple of the {len(devices)} "
                f"device(s) and at most the {len(source)} training images"
            )
        self.first_step = config.start_epoch * self.steps_per_epoch
        self.schedule = make_schedule(config, self.steps_per_epoch, config.lr)
        self._normalization = Normalization(config.rgb_mean, config.rgb_std)
        self._loss = MultiBoxLoss(config.negative_ratio, config.min_negatives)
        self._loss.hybridize()
        self.net = self._make_net()
        self.skipped = SkippedRecords(
            config.max_bad_records, "find all of them with `asymmnet voc check`"
        )
        self._input = self._make_input(source)
        self.trainer = mx.gluon.Trainer(
            self.net.collect_params(), "sgd",
            {"wd": config.wd, "momentum": config.momentum, "learning_rate": self.schedule(1)},
            update_on_kvstore=False,
        )  # fmt: skip
        self.ema = make_average(self.net, config)
        self._judged = self._new_net()
        self._judged.initialize(ctx=devices[0])
        self._judged.hybridize(static_alloc=True, static_shape=True)

    @property
    def card(self) -> DetectorCard:
        """What an evaluation or an export of this run has to know."""
        config, net = self.config, self.net
        trained = (p for p in net.collect_params(".*weight|.*bias|.*gamma|.*beta").values())
        return DetectorCard(
            model=config.model, class_names=tuple(self.class_names), input_size=config.data_shape,
            nms_thresh=net.nms_thresh, nms_topk=net.nms_topk, post_nms=net.post_nms,
            least_score=SCORE_THRESHOLD, rgb_mean=config.rgb_mean, rgb_std=config.rgb_std,
            parameters=sum(int(np.prod(p.shape)) for p in trained),
        )  # fmt: skip

    def describe(self) -> str:
        """Return the first line of the log."""
        start = self.config.resume_params or self.config.pretrained_base or "random weights"
        sizes = ", ".join(map(str, self.config.training_sizes))
        return (
            f"{self.config.model}: {len(self.class_names)} classes, {self.steps_per_epoch} steps "
            f"of {self.images_per_step} images of {sizes} pixels per epoch on {len(self.devices)} "
            f"{self.devices[0].device_type}(s), peak lr {self.config.lr:g}, from {start}"
        )

    def batches(self, epoch: int, first_step: int):
        """Yield an epoch's batches from a step on."""
        return self._input.epoch(epoch, first_step)

    def step(self, batch: DetectionBatch, epoch: int, rng: np.random.Generator):
        """Do one update; return the sums of loss and of its part from the boxes, not waited for.

        The loss of a batch is divided by its matched anchors, which are counted here on the host:
        GluonCV's loss waits for the device to count them.
        """
        matched = max(1, int((batch.cls_target > 0).sum()))
        split = mx.gluon.utils.split_and_load
        parts = zip(*(split(mx.nd.array(array), self.devices) for array in batch))
        losses, sums = [], []
        with mx.autograd.record():
            for image, cls_target, box_target in parts:
                logits, offsets, _ = self.net(image)
                entropy, distance = self._loss(logits, offsets, cls_target, box_target)
                losses.append(entropy + distance)
                sums.append((losses[-1], distance))
        mx.autograd.backward(losses)
        self.trainer.allreduce_grads()
        if self.config.clip_norm:
            clip_norm(self.trainer, self.config.clip_norm * matched)
        self.trainer.update(matched)
        # the loop divides by the images of a step, and the loss is one of the whole batch
        scale = self.images_per_step / matched
        pairs = (mx.nd.stack(loss.sum(), part.sum()).reshape(2) for loss, part in sums)
        return scale * mx.nd.add_n(*(pair.as_in_context(self.devices[0]) for pair in pairs))

    def validate(self, epoch: int) -> Optional[dict[str, float]]:
        """Return the mean average precision on the validation set: VOC07's, in original pixels,
        first.  Figures of every class and some pictures go to the run's folder.

        A copy of the net is judged, as in ``ClassifierTask.validate``.
        """
        last = epoch + 1 == self.config.num_epochs
        if self._validation is None or ((epoch + 1) % self.config.val_interval and not last):
            return None
        params = self.net._collect_params_with_prefix()
        trained = {name: param.data(self.devices[0]) for name, param in params.items()}
        size = self.config.data_shape
        result = evaluate(self._drawn(self._detections(trained), epoch), self.class_names, size)
        write_json(result.original, self.folder / f"validation/epoch-{epoch:04d}.json")
        scores = _scores(result)
        if self.ema:
            result = evaluate(self._detections(self.ema.arrays), self.class_names, size)
            scores.update({METRIC_PREFIX + name: score for name, score in _scores(result).items()})
        return scores

    def _detections(self, weights: dict):
        """Yield what the net finds on the validation set with these weights."""
        for name, param in self._judged._collect_params_with_prefix().items():
            param.set_data(weights[name])
        return detect(
            self._predict, self._validation, self.config.data_shape, self.config.batch_size,
            normalization=self._normalization, threads=self.config.num_workers,
        )  # fmt: skip

    def _drawn(self, found, epoch: int):
        """Pass the detections on; save drawings of the first images."""
        folder = self.folder / f"samples/epoch-{epoch:04d}"
        for number, (example, detections) in enumerate(found):
            if number < self.config.samples:
                path = folder / f"{number:02d}.jpg"
                save_example(example, detections, self.class_names, path)
            yield example, detections

    def _predict(self, images: np.ndarray):
        return [o.asnumpy() for o in self._judged(mx.nd.array(images, ctx=self.devices[0]))]

    def _new_net(self, **weights):
        config = self.config
        norm = {}
        if config.syncbn:
            norm = {"norm_layer": mx.gluon.contrib.nn.SyncBatchNorm,
                    "norm_kwargs": {"num_devices": len(self.devices)}}  # fmt: skip
        classes = self.class_names if config.dataset == "custom" else None
        return get_detector(config.model, classes=classes, ctx=self.devices, **norm, **weights)

    def _make_net(self):
        config = self.config
        mx.random.seed(config.seed)
        net = self._new_net(
            pretrained=config.resume_params or False,
            pretrained_base=config.pretrained_base or False,
        )
        if not (config.resume_params or config.pretrained_base):
            net.initialize(mx.init.MSRAPrelu(), ctx=self.devices)
        freeze_backbone(net, config.freeze_stages, norms=config.freeze_bn)
        if config.no_wd:
            for param in net.collect_params(".*beta|.*gamma|.*bias").values():
                param.wd_mult = 0.0
        # Memory planned once for one size; with several it comes from MXNet's pool, at the same
        # speed, as planning anew for each batch keeps more of it.
        static = len(config.training_sizes) == 1
        net.hybridize(static_alloc=static, static_shape=static)
        return net

    def _make_input(self, source) -> DetectionInput:
        config, spec = self.config, self.net.spec
        return DetectionInput(
            source, config.batch_size,
            {
                size: TargetGenerator(
                    anchors(spec._replace(size=size)), use_difficult=config.use_difficult
                )
                for size in config.training_sizes
            },
            steps=self.steps_per_epoch,
            augmentation=BoxAugmentation(not config.no_mirror, config.max_expansion),
            normalization=self._normalization, seed=config.seed, threads=config.num_workers,
            skipped=self.skipped,
        )  # fmt: skip


def _scores(result) -> dict[str, float]:
    return {
        "mAP": result.original.mean_ap_11_point,
        "mAP_area": result.original.mean_ap_area,
        "mAP_resized": result.resized.mean_ap_11_point,
    }


def freeze_backbone(net, stages: int, *, norms: bool) -> None:
    """Leave parts of a detector's backbone as they are: no updates, and no new statistics.

    Args:
        net: an ``SSD``, before its first pass.
        stages: how many, from the picture on: the stem and the blocks up to stride ``2**stages``.
        norms: the normalisation of all of the backbone.
    """
    maps = net.features.backbone
    if stages:
        plan = net.spec.backbone_spec.plan()
        freeze(stages_of(maps.stem, maps.blocks, plan)[:stages])
    if norms:
        freeze_norms(maps)


def _devices(numbers: list[int]) -> list:
    found = mx.context.num_gpus()
    if numbers and max(numbers) >= found:
        raise InputError(
            f"GPU {max(numbers)} is not there: this machine and this MXNet offer {found}; leave "
            f"--gpus and --num-gpus out to train on the CPU"
        )
    return [mx.gpu(number) for number in numbers] or [mx.cpu()]


def _sources(config: DetectorConfig):
    """The training set, and the validation set or None, of the same classes."""
    classes = VOC_CLASSES if config.dataset == "voc" else config.class_names
    open_ = functools.partial(open_boxes, config.dataset_root, skip_bad=config.skip_bad)
    training = open_(config.train_splits, classes)
    validation = open_(config.val_splits, training.class_names) if config.val_splits else None
    for source, flag in ((training, "--train-splits"), (validation, "--val-splits")):
        if source is not None and all(
            source.annotation(i).difficult.all() for i in range(len(source))
        ):
            raise InputError(f"{flag}: none of the {len(source)} images has an object to be found")
    return training, validation
