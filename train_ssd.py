"""Train a single-shot detector; ``--help`` lists every setting and its default."""

import sys

from gluon_asymmnet.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-ssd", *sys.argv[1:]], prog="train_ssd.py"))
