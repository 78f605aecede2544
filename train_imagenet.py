"""Train an ImageNet classifier; ``--help`` lists every setting and its default."""

import argparse
import sys

from gluon_asymmnet.cli import guarded, train
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.utils.settings import add_flags


def main(argv=None) -> int:
    """Parse, train, print."""
    parser = argparse.ArgumentParser(description=train.DESCRIPTION)
    add_flags(parser, ClassifierConfig)
    args = parser.parse_args(argv)
    return guarded(lambda: train.run(vars(args)), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
