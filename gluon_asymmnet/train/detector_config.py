"""Settings of a detector's training, from which the command line is made."""

import dataclasses
from typing import ClassVar, Optional

from gluon_asymmnet.data.boxes.sources import is_record_file, parse_splits
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.ssd_spec import HEADS, parse_detector
from gluon_asymmnet.train.config import LoopConfig
from gluon_asymmnet.train.finetune import detector_settings
from gluon_asymmnet.train.optimizers import OPTIMIZERS
from gluon_asymmnet.utils.settings import option


@dataclasses.dataclass(frozen=True)
class DetectorConfig(LoopConfig):
    """Everything that decides a training run of a detector."""

    # model
    network: str = option(
        "asymmnet_large", "backbone, with a width if wanted: asymmnet_small_0.5", group="model"
    )
    data_shape: int = option(
        300, "height and width of the input, pixels", group="model", within="[1, inf)"
    )
    multi_scale: str = option(
        "", "train on these heights and widths, with commas: 256,300,352; one is drawn for each "
        "batch.  Validation, and the detector, stay at --data-shape", group="model",
    )  # fmt: skip
    head: str = option(
        "ssd", "predictors; ssdlite: depthwise-separable", group="model", choices=HEADS
    )
    pretrained_base: str = option(
        "", "weights of the backbone: 'published', a .params file, or the directory of a "
        "classifier's run; otherwise random", group="model",
    )  # fmt: skip
    resume_params: str = option(
        "", "start from this .params file of the detector", "--resume", group="model"
    )
    start_epoch: int = option(
        0,
        "with --resume, the epoch to go on from",
        group="model",
        within="[0, inf)",
        needs="resume_params",
    )
    finetune: str = option(
        "", "start from the weights of RUN, a detector's run directory or a .params file in it: "
        "network and input are its own; classes of the same name keep their predictors, others "
        "begin anew", group="model", metavar="RUN",
    )  # fmt: skip
    freeze_stages: int = option(
        0, "freeze the first stages of the backbone's 5", group="model", within="[0, 5]",
        needs="pretrained_base|resume_params|finetune",
    )  # fmt: skip
    freeze_bn: bool = option(
        False, "freeze the backbone's batch normalisation", group="model",
        needs="pretrained_base|resume_params|finetune",
    )  # fmt: skip
    syncbn: bool = option(
        False, "batch statistics over all GPUs", "--syncbn", group="model", needs="gpus|num_gpus"
    )

    # data
    dataset: str = option(
        "voc", "voc: VOC's 20 classes; custom: those of --classes or of the folders' classes.txt",
        group="data", choices=("voc", "custom", "coco"),
    )  # fmt: skip
    dataset_root: str = option("~/.mxnet/datasets/voc", "the folder of VOC2007", group="data")
    train_splits: str = option(
        "2007_trainval,2012_trainval", "FOLDER_SPLIT or YEAR_SPLIT, with commas; or a .rec or .lst "
        "file of GluonCV's", group="data",
    )  # fmt: skip
    val_splits: str = option("2007_test", "the same, for validation; '' for none", group="data")
    classes: str = option(
        "", "custom: class names, with commas", group="data", needs="dataset=custom"
    )
    skip_bad: bool = option(
        False, "leave out objects of other classes, empty boxes and images that cannot be read, "
        "instead of refusing them", group="data",
    )  # fmt: skip
    max_bad_records: int = option(
        0, "skip up to so many damaged images of the training and validation set, which "
        "skipped_records.jsonl lists: the next of the epoch replaces one in training, validation "
        "leaves it out", group="data", within="[0, inf)",
    )  # fmt: skip
    use_difficult: bool = option(
        False, "train on difficult objects; otherwise anchors on them are ignored", group="data"
    )
    no_mirror: bool = option(False, "do not mirror at random", group="data")
    max_expansion: float = option(
        4.0, "random expansion: largest side of the canvas relative to the image; 1: none",
        group="data", within="[1, 16]",
    )  # fmt: skip
    num_workers: int = option(
        4, "decoding threads", "-j", "--num-workers", group="data", within="[1, inf)"
    )

    # optimisation
    batch_size: int = option(
        32, "images per step, all devices together", group="optimisation", within="[1, inf)"
    )
    num_epochs: int = option(
        240, "epochs in all", "--epochs", group="optimisation", within="[1, inf)"
    )
    lr: float = option(0.001, "peak learning rate", group="optimisation", within="[0, inf)")
    lr_decay_epoch: tuple[int, ...] = option(
        (160, 200),
        "step: epochs",
        group="optimisation",
        within="[0, inf)",
        needs=("lr_mode=step", "!lr_decay_period"),
    )
    warmup_epochs: Optional[int] = option(
        None, "epochs of linear warm-up (default 1; none in a run of one epoch)",
        group="optimisation", within="[0, inf)", type=int,
    )  # fmt: skip
    optimizer: str = option("sgd", "optimizer", group="optimisation", choices=OPTIMIZERS)
    wd: float = option(0.0005, "weight decay", group="optimisation", within="[0, 1]")
    negative_ratio: float = option(
        3.0, "background anchors per matched anchor of an image, the hardest ones",
        group="optimisation", within="[0, inf)",
    )  # fmt: skip
    min_negatives: int = option(
        0,
        "minimum of background anchors per image, also without objects",
        group="optimisation",
        within="[0, inf)",
    )

    # run
    gpus: str = option("", "numbers of the GPUs, with commas")
    num_gpus: int = option(0, "how many GPUs, instead; 0: CPU", within="[0, inf)")
    seed: int = option(233, "decides weights, order and augmentation", within="[0, 2147483647]")
    save_prefix: str = option(
        "checkpoints/", "the run is written to SAVE_PREFIX, the detector's name and TAG_NAME"
    )
    tag_name: str = option("", "names the run among those of the same detector")
    resume: str = option(
        "auto", "auto: go on where a run of the same command stopped; never: refuse a run "
        "directory that exists", "--resume-run", choices=("auto", "never"),
    )  # fmt: skip
    save_frequency: int = option(
        10,
        "keep the weights of every so many epochs; 0: best and last",
        "--save-interval",
        within="[0, inf)",
    )
    val_interval: int = option(
        1,
        "epochs from validation to validation; the last one always",
        within="[1, inf)",
        needs="val_splits",
    )
    samples: int = option(
        8,
        "images drawn with their boxes after each validation",
        within="[0, inf)",
        needs="val_splits",
    )
    log_interval: int = option(100, "steps between log lines; 0: none", within="[0, inf)")

    usual_warmup: ClassVar[int] = 1
    declined: ClassVar[dict[str, str]] = {
        "--dali": "DALI's MXNet plugin is gone",
        "--amp": "MXNet 1.9.1's automatic mixed precision rewrites its operators for the whole "
        "process, and is not tested on these networks; training is in single precision",
        "--horovod": "detectors train on the devices of one process",
    }

    @property
    def model(self) -> str:
        """Name of the detector, as ``get_model`` takes it."""
        return f"{self.head}_{self.data_shape}_{self.network}_{self.dataset}".lower()

    @property
    def run_dir(self) -> str:
        """Directory of the run."""
        return self.save_prefix + "_".join(filter(None, (self.model, self.tag_name)))

    @property
    def class_names(self) -> Optional[list[str]]:
        """The names in --classes, or None."""
        return [name.strip() for name in self.classes.split(",")] if self.classes else None

    @property
    def training_sizes(self) -> tuple[int, ...]:
        """Heights and widths of the input in training, pixels."""
        if not self.multi_scale:
            return (self.data_shape,)
        try:
            return tuple(int(part) for part in self.multi_scale.split(","))
        except ValueError:
            raise InputError(
                f"--multi-scale takes sizes in pixels, with commas, got {self.multi_scale!r}"
            ) from None

    @staticmethod
    def fine_tuning(given: dict, _recipe: dict) -> dict:
        """Return the settings that follow from ``--finetune``, and that are not given."""
        return detector_settings(given)

    def check(self) -> "DetectorConfig":
        """Return self.  Raises: InputError for a value or a combination that is not valid."""
        if self.dataset == "coco":
            raise InputError(
                "--dataset coco: convert it with `asymmnet voc from-coco`, then --dataset custom"
            )
        self.check_loop()
        parse_detector(self.model)
        self._check_sizes()
        if self.start_epoch >= self.num_epochs:
            raise InputError(
                f"--start-epoch {self.start_epoch} is not below --epochs {self.num_epochs}"
            )
        starts = {"--pretrained-base": self.pretrained_base, "--resume": self.resume_params,
                  "--finetune": self.finetune}  # fmt: skip
        given = [flag for flag, value in starts.items() if value]
        if len(given) > 1:
            raise InputError(f"give {' or '.join(given)}, not both")
        if self.gpus and self.num_gpus:
            raise InputError("give --gpus or --num-gpus, not both")
        if min(self.gpu_numbers, default=0) < 0:
            raise InputError(f"--gpus takes numbers of at least 0, with commas, got {self.gpus!r}")
        for splits in (self.train_splits, self.val_splits):
            if not is_record_file(splits):
                parse_splits(splits)
        if self.patience and not self.val_splits:
            raise InputError("--patience needs a validation set: give --val-splits")
        return self

    def _check_sizes(self) -> None:
        sizes, low, high = self.training_sizes, self.data_shape // 2, self.data_shape * 2
        if not self.multi_scale:
            return
        if not len(set(sizes)) == len(sizes) > 1 or min(sizes) < low or max(sizes) > high:
            raise InputError(
                f"--multi-scale takes two or more different sizes from {low} to {high} pixels "
                f"(half to twice --data-shape {self.data_shape}), got {self.multi_scale!r}"
            )

    @property
    def gpu_numbers(self) -> list[int]:
        """Numbers of the GPUs to train on."""
        if not self.gpus:
            return list(range(self.num_gpus))
        try:
            return [int(part) for part in self.gpus.split(",") if part.strip()]
        except ValueError:
            raise InputError(f"--gpus takes numbers, with commas, got {self.gpus!r}") from None
