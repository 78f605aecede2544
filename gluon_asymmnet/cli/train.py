"""``asymmnet train``, the same as ``train_imagenet.py``."""

from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import resolve
from gluon_asymmnet.utils.settings import add_flags

DESCRIPTION = (
    "Train an image classifier from RecordIO or from folders. The flags are those of GluonCV's and "
    "the AsymmNet authors' scripts. The same command goes on where a killed run stopped."
)


def add_parser(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "train", help="train an image classifier", description=DESCRIPTION,
        epilog="example: asymmnet train --recipe demo --rec-train digits/train.rec "
        "--rec-train-idx digits/train.idx --rec-val digits/val.rec --rec-val-idx digits/val.idx",
    )  # fmt: skip
    add_flags(parser, ClassifierConfig)
    parser.set_defaults(run=lambda args: run(_settings(args)))


def _settings(args) -> dict:
    return {k: v for k, v in vars(args).items() if k not in ("run", "command")}


def run(given: dict) -> int:
    """Train with the settings that were given; 0 also when stopped by a signal."""
    import shlex
    import sys

    from gluon_asymmnet.utils.threads import set_threads

    config = resolve(ClassifierConfig, given)
    set_threads(config.threads)
    from gluon_asymmnet.distributed.join import joined

    with joined(config) as workers:
        from gluon_asymmnet.train.classifier import train

        result = train(config, workers)
    if config.dry_run or workers.rank:
        return 0
    if not result.finished:
        print(f"stopped after step {result.steps}; go on with: {shlex.join(sys.argv)}")
        return 0
    score = f"best top-1 {result.best:.4f} at epoch {result.best_epoch}: " if result.best else ""
    print(f"{score}{result.weights}")
    return 0
