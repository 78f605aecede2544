"""Settings of a classifier's training, from which the command line is made.

The flags are named as in GluonCV's and the authors' scripts where these have them.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar, Optional

from gluon_asymmnet.data.augmentations import AUGMENTATIONS
from gluon_asymmnet.data.datasets import DATASETS, is_own
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.train.config import LoopConfig
from gluon_asymmnet.train.finetune import classifier_settings
from gluon_asymmnet.train.losses import LOSSES
from gluon_asymmnet.train.recipes import RECIPES
from gluon_asymmnet.utils.settings import option


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(LoopConfig):
    """Everything that decides a training run of a classifier."""

    # model
    model: str = option(
        "", "model to train, e.g. asymmnet_large, or a spec file (required)", group="model"
    )
    width: Optional[float] = option(
        None, "width multiplier (default: the name's, or 1)", "--width-scale", "--width",
        group="model", within="(0, inf)", type=float,
    )  # fmt: skip
    rate: Optional[int] = option(
        None, "copies of a block's input concatenated on each side (default: the name's, or the "
        "model's own)", "--asymmrate", "--rate", group="model", within="[0, inf)", type=int,
    )  # fmt: skip
    doshuffle: bool = option(False, "shuffle channels after the concatenation", group="model")
    shuffle_group: int = option(
        2, "groups of the channel shuffle", group="model", within="[1, inf)", needs="doshuffle"
    )
    stem: str = option(
        "authors", "graph of the first block: see README", group="model",
        choices=("authors", "scaled"),
    )  # fmt: skip
    dropout: float = option(0.2, "dropout before the classifier", group="model", within="[0, 1)")
    last_gamma: bool = option(
        False, "start the last gamma of blocks with a shortcut at zero", group="model"
    )
    use_pretrained: bool = option(False, "start from the published weights", group="model")
    resume_params: str = option("", "start from this .params file, any layout", group="model")
    resume_states: str = option(
        "", "with it, these optimizer states: trainer.params, or .states of MXNet with --trust",
        group="model", needs="resume_params",
    )  # fmt: skip
    trust: bool = option(
        False,
        "load .states, a pickle, which can run any code",
        group="model",
        needs="resume_states",
    )
    resume_epoch: int = option(
        0,
        "with it, the epoch to go on from",
        group="model",
        within="[0, inf)",
        needs="resume_params",
    )
    reset_output: bool = option(
        False, "with --resume-params, do not load the classifier: for other classes",
        group="model", needs="resume_params",
    )  # fmt: skip
    finetune: str = option(
        "", "start from the weights of RUN: a run directory, an exported folder, a .params file or "
        "'published'. Network and input are theirs, classes of the same name keep their rows of "
        "the classifier, others begin anew; the warm-up is 1 epoch, the rate a tenth",
        group="model", metavar="RUN",
    )  # fmt: skip
    freeze_stages: int = option(
        0, "freeze the first stages of the net's 5; 6: all but the classifier",
        group="model", within="[0, 6]", needs="use_pretrained|resume_params|finetune",
    )  # fmt: skip
    freeze_bn: bool = option(
        False, "freeze all batch normalisation", group="model",
        needs="use_pretrained|resume_params|finetune",
    )  # fmt: skip

    # data
    dataset: str = option(
        "imagenet", "sets the number of classes; custom: that of the records; your own: its images "
        "in place of records and folders", group="data", choices=DATASETS,
    )  # fmt: skip
    rec_train: str = option(
        "./dataset/imagenet/rec/train.rec",
        "training records",
        group="data",
        needs="use_rec|!data_dir",
    )
    rec_train_idx: str = option(
        "./dataset/imagenet/rec/train.idx",
        "their index (else the .idx beside them)",
        group="data",
        needs="use_rec|!data_dir",
    )
    rec_val: str = option(
        "./dataset/imagenet/rec/val.rec",
        "validation records",
        group="data",
        needs="use_rec|!data_dir",
    )
    rec_val_idx: str = option(
        "./dataset/imagenet/rec/val.idx",
        "their index (else the .idx beside them)",
        group="data",
        needs=("use_rec|!data_dir", "rec_val"),
    )
    data_dir: str = option(
        "",
        "folder with train/ and val/, each with one folder per class, instead",
        group="data",
        needs="data_backend=opencv|use_rec",
    )
    use_rec: bool = option(False, "read the records even if --data-dir is given", group="data")
    data_backend: str = option(
        "opencv", "opencv: random numbers from seed, epoch and image, for any number of threads "
        "and of processes; mxnet: ImageRecordIter, the authors' reader (records only, one "
        "process), which repeats its random numbers in every epoch and for every seed",
        group="data", choices=("opencv", "mxnet", "dali-gpu", "dali-cpu"),
    )  # fmt: skip
    num_workers: int = option(
        4,
        "decoding threads",
        "-j",
        "--num-data-workers",
        "--num-workers",
        group="data",
        within="[1, inf)",
    )
    max_bad_records: int = option(
        0, "skip up to so many damaged images of the training and validation set, which "
        "skipped_records.jsonl lists: the next of the epoch replaces one in training, validation "
        "leaves it out; not with --data-backend mxnet", group="data",
        within="[0, inf)", needs="data_backend=opencv",
    )  # fmt: skip
    input_size: int = option(
        224, "height and width of the input, pixels", group="data", within="[1, inf)"
    )
    crop_ratio: float = option(
        0.875,
        "validation: input size over the resized shorter side",
        group="data",
        within="(0, 1]",
    )
    min_random_area: float = option(
        0.08,
        "random crop: smallest share of the image's area",
        group="data",
        within="(0, 1]",
    )
    augmentation: tuple[str, ...] = option(
        (), "further augmentation; repeatable", group="data", choices=AUGMENTATIONS,
        action="append", needs="data_backend=opencv",
    )  # fmt: skip
    no_mirror: bool = option(False, "do not mirror at random", group="data")
    jitter: float = option(
        0.4, "random brightness, contrast, saturation", group="data", within="[0, 1]"
    )
    pca_noise: float = option(
        0.1, "deviation of AlexNet's colour noise", group="data", within="[0, 1]"
    )
    randaugment: int = option(
        0, "RandAugment (arXiv:1909.13719): operations per image, 2 is usual", group="data",
        within="[0, inf)", needs="data_backend=opencv",
    )  # fmt: skip
    randaugment_magnitude: int = option(
        9, "its strength, 0 to 30", group="data", within="[0, 30]", needs="randaugment"
    )
    random_erasing: float = option(
        0.0, "share of images of which a random rectangle becomes noise (arXiv:1708.04896)",
        "--random-erasing", "--reprob", group="data", within="[0, 1]", needs="data_backend=opencv",
    )  # fmt: skip
    num_training_samples: int = option(
        0,
        "images per epoch if not those of the records",
        group="data",
        within="[0, inf)",
    )

    # optimisation
    batch_size: int = option(
        32, "images per step, device and worker", group="optimisation", within="[1, inf)"
    )
    num_epochs: int = option(120, "epochs in all", group="optimisation", within="[1, inf)")
    lr: float = option(
        0.1, "peak learning rate, for the global batch", group="optimisation", within="[0, inf)"
    )
    lr_base_batch: int = option(
        0,
        "scale --lr by global batch over this one; 0: take --lr as it is",
        group="optimisation",
        within="[0, inf)",
    )
    wd: float = option(0.0001, "weight decay", group="optimisation", within="[0, 1]")
    lr_decay_epoch: tuple[int, ...] = option(
        (40, 60),
        "step: epochs",
        group="optimisation",
        within="[0, inf)",
        needs=("lr_mode=step", "!lr_decay_period"),
    )
    warmup_epochs: Optional[int] = option(
        None, "epochs of linear warm-up (default 5; at most a third of the run, rounded up)",
        group="optimisation", within="[0, inf)", type=int,
    )  # fmt: skip
    loss: str = option(
        "softmax", "softmax: cross-entropy; bce: binary cross-entropy of each class",
        group="optimisation", choices=LOSSES, needs="!teacher",
    )  # fmt: skip
    label_smoothing: bool = option(False, "smooth labels by 0.1", group="optimisation")
    mixup: bool = option(False, "mix pairs of images", group="optimisation")
    mixup_alpha: float = option(
        0.2,
        "parameter of mixup's beta distribution",
        group="optimisation",
        within="(0, inf)",
        needs="mixup",
    )
    cutmix: float = option(
        0.0, "parameter of CutMix's beta distribution (arXiv:1905.04899), 1 is usual; 0: none",
        group="optimisation", within="[0, inf)",
    )  # fmt: skip
    mix_prob: float = option(
        1.0,
        "share of steps that mix",
        "--mix-prob",
        "--mixup-prob",
        group="optimisation",
        within="[0, 1]",
        needs="mixup|cutmix",
    )
    mix_switch_prob: float = option(
        0.5, "with --mixup and --cutmix, the share of CutMix", "--mix-switch-prob",
        "--mixup-switch-prob", group="optimisation", within="[0, 1]", needs=("mixup", "cutmix"),
    )  # fmt: skip
    mixup_off_epoch: int = option(
        0,
        "last epochs without mixup and CutMix",
        group="optimisation",
        within="[0, inf)",
        needs="mixup|cutmix",
    )
    teacher: str = option(
        "", "teacher for distillation: a run directory, an exported folder or ONNX file, or the "
        "name of a GluonCV model", group="optimisation",
    )  # fmt: skip
    teacher_params: str = option(
        "", "weights of a GluonCV teacher; otherwise GluonCV downloads its own",
        group="optimisation", needs="teacher",
    )  # fmt: skip
    temperature: float = option(
        20.0, "softmax temperature of the distillation loss",
        group="optimisation", within="(0, inf)", needs="teacher",
    )  # fmt: skip
    hard_weight: float = option(
        0.5,
        "weight of the true labels beside the teacher's",
        group="optimisation",
        within="[0, 1)",
        needs="teacher",
    )
    accumulate: int = option(
        1,
        "batches per update; the global batch is so many times larger",
        group="optimisation",
        within="[1, inf)",
    )
    layer_decay: float = option(
        1.0,
        "factor of the learning rate from a stage to the one before",
        group="optimisation",
        within="(0, 1]",
    )
    dtype: str = option(
        "float32", "float16 needs a GPU", group="optimisation",
        choices=("float32", "float16", "bfloat16"),
    )  # fmt: skip

    # run
    recipe: str = option(
        "", f"start from a whole recipe; other flags override it: {', '.join(RECIPES)}, or a .json "
        "file as those in gluon_asymmnet/recipes", metavar="NAME",
    )  # fmt: skip
    num_gpus: int = option(0, "GPUs to train on; 0: CPU", within="[0, inf)")
    kvstore: str = option(
        "auto", "dist_sync: one of several workers, see docs/scaling.md; local: one process; auto: "
        "dist_sync under `asymmnet launch`, otherwise local", "--kvstore", "--kv-store",
        choices=("auto", "local", "dist_sync"),
    )  # fmt: skip
    horovod: bool = option(False, "one of several workers, by Horovod")
    mode: str = option("hybrid", "hybrid: compiled graph; imperative: for debugging",
                       choices=("hybrid", "imperative", "symbolic"))  # fmt: skip
    seed: int = option(
        0, "decides weights, order, augmentation and dropout", within="[0, 2147483647]"
    )
    save_dir: str = option("checkpoints", "runs are written to SAVE_DIR/DATASET/MODEL_TAG")
    tag_name: str = option("baseline", "names the run")
    resume: str = option("auto", "auto: go on where a run of the same command stopped; "
                         "never: refuse a run directory that exists",
                         choices=("auto", "never"))  # fmt: skip
    save_frequency: int = option(
        10, "keep the weights of every so many epochs; 0: best and last", within="[0, inf)"
    )
    log_interval: int = option(50, "steps between log lines; 0: none", within="[0, inf)")
    dry_run: int = option(0, "time so many forward passes, then stop", within="[0, inf)")

    usual_warmup: ClassVar[int] = 5
    declined: ClassVar[dict[str, str]] = {
        "--use_se": "the model's table says which blocks have squeeze-and-excite",
        "--batch-norm": "every model here has batch normalisation",
        "--use-gn": "evaluation and the exporters are for batch normalisation",
    }

    @property
    def shuffle_groups(self) -> int:
        """Groups of the channel shuffle; 0: no shuffle."""
        return self.shuffle_group if self.doshuffle else 0

    @property
    def train_index(self) -> str:
        """Index of the training records; "" for the one beside them."""
        return _index(self.rec_train_idx, ClassifierConfig.rec_train_idx)

    @property
    def val_index(self) -> str:
        """Index of the validation records; "" for the one beside them."""
        return _index(self.rec_val_idx, ClassifierConfig.rec_val_idx)

    @property
    def reads_folders(self) -> bool:
        """Whether the images come from folders, not from records."""
        return bool(self.data_dir) and not self.use_rec

    @property
    def own_dataset(self) -> bool:
        """Whether a user's module gives the images."""
        return is_own(self.dataset)

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, so that labels are probabilities."""
        return self.mixup or self.cutmix > 0

    @classmethod
    def fine_tuning(cls, given: dict, recipe: dict) -> dict:
        """Return the settings that follow from ``--finetune``, and that are not given."""
        return classifier_settings(given, recipe.get("lr", cls.lr))

    def check(self) -> "ClassifierConfig":
        """Return self.  Raises: InputError for a value or a combination that is not valid."""
        if not self.model:
            raise InputError("--model is required, e.g. --model asymmnet_large")
        self.check_loop()
        if self.own_dataset and (self.data_dir or self.data_backend == "mxnet"):
            raise InputError(
                f"--dataset {self.dataset} gives the images itself: leave --data-dir and "
                f"--data-backend mxnet out"
            )
        if self.data_backend.startswith("dali"):
            raise InputError(
                "--data-backend dali is declined: DALI's MXNet plugin is gone; use mxnet or opencv"
            )
        if self.mode == "symbolic":
            raise InputError("--mode symbolic is declined: Gluon's hybrid mode compiles the graph")
        if self.dtype == "bfloat16":
            raise InputError(
                "--dtype bfloat16 is declined: MXNet 1.9.1's conversion to it fails on the concat "
                "of the asymmetrical bottleneck; use float32"
            )
        if self.dtype == "float16" and not self.num_gpus:
            raise InputError(
                "--dtype float16 needs a GPU (--num-gpus 1 or more): oneDNN has no half precision; "
                "use float32 on the CPU"
            )
        if self.resume_epoch >= self.num_epochs:
            raise InputError(
                f"--resume-epoch {self.resume_epoch} is not below --num-epochs {self.num_epochs}"
            )
        if self.horovod and self.kvstore != "auto":
            raise InputError(f"give --horovod or --kvstore {self.kvstore}, not both")
        starts = {"--use-pretrained": self.use_pretrained, "--resume-params": self.resume_params,
                  "--finetune": self.finetune}  # fmt: skip
        given = [flag for flag, value in starts.items() if value]
        if len(given) > 1:
            raise InputError(f"give {' or '.join(given)}, not both")
        if self.patience and not (
            self.own_dataset or self.rec_val or (self.data_dir and not self.use_rec)
        ):
            raise InputError("--patience needs a validation set: give --rec-val or --data-dir")
        if self.reset_output and (self.resume_states or self.resume_epoch):
            raise InputError(
                "--reset-output starts a new training: leave --resume-states and --resume-epoch out"
            )
        return self


def _index(path: str, default: str) -> str:
    return "" if path == default and not Path(path).exists() else path
