"""Train a single-shot detector."""

import functools
from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import DETECTOR, DetectorCard, card_beside
from gluon_asymmnet.data.bad_records import BOX_ADVICE, LeftOut, SkippedRecords
from gluon_asymmnet.data.boxes.loader import DetectionBatch, DetectionInput
from gluon_asymmnet.data.boxes.sources import contents_of, open_boxes
from gluon_asymmnet.data.boxes.transforms import BoxAugmentation
from gluon_asymmnet.data.boxes.voc import VOC_CLASSES
from gluon_asymmnet.data.class_names import common_classes, match_classes
from gluon_asymmnet.data.transforms import Normalization
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation.detection import detect, evaluate
from gluon_asymmnet.evaluation.detection_report import write_json
from gluon_asymmnet.evaluation.drawing import save_example
from gluon_asymmnet.models.ssd_spec import anchors
from gluon_asymmnet.train.detector_config import DetectorConfig
from gluon_asymmnet.train.finetune import describe_start, source_card
from gluon_asymmnet.train.loop import Result, run_in
from gluon_asymmnet.train.optimization import (
    clip_norm,
    freeze,
    freeze_norms,
    stages_of,
)
from gluon_asymmnet.train.run_directory import settle
from gluon_asymmnet.train.ssd_loss import MultiBoxLoss
from gluon_asymmnet.train.ssd_targets import TargetGenerator
from gluon_asymmnet.train.task import Task, training_devices
from gluon_asymmnet.weights.load import find_weights
from gluon_asymmnet.zoo import get_detector


def train(config: DetectorConfig, callbacks=()) -> Result:
    """Train with the settings of ``config``, or resume an interrupted run of the same settings.

    Args:
        callbacks: as in ``session.run``.

    Raises:
        InputError: for data, weights or settings that do not fit together.
        RunError: if the loss is not finite.
    """
    path = Path(config.run_dir)
    config = settle(config, path)
    task = DetectorTask(config, training_devices(config.gpu_numbers), path)
    task.callbacks = callbacks
    return run_in(path, task)


class DetectorTask(Task):
    """The training of a single-shot detector.

    Args:
        folder: for images and metrics of each class from validations.
    """

    metric = "SmoothL1"

    def __init__(self, config: DetectorConfig, devices, folder):
        super().__init__(config, devices)
        self.folder = Path(folder)
        source, self._validation = _sources(config)
        self.class_names = list(source.class_names)
        self.data = {"training set": contents_of(source)}
        if self._validation is not None:
            self.data["validation set"] = contents_of(self._validation)
        steps_per_epoch = len(source) // config.batch_size
        if not steps_per_epoch or config.batch_size % len(devices):
            raise InputError(
                f"--batch-size {config.batch_size} must be a multiple of the {len(devices)} "
                f"device(s) and at most the {len(source)} training images"
            )
        self._normalization = Normalization(config.rgb_mean, config.rgb_std)
        self._loss = MultiBoxLoss(config.negative_ratio, config.min_negatives)
        self._loss.hybridize()
        self._build(
            images_per_step=config.batch_size, steps_per_epoch=steps_per_epoch,
            first_epoch=config.start_epoch, peak_lr=config.lr,
        )  # fmt: skip
        self.skipped = SkippedRecords(config.max_bad_records, BOX_ADVICE)
        self._input = self._make_input(source)

    @property
    def card(self) -> DetectorCard:
        """The model card, which evaluation and export of this run read."""
        config, net = self.config, self.net
        trained = (p for p in net.collect_params(".*weight|.*bias|.*gamma|.*beta").values())
        return DetectorCard(
            model=config.model, class_names=self.class_names, input_size=config.data_shape,
            nms_thresh=net.nms_thresh, nms_topk=net.nms_topk, post_nms=net.post_nms,
            rgb_mean=config.rgb_mean, rgb_std=config.rgb_std,
            parameters=sum(int(np.prod(p.shape)) for p in trained),
        )  # fmt: skip

    def describe(self) -> str:
        """Return the first line of the log."""
        start = (
            self.config.finetune
            or self.config.resume_params
            or self.config.pretrained_base
            or "random weights"
        )
        sizes = ", ".join(map(str, self.config.training_sizes))
        return (
            f"{self.config.model}: {len(self.class_names)} classes, {self.steps_per_epoch} steps "
            f"of {self.images_per_step} images of {sizes} pixels per epoch on {len(self.devices)} "
            f"{self.devices[0].device_type}(s), peak lr {self.config.lr:g}, from {start}"
        )

    def step(self, batch: DetectionBatch, epoch: int, rng: np.random.Generator):
        """Do one update; return the sums of loss and of its box part, as ``Task.step``.

        The loss of a batch is divided by its number of matched anchors.  They are counted on the
        host: GluonCV's loss counts them on the device and waits for it.
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
        """Return mean average precisions as ``Task.validate``, in epochs of ``--val-interval``."""
        last = epoch + 1 == self.config.num_epochs
        if (epoch + 1) % self.config.val_interval and not last:
            return None
        return super().validate(epoch)

    def _evaluate(self, epoch: Optional[int], left_out: LeftOut) -> dict[str, float]:
        """Return the metrics; write those of each class and some images, unless epoch is None."""
        size = self.config.data_shape
        results = detect(
            self._predict, self._validation, size, self.config.batch_size,
            normalization=self._normalization, threads=self.config.num_workers, left_out=left_out,
        )  # fmt: skip
        if epoch is not None:
            results = self._draw_samples(results, epoch)
        result = evaluate(results, self.class_names, size)
        self.left_out = len(left_out.positions)
        if epoch is not None:
            write_json(result.original, self.folder / f"validation/epoch-{epoch:04d}.json")
        return {
            "mAP": result.original.mean_ap_11_point,
            "mAP_area": result.original.mean_ap_area,
            "mAP_resized": result.resized.mean_ap_11_point,
        }

    def _draw_samples(self, results, epoch: int):
        """Yield the examples and detections; save drawings of the first images."""
        folder = self.folder / f"samples/epoch-{epoch:04d}"
        for number, (example, detections) in enumerate(results):
            if number < self.config.samples:
                path = folder / f"{number:02d}.jpg"
                save_example(example, detections, self.class_names, path)
            yield example, detections

    def _predict(self, images: np.ndarray):
        return [o.asnumpy() for o in self._eval_net(mx.nd.array(images, ctx=self.devices[0]))]

    def _new_net(self, classes=None, **weights):
        """Return the network; with ``classes``, with these in place of those of the data."""
        config = self.config
        norm = {}
        if config.syncbn:
            norm = {"norm_layer": mx.gluon.contrib.nn.SyncBatchNorm,
                    "norm_kwargs": {"num_devices": len(self.devices)}}  # fmt: skip
        model, _, dataset = config.model.rpartition("_")
        if classes is None:
            classes = self.class_names if dataset == "custom" else None
        else:
            dataset = "custom"
        return get_detector(
            f"{model}_{dataset}", classes=classes, ctx=self.devices, **norm, **weights
        )

    def _make_net(self):
        config = self.config
        net = self._fine_tuned() if config.finetune else self._fresh_net()
        freeze_backbone(net, config.freeze_stages, norms=config.freeze_bn)
        # With one input size the memory is planned once.  With several it comes from MXNet's pool,
        # which is as fast and needs less memory than a new plan for each batch.
        static = len(config.training_sizes) == 1
        net.hybridize(static_alloc=static, static_shape=static)
        return net

    def _fresh_net(self):
        config = self.config
        net = self._new_net(
            pretrained=config.resume_params or False,
            pretrained_base=config.pretrained_base or False,
        )
        if not (config.resume_params or config.pretrained_base):
            net.initialize(mx.init.MSRAPrelu(), ctx=self.devices)
        return net

    def _fine_tuned(self):
        """Return the detector of ``--finetune`` with the classes of the data."""
        source = self.config.finetune
        weights, names = find_weights(source), source_card(source, DETECTOR).class_names
        net = self._new_net(classes=names, pretrained=str(weights))
        rows = common_classes(self.class_names, names)
        net.reset_class(self.class_names, rows)
        self.start_line = describe_start(weights, self.class_names, names, rows)
        return net

    def _make_eval_net(self):
        net = self._new_net()
        net.hybridize(static_alloc=True, static_shape=True)
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


def freeze_backbone(net, stages: int, *, norms: bool) -> None:
    """Freeze parts of a detector's backbone: no updates, and no new statistics.

    Args:
        net: an ``SSD``, before its first pass.
        stages: the first stages to freeze: the stem and the blocks up to stride ``2**stages``.
        norms: also freeze the batch normalisation of the whole backbone.
    """
    maps = net.features.backbone
    if stages:
        plan = net.spec.backbone_spec.plan()
        freeze(stages_of(maps.stem, maps.blocks, plan)[:stages])
    if norms:
        freeze_norms(maps)


def _sources(config: DetectorConfig):
    """Return the training set, and the validation set of the same classes or None."""
    classes = VOC_CLASSES if config.dataset == "voc" else config.class_names
    open_ = functools.partial(open_boxes, config.dataset_root, skip_bad=config.skip_bad)
    training = open_(config.train_splits, classes)
    card = card_beside(config.resume_params, DETECTOR) if config.resume_params else None
    if card and list(card.class_names) != list(training.class_names):
        match_classes(
            training.class_names, card.class_names, config.train_splits, config.resume_params,
            "--pretrained-base starts with a new head, for other classes", same=True,
        )  # fmt: skip
        training = open_(config.train_splits, card.class_names)  # in the order of the weights
    validation = open_(config.val_splits, training.class_names) if config.val_splits else None
    for source, flag in ((training, "--train-splits"), (validation, "--val-splits")):
        if source is not None and all(
            source.annotation(i).difficult.all() for i in range(len(source))
        ):
            raise InputError(f"{flag}: none of the {len(source)} images has an object that counts")
    return training, validation
