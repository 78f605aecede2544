"""Evaluate a model; ``eval.py imagenet --help`` lists the settings."""

import argparse
import sys

from gluon_asymmnet.cli import evaluate, guarded


def main(argv=None) -> int:
    """Parse, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    evaluate.add_tasks(parser)
    args = parser.parse_args(argv)
    return guarded(lambda: args.run(args), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
