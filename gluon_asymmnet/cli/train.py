"""``asymmnet train`` and ``train-ssd``, also ``train_imagenet.py`` and ``train_ssd.py``."""

import argparse
import shlex
import sys

from gluon_asymmnet.distributed.group import join_workers
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import resolve
from gluon_asymmnet.train.detector_config import DetectorConfig
from gluon_asymmnet.utils.settings import add_flags
from gluon_asymmnet.utils.threads import set_threads


def classifier_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``train``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Train an image classifier from RecordIO or from folders. The flags are those "
        "of GluonCV's and the AsymmNet authors' scripts. To resume a run that was stopped, repeat "
        "its command.",
        epilog=f"example: {prog} --recipe demo --rec-train digits/train.rec "
        "--rec-train-idx digits/train.idx --rec-val digits/val.rec --rec-val-idx digits/val.idx",
    )
    add_flags(parser, ClassifierConfig)
    parser.set_defaults(run=_train_classifier)
    return parser


def detector_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``train-ssd``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Train a single-shot detector on VOC folders. The flags are those of GluonCV's "
        "train_ssd.py. To resume a run that was stopped, repeat its command.",
        epilog=f"example: asymmnet voc demo digits && {prog} --network asymmnet_small "
        "--dataset custom --dataset-root digits --train-splits 2007_trainval --no-mirror",
    )
    add_flags(parser, DetectorConfig)
    parser.set_defaults(run=_train_detector)
    return parser


def _train_classifier(args) -> int:
    config = resolve(ClassifierConfig, _settings(args))
    set_threads(config.threads)
    with join_workers(config) as workers:
        from gluon_asymmnet.train.classifier import train

        result = train(config, workers)
    if not config.dry_run and workers.rank == 0:
        _print_result(result, "top-1")
    return 0


def _train_detector(args) -> int:
    config = resolve(DetectorConfig, _settings(args))
    set_threads(config.threads)
    from gluon_asymmnet.train.detector import train

    _print_result(train(config), "mAP")
    return 0


def _settings(args) -> dict:
    return {name: value for name, value in vars(args).items() if name != "run"}


def _print_result(result, metric: str) -> None:
    if not result.finished:  # a signal stopped it
        print(f"stopped after step {result.steps}; to resume: {shlex.join(sys.argv)}")
    elif result.best is None:
        print(result.weights)
    else:
        print(f"best {metric} {result.best:.4f} at epoch {result.best_epoch}: {result.weights}")
