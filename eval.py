"""Evaluate a model; ``eval.py imagenet --help`` lists the settings."""

import sys

from gluon_asymmnet.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]], prog="eval.py"))
