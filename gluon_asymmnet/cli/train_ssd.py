"""``asymmnet train-ssd``, the same as ``train_ssd.py``."""

from gluon_asymmnet.train.config import resolve
from gluon_asymmnet.train.detector_config import DetectorConfig
from gluon_asymmnet.utils.settings import add_flags

DESCRIPTION = (
    "Train a single-shot detector on VOC folders.  The flags are those of GluonCV's train_ssd.py.  "
    "The same command goes on where a killed run stopped."
)


def add_parser(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "train-ssd", help="train a detector", description=DESCRIPTION,
        epilog="example: asymmnet voc demo digits && asymmnet train-ssd --network asymmnet_small "
        "--dataset custom --dataset-root digits --train-splits 2007_trainval --no-mirror",
    )  # fmt: skip
    add_flags(parser, DetectorConfig)
    parser.set_defaults(run=lambda args: run(_settings(args)))


def _settings(args) -> dict:
    return {k: v for k, v in vars(args).items() if k not in ("run", "command")}


def run(given: dict) -> int:
    """Train with the settings that were given; 0 also when stopped by a signal."""
    import shlex
    import sys

    from gluon_asymmnet.utils.threads import set_threads

    config = resolve(DetectorConfig, given)
    set_threads(config.threads)
    from gluon_asymmnet.train.detector import train

    result = train(config)
    if not result.finished:
        print(f"stopped after step {result.steps}; go on with: {shlex.join(sys.argv)}")
        return 0
    score = ""
    if result.best is not None:
        score = f"best mAP {result.best:.4f} at epoch {result.best_epoch}: "
    print(f"{score}{result.weights}")
    return 0
