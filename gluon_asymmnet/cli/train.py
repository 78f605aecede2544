"""``asymmnet train`` and ``train-ssd``, also ``train_imagenet.py`` and ``train_ssd.py``."""

import argparse

from gluon_asymmnet.distributed.group import join_workers
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import resolve
from gluon_asymmnet.train.detector_config import DetectorConfig
from gluon_asymmnet.utils.command import own_command
from gluon_asymmnet.utils.settings import add_flags
from gluon_asymmnet.utils.settings_file import read_settings, shown
from gluon_asymmnet.utils.threads import set_threads

_STATUS = (
    "Exit status: 0 the run is finished; 130 or 143 it was stopped by Ctrl-C or SIGTERM and saved, "
    "and can be resumed; 2 wrong input; 1 another failure; 75 another worker was lost."
)


def classifier_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``train``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Train an image classifier from RecordIO or from folders. The flags are those "
        "of GluonCV's and the AsymmNet authors' scripts. To resume a run that was stopped, repeat "
        "its command. " + _STATUS,
        epilog=f"example: {prog} --recipe demo --rec-train digits/train.rec "
        "--rec-train-idx digits/train.idx --rec-val digits/val.rec --rec-val-idx digits/val.idx",
    )
    add_flags(parser, ClassifierConfig)
    _add_file_flags(parser)
    parser.set_defaults(run=_train_classifier)
    return parser


def detector_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``train-ssd``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Train a single-shot detector on VOC folders. The flags are those of GluonCV's "
        "train_ssd.py. To resume a run that was stopped, repeat its command. " + _STATUS,
        epilog=f"example: asymmnet voc demo digits && {prog} --network asymmnet_small "
        "--dataset custom --dataset-root digits --train-splits 2007_trainval --no-mirror",
    )
    add_flags(parser, DetectorConfig)
    _add_file_flags(parser)
    parser.set_defaults(run=_train_detector)
    return parser


def _train_classifier(args) -> int:
    config = resolve(ClassifierConfig, _settings(args, ClassifierConfig))
    if args.print_config:
        return _print_config(config)
    set_threads(config.threads)
    with join_workers(config) as workers:
        from gluon_asymmnet.train.classifier import train

        result = train(config, workers)
    if not config.dry_run and workers.rank == 0:
        _print_result(result, "top-1")
    return result.status


def _train_detector(args) -> int:
    config = resolve(DetectorConfig, _settings(args, DetectorConfig))
    if args.print_config:
        return _print_config(config)
    set_threads(config.threads)
    from gluon_asymmnet.train.detector import train

    result = train(config)
    _print_result(result, "mAP")
    return result.status


def _add_file_flags(parser) -> None:
    group = parser.add_argument_group("file of settings")
    group.add_argument(
        "--config", default="", metavar="FILE", help="JSON or YAML with settings by the names of "
        "the flags, or a run's config.json; flags win"
    )  # fmt: skip
    group.add_argument(
        "--print-config", action="store_true", help="print all settings as JSON, and stop"
    )


def _settings(args, config_class) -> dict:
    """Return the settings that are given: those of the file, then the flags."""
    flags = {k: v for k, v in vars(args).items() if k not in ("run", "config", "print_config")}
    return {**(read_settings(args.config, config_class) if args.config else {}), **flags}


def _print_config(config) -> int:
    print(shown(config.settled()))
    return 0


def _print_result(result, metric: str) -> None:
    if not result.finished:  # a signal stopped it
        print(f"stopped after step {result.steps}; to resume: {own_command()}")
    elif result.best is None:
        print(result.weights)
    else:
        print(f"best {metric} {result.best:.4f} at epoch {result.best_epoch}: {result.weights}")
