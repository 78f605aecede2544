"""Train a single-shot detector on VOC folders; ``--help`` lists every setting and its default."""

import argparse
import sys

from gluon_asymmnet.cli import guarded, train_ssd
from gluon_asymmnet.train.detector_config import DetectorConfig
from gluon_asymmnet.utils.settings import add_flags


def main(argv=None) -> int:
    """Parse, train, print."""
    parser = argparse.ArgumentParser(description=train_ssd.DESCRIPTION)
    add_flags(parser, DetectorConfig)
    args = parser.parse_args(argv)
    return guarded(lambda: train_ssd.run(vars(args)), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
